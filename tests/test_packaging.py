"""What an installation contains: the package binaural alone, beside Hugging Face's package `kernels`."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

WHERE = "import importlib.util as u; print(u.find_spec('kernels').origin)"


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python files of a wheel, in a folder of their own."""
    folder = tmp_path_factory.mktemp("site")
    run(sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", folder)
    return folder


def test_a_wheel_writes_into_no_other_package(site: Path) -> None:
    assert [path.name for path in site.iterdir()] == ["binaural"]
    here = {path.relative_to(ROOT / "kernels") for path in (ROOT / "kernels").rglob("*.py")}
    assert here
    assert all((site / "binaural/kernels" / path).is_file() for path in here)


def test_the_kernels_alone_do_not_import_the_networks(site: Path) -> None:
    program = (
        "import sys, binaural.kernels\n"
        "print(binaural.kernels.__file__)\n"
        "networks = ('binaural.models', 'binaural.losses')\n"
        "assert not [name for name in sys.modules if name.startswith(networks)]\n"
        "from binaural import BinauralAttentionDepthNet, BinauralAttentionLoss, load_network\n"
    )
    assert run(sys.executable, "-c", program, cwd=site).startswith(str(site))


def test_both_packages_are_usable_in_one_environment(site: Path) -> None:
    """transformers imports Hugging Face's `kernels`: it is found from anywhere, a checkout included."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(site),
        "kernels",
    ]
    installed = subprocess.run(command, capture_output=True, text=True)
    if installed.returncode != 0:
        pytest.skip(f"Hugging Face's kernels cannot be downloaded: {installed.stderr.strip()[-100:]}")
    theirs = str(site / "kernels/__init__.py")
    for folder in (site, ROOT):
        program = f"import sys; sys.path.append({str(site)!r}); {WHERE}; import binaural.kernels"
        assert run(sys.executable, "-c", program, cwd=folder).strip() == theirs


def test_a_source_distribution_can_be_built_from(tmp_path: Path) -> None:
    run(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[1] for name in tar.getnames() if "/" in name}
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    sources += [ROOT / "train.py", *(ROOT / "binaural").rglob("*.npz")]
    kernels = {f"binaural/{path.relative_to(ROOT)}" for path in (ROOT / "kernels").rglob("*.py")}
    assert {str(path.relative_to(ROOT)) for path in sources} | kernels <= names
