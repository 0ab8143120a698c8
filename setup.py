"""Build the compiled extension `binaural/kernels/_C.abi3.so`; everything else is in pyproject.toml.

It is linked against LibTorch's stable ABI, so that one build serves every torch from 2.11 on. CUDA kernels
are built where a CUDA build of torch and a CUDA toolkit are found, whether or not a GPU is visible;
`BINAURAL_CUDA=0` leaves them out. `TORCH_CUDA_ARCH_LIST` chooses the architectures.
"""

import os
import re
import subprocess
from pathlib import Path

import torch
from setuptools import Extension, setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension

# The oldest torch whose headers have what csrc/ uses, as LibTorch writes it: 2.11.0.
STABLE_ABI = "0x020b000000000000"
ARCHITECTURES = "8.0;9.0;10.0+PTX"


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


def why_no_cuda() -> str | None:
    """Why the CUDA kernels are not built, in one line; None if they are."""
    if os.environ.get("BINAURAL_CUDA") == "0":
        return "BINAURAL_CUDA=0"
    if torch.version.cuda is None:
        return "this torch is a CPU-only build"
    if CUDA_HOME is None:
        return "no CUDA toolkit was found (nvcc on the PATH, or CUDA_HOME)"
    if find_static_runtime() is None:
        return f"the CUDA toolkit at {CUDA_HOME} has no static runtime library"
    return None


def extension() -> Extension:
    reason = why_no_cuda()
    sources = sorted(Path("csrc").rglob("*.cpp"))
    defines = [f"-DTORCH_TARGET_VERSION={STABLE_ABI}"]
    link: list[str] = []
    if reason is None:
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES)
        print(f"building the extension with CUDA kernels for {os.environ['TORCH_CUDA_ARCH_LIST']}")
        sources += sorted(Path("csrc").rglob("*.cu"))
        defines.append("-DUSE_CUDA")
        # The CUDA runtime is linked statically: the same file then loads beside a CPU-only torch. Of libtorch
        # nothing is used; it brings along libtorch_cuda where there is one, for the current stream.
        link = [f"-L{find_static_runtime()}", "-lcudart_static", "-lrt", "-ldl", "-lpthread"]
        link += ["-Wl,--no-as-needed", "-ltorch"]
    else:
        print(f"building the extension for the CPU only: {reason}")
    return CppExtension(
        "binaural.kernels._C",
        [str(source) for source in sources],
        include_dirs=[str(Path("csrc").resolve())],
        extra_compile_args={
            "cxx": ["-O3", "-fno-math-errno", "-std=c++20", "-fvisibility=hidden", *defines],
            "nvcc": ["-O3", "-std=c++20", *defines],
        },
        extra_link_args=link,
        py_limited_api=True,
    )


setup(
    ext_modules=[extension()],
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
