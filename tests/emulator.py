"""Compile CUDA C++ kernels with the host compiler and run them on the CPU (tests/csrc/cuda_emulation.h)."""

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Counted:
    """What a launch of a kernel did (see tests/csrc/count_accesses.cpp)."""

    kernel: str  # mangled, as in the compiled extension
    blocks: int
    threads: int
    shared_memory: int  # bytes of a block, those that the launch asks for
    read: int  # bytes of global memory, as often as they are read
    first_read: int  # and only those that a block has not read before
    written: int  # bytes of global memory
    operations: int  # on tensor cores


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
        self._built: dict[tuple[tuple[Path, ...], tuple[str, ...]], Path] = {}

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

    def count(self, source: Path, *arguments: object) -> list[Counted]:
        """What each launch of a program reads, writes and multiplies."""
        objects = (
            self._build(source, ("-c", "-fsanitize=thread", "-DPROGRAM")),
            self._build(ROOT / "tests/csrc/count_accesses.cpp", ("-c",)),
        )
        # At fixed addresses, so that the symbol table tells which kernel an address is.
        program = self._link(objects, ("-no-pie", "-pthread"))
        printed = self.run(program, *arguments)
        assert printed.returncode == 0, printed.stderr
        table = subprocess.run(["nm", str(program)], check=True, capture_output=True, text=True).stdout
        names = {int(address, 16): name for address, name in re.findall(r"^(\w+) \w (\S+)$", table, re.M)}
        launches = re.findall(r"^launch (\w+) (.*)$", printed.stdout, re.MULTILINE)
        return [Counted(names[int(address, 16)], *map(int, rest.split())) for address, rest in launches]

    def _build(self, source: Path, flags: tuple[str, ...]) -> Path:
        return self._compile((source,), flags, ("-x", "c++", "-std=c++20", "-O1", "-g", "-pthread"))

    def _link(self, objects: tuple[Path, ...], flags: tuple[str, ...]) -> Path:
        return self._compile(objects, flags, ())

    def _compile(self, files: tuple[Path, ...], flags: tuple[str, ...], language: tuple[str, ...]) -> Path:
        key = (files, flags)
        if key not in self._built:
            target = self._folder / f"{files[0].stem}-{len(self._built)}"
            command = [
                str(self.compiler), *language, "-Wall", "-Wno-unknown-pragmas", *flags,
                f"-isystem{self.headers}", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests/csrc'}",
                *map(str, files), "-o", str(target),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            self._built[key] = target
        return self._built[key]
