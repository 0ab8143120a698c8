"""The compiled extension: what setup.py builds, how it is loaded, and PyTorch's own libraries beside it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from instruction_sets import ROOT, built_extension

from binaural.kernels.dispatch import extension

WITHOUT_CUDA = extension.WHY_NOT_LOADED or (
    None if extension.has_kernel("cross_attention_forward", "CUDA") else "it was built without CUDA kernels"
)


@pytest.mark.skipif(extension.WHY_NOT_LOADED is not None, reason=str(extension.WHY_NOT_LOADED))
def test_an_older_build_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "_NEWEST", "not_there_yet")
    assert "was built from older sources; run `make setup`" in str(extension._load())


@pytest.mark.skipif(WITHOUT_CUDA is not None, reason=str(WITHOUT_CUDA))
@pytest.mark.skipif(torch.version.cuda is None, reason="this torch is a CPU-only build")
@pytest.mark.skipif(sys.platform != "linux", reason="needs the dynamic linker of glibc")
def test_the_stream_is_found_in_the_libraries_of_a_cuda_build() -> None:
    """Its symbol is weak: without an address, every CUDA kernel would raise an error."""
    environment = {**os.environ, "LD_DEBUG": "bindings"}
    command = [sys.executable, "-c", "import binaural.kernels"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    wanted = "aoti_torch_get_current_cuda_stream"
    bound = [line for line in told.splitlines() if wanted in line and "_C" in line.split(" to ")[0]]
    assert len(bound) == 1
    assert "libtorch_cuda" in bound[0]


@pytest.mark.skipif(extension.WHY_NOT_LOADED is not None, reason=str(extension.WHY_NOT_LOADED))
@pytest.mark.parametrize("kept", [0, 40, 1000, 100_000, -1])
def test_an_incomplete_build_is_named_and_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    # Loading a library that lacks its end may kill the process by SIGBUS.
    whole = built_extension().read_bytes()
    (tmp_path / "_C.abi3.so").write_bytes(whole[:kept])
    monkeypatch.setattr(extension, "__file__", str(tmp_path / "dispatch/extension.py"))
    assert f"_C.abi3.so is incomplete: delete {tmp_path}" in str(extension._load())


def test_the_library_is_small() -> None:
    # Without symbols for debugging and without kernels that only tests run.
    assert built_extension().stat().st_size < 25e6


@pytest.fixture(scope="module")
def setup_py() -> ModuleType:
    """setup.py, which builds nothing: setup() is replaced."""
    import setuptools

    spec = importlib.util.spec_from_file_location("setup_py", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **_: None)
        patch.chdir(ROOT)
        patch.setenv("BINAURAL_CUDA", "0")
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("environment", "gpus", "missing", "expected"),
    [
        ({}, [], None, (None, "no GPU is visible")),
        ({}, [(9, 0), (8, 6), (9, 0)], None, ("8.6;9.0", "the GPUs that are visible")),
        ({}, [(7, 5)], None, (None, "no visible GPU has compute capability 8.0")),
        ({}, [(7, 5), (8, 0)], None, ("8.0", "the GPUs that are visible")),
        ({}, [(9, 0)], "no toolkit", (None, "no toolkit")),
        ({"BINAURAL_CUDA": "1"}, [], None, ("8.0;9.0;10.0+PTX", "BINAURAL_CUDA=1")),
        ({"BINAURAL_CUDA": "0", "TORCH_CUDA_ARCH_LIST": "9.0"}, [(9, 0)], None, (None, "BINAURAL_CUDA=0")),
        ({"BINAURAL_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0"}, [], None, ("9.0", "TORCH_CUDA_ARCH_LIST")),
        ({"TORCH_CUDA_ARCH_LIST": "9.0"}, [(8, 0)], None, ("9.0", "TORCH_CUDA_ARCH_LIST")),
    ],
)
def test_the_architectures_that_are_built(
    setup_py: Any, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], gpus: list[tuple[int, int]],
    missing: str | None, expected: tuple[str | None, str],
) -> None:  # fmt: skip
    for name in ("BINAURAL_CUDA", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(setup_py, "missing_for_cuda", lambda: missing)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: gpus[i])
    architectures, reason = setup_py.choose_architectures()
    assert architectures == expected[0]
    assert reason.startswith(expected[1])


def test_a_build_that_cannot_be_made_as_asked_is_an_error(
    setup_py: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_py, "missing_for_cuda", lambda: "no toolkit")
    monkeypatch.setenv("BINAURAL_CUDA", "1")
    with pytest.raises(SystemExit, match="BINAURAL_CUDA=1, but no toolkit"):
        setup_py.choose_architectures()
    monkeypatch.setenv("BINAURAL_CUDA", "yes")
    with pytest.raises(SystemExit, match="BINAURAL_CUDA must be 0 or 1, got 'yes'"):
        setup_py.choose_architectures()


def test_a_copy_that_fails_leaves_the_last_extension_whole(
    setup_py: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from setuptools import Distribution, Extension

    monkeypatch.chdir(tmp_path)
    target = tmp_path / "binaural/kernels/_C.so"
    target.parent.mkdir(parents=True)
    target.write_text("last")
    build = setup_py.BuildCompleteExtension(Distribution({"packages": ["binaural.kernels"]}))
    build.extensions = [Extension("binaural.kernels._C", [])]
    monkeypatch.setattr(build, "get_ext_fullpath", lambda name: str(target))
    monkeypatch.setattr(build, "get_ext_filename", lambda name: "built.so")
    build.build_lib = str(tmp_path)
    (tmp_path / "built.so").write_text("new")

    def no_space(source: Path, to: Path) -> None:
        Path(to).write_text("ne")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(setup_py.shutil, "copyfile", no_space)
        with pytest.raises(OSError, match="No space left"):
            build.copy_extensions_to_source()
    assert target.read_text() == "last"
    build.copy_extensions_to_source()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]
