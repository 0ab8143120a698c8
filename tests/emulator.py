"""Compile CUDA C++ kernels with the host compiler, to run them on the CPU (see csrc/cuda_emulation.h)."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SANITIZERS = {"address": "AddressSanitizer", "thread": "ThreadSanitizer"}


def _cuda_headers() -> Path | None:
    """The folder of CUDA's headers: of the toolkit, else of NVIDIA's or Triton's Python packages."""
    folders = []
    nvcc = shutil.which("nvcc")
    if nvcc is not None:
        # nvcc on the PATH may be a wrapper: ask it where it lives.
        told = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True).stderr
        top = re.search(r"^#\$ TOP=(.*)$", told, re.MULTILINE)
        folders += [Path(top[1].strip()) / "include"] if top else []
    for package, below in (("nvidia", "cu*/include"), ("triton", "backends/nvidia/include")):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            folders += sorted(Path(place).glob(below))
    needed = ("cuda_runtime.h", "cuda_bf16.h", "crt/host_defines.h")
    return next((f for f in folders if all((f / name).is_file() for name in needed)), None)


class Emulator:
    """Builds sources that include `cuda_emulation.h`, each combination once, and runs them."""

    def __init__(self, folder: Path) -> None:
        headers = _cuda_headers()
        self.compiler = shutil.which(os.environ.get("CXX", "g++"))
        if headers is None:
            pytest.skip(
                "no CUDA headers: neither nvcc nor the packages nvidia-cuda-runtime or triton are here"
            )
        if self.compiler is None or os.uname().sysname != "Linux":
            pytest.skip("the emulation of CUDA needs Linux and g++")
        self.headers: Path = headers
        self._folder = folder
        self._built: dict[tuple[Path, tuple[str, ...]], Path] = {}

    def library(self, source: Path, *flags: str) -> Path:
        """A shared library, for ctypes."""
        return self._build(source, ("-shared", "-fPIC", *flags))

    def program(self, source: Path, sanitizer: str | None = None, *flags: str) -> Path:
        """An executable; `sanitizer` is "address", "thread" or None."""
        return self._build(source, (*([f"-fsanitize={sanitizer}"] if sanitizer else []), *flags))

    def run(self, program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a program: stdout, stderr and the return code, which a sanitizer's report makes non-zero."""
        command = [str(program), *map(str, arguments)]
        if shutil.which("setarch"):
            # ThreadSanitizer's shadow memory does not fit every randomised address space.
            command = ["setarch", "--addr-no-randomize", *command]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    def _build(self, source: Path, flags: tuple[str, ...]) -> Path:
        key = (source, flags)
        if key not in self._built:
            target = self._folder / f"{source.stem}-{len(self._built)}"
            command = [
                self.compiler, "-x", "c++", "-std=c++20", "-O1", "-g", "-pthread",
                "-Wall", "-Wno-unknown-pragmas",
                *flags, f"-isystem{self.headers}", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests/csrc'}",
                str(source), "-o", str(target),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            self._built[key] = target
        return self._built[key]
