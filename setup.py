"""Build the compiled extension `binaural/kernels/_C.abi3.so`; everything else is in pyproject.toml.

It is linked against LibTorch's stable ABI, so that one build works with every torch from 2.11 on.

CUDA kernels need a CUDA build of torch and a CUDA toolkit. They are compiled for the first of these that
applies, since each architecture takes minutes:
- `BINAURAL_CUDA=0`: not at all
- `TORCH_CUDA_ARCH_LIST`: the architectures that it lists
- `BINAURAL_CUDA=1`: all that the project supports; what is missing for a build is an error
- the GPUs that are visible; without any, not at all
One line of the build says which, and why.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import torch
from setuptools import Extension, setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension

# The oldest torch whose headers have what csrc/ uses, as LibTorch encodes it: 2.11.0.
STABLE_ABI = "0x020b000000000000"
SUPPORTED_ARCHITECTURES = "8.0;9.0;10.0+PTX"
OLDEST_CAPABILITY = (8, 0)


def find_static_runtime() -> Path | None:
    """The folder of the CUDA toolkit's static runtime library."""
    # CUDA_HOME is guessed from where nvcc lies on the PATH, which may be a wrapper: ask nvcc itself.
    told = subprocess.run([f"{CUDA_HOME}/bin/nvcc", "--dryrun", "x.cu"], capture_output=True, text=True)
    top = re.search(r"^#\$ TOP=(.*)$", told.stderr, re.MULTILINE)
    home = Path(str(CUDA_HOME))
    for root in [home] if top is None else [Path(top[1].strip()).resolve(), home]:
        for folder in (root / "lib64", root / "lib", root / "targets/x86_64-linux/lib", root / "lib/x64"):
            if list(folder.glob("*cudart_static.*")):
                return folder
    return None


def missing_for_cuda() -> str | None:
    """What a build of the CUDA kernels lacks; None if nothing."""
    if torch.version.cuda is None:
        return "this torch is a CPU-only build"
    if CUDA_HOME is None:
        return "no CUDA toolkit was found (nvcc on the PATH, or CUDA_HOME)"
    if find_static_runtime() is None:
        return f"the CUDA toolkit at {CUDA_HOME} has no static runtime library"
    return None


def choose_architectures() -> tuple[str | None, str]:
    """The CUDA architectures to compile for, or None, and why."""
    wanted, listed = os.environ.get("BINAURAL_CUDA"), os.environ.get("TORCH_CUDA_ARCH_LIST")
    if wanted not in (None, "", "0", "1"):
        raise SystemExit(f"BINAURAL_CUDA must be 0 or 1, got {wanted!r}")
    if wanted == "0":
        return None, "BINAURAL_CUDA=0"
    missing = missing_for_cuda()
    if missing is not None:
        if wanted == "1":
            raise SystemExit(f"BINAURAL_CUDA=1, but {missing}")
        return None, missing
    if listed:
        return listed, "TORCH_CUDA_ARCH_LIST"
    if wanted == "1":
        return SUPPORTED_ARCHITECTURES, "BINAURAL_CUDA=1"
    visible = sorted({torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())})
    usable = [f"{major}.{minor}" for major, minor in visible if (major, minor) >= OLDEST_CAPABILITY]
    if usable:
        return ";".join(usable), "the GPUs that are visible"
    if visible:
        return None, "no visible GPU has compute capability 8.0 or higher"
    return None, "no GPU is visible (BINAURAL_CUDA=1 builds for all architectures)"


def ordered_sources(pattern: str) -> list[Path]:
    """The sources below csrc/ that take longest to compile first, so that no core is idle at the end."""
    slow = ("cross_attention/cpu_", "cross_attention/cuda_", "layers/cpu_")
    sources = sorted(path for path in Path("csrc").rglob(pattern))
    return sorted(sources, key=lambda path: not any(name in path.as_posix() for name in slow))


def extension() -> Extension:
    architectures, reason = choose_architectures()
    sources = ordered_sources("*.cpp")
    defines = [f"-DTORCH_TARGET_VERSION={STABLE_ABI}"]
    link = ["-Wl,-s"] if os.uname().sysname == "Linux" else []  # no symbols for debugging
    if architectures is None:
        print(f"building the extension for the CPU only: {reason}")
    else:
        print(f"building the extension with CUDA kernels for {architectures}: {reason}")
        os.environ["TORCH_CUDA_ARCH_LIST"] = architectures
        sources = ordered_sources("*.cu") + sources
        defines.append("-DUSE_CUDA")
        # The CUDA runtime is linked statically: the same file then loads beside a CPU-only torch. libtorch
        # itself is not used; it loads libtorch_cuda where there is one, which has the current stream.
        link += [f"-L{find_static_runtime()}", "-lcudart_static", "-lrt", "-ldl", "-lpthread"]
        link += ["-Wl,--no-as-needed", "-ltorch"]
    return CppExtension(
        "binaural.kernels._C",
        [str(source) for source in sources],
        include_dirs=[str(Path("csrc").resolve())],
        extra_compile_args={
            # -g0: Python's own flags have -g, with which the kernels take twice as long to compile.
            "cxx": ["-O3", "-g0", "-fno-math-errno", "-std=c++20", "-fvisibility=hidden", *defines],
            "nvcc": ["-O3", "-std=c++20", *defines],
        },
        extra_link_args=link,
        py_limited_api=True,
    )


class BuildCompleteExtension(BuildExtension):
    """Leaves a whole extension or none, also where the build is killed or the disk is full."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # Link anew: a library that an earlier build was writing when it was killed looks up to date.
        # Objects are not affected: ninja compiles those that it has not seen completed.
        self.force = True

    def copy_extensions_to_source(self) -> None:
        """Copy each library under a temporary name, then rename it."""
        for ext in self.extensions:
            built = Path(self.build_lib, self.get_ext_filename(self.get_ext_fullname(ext.name)))
            target = Path(self.get_ext_fullpath(ext.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
            try:
                shutil.copyfile(built, partial)
                partial.chmod(0o755)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)


setup(
    ext_modules=[extension()],
    cmdclass={"build_ext": BuildCompleteExtension},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
