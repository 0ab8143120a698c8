"""The instruction sets that the CPU kernels are tested on."""

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from binaural import kernels

ROOT = Path(__file__).resolve().parents[2]
# The sources of the AVX-512 kernels, compiled to AVX2, so that processors without AVX-512 test them too.
ON_AVX2 = "avx512_on_avx2"
INSTRUCTION_SETS = ["generic", "avx2", "avx512", "avx512_bf16", ON_AVX2]
# In the order of binaural::Operation in csrc/common/isa.h.
_OPERATIONS = ("cross_attention", "depth_loss", "layers")


def built_extension() -> Path:
    """The extension's file, for functions that are called past torch."""
    return sorted(Path(kernels.__file__).parent.glob("_C*.so"))[-1]


def force(name: str) -> str | None:
    """Make the kernels of an instruction set run from now on, "" for the best; or return why they cannot."""
    library = ctypes.CDLL(str(built_extension()))
    if name == ON_AVX2:
        why_not = _load_avx512_on_avx2(library)
        if why_not is not None:
            return why_not
        name = "test"
    if library.binaural_force_isa(name.encode()) != 0:
        return f"this processor does not have {name}"
    return None


def _load_avx512_on_avx2(library: ctypes.CDLL) -> str | None:
    """Hand the kernels of tests/csrc/avx512_on_avx2 to the extension; return why not, or None."""
    supported = {name: library.binaural_force_isa(name.encode()) == 0 for name in ("avx2", "avx512")}
    library.binaural_force_isa(b"")
    if not supported["avx2"]:
        return "this processor does not have AVX2"
    # They take minutes to compile, and the AVX-512 kernels test the same sources where they run.
    if supported["avx512"] and os.environ.get("BINAURAL_TEST_AVX512_ON_AVX2") != "1":
        return "this processor has AVX-512 (BINAURAL_TEST_AVX512_ON_AVX2=1 runs these too)"
    if shutil.which("g++") is None:
        return "compiling the AVX-512 kernels to AVX2 needs g++"
    tables = (ctypes.c_void_p * len(_OPERATIONS)).in_dll(library, "binaural_test_kernels")
    compiled = ctypes.CDLL(str(_compile_avx512_on_avx2()))
    for i, operation in enumerate(_OPERATIONS):
        tables[i] = ctypes.c_void_p.in_dll(compiled, f"{operation}_kernels").value
    return None


def _compile_avx512_on_avx2() -> Path:
    """The shared library of tests/csrc/avx512_on_avx2 in build/, compiled once per state of the sources."""
    sources = sorted((ROOT / "tests/csrc/avx512_on_avx2").glob("*.cpp"))
    digest = hashlib.sha256()
    for path in [*sources, *sorted((ROOT / "csrc").rglob("*.h"))]:
        digest.update(path.read_bytes())
    folder = ROOT / "build/tests"
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / f"avx512_on_avx2-{digest.hexdigest()[:16]}.so"
    with (folder / "avx512_on_avx2.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes, one compiles
        if not result.exists():
            flags = [
                "-std=c++20",
                "-O3",
                "-g0",
                "-fno-math-errno",
                "-fPIC",
                f"-I{ROOT / 'csrc'}",
                "-Wno-psabi",
            ]
            objects = [folder / f"{source.stem}.o" for source in sources]
            compilers = [
                subprocess.Popen(["g++", *flags, "-c", source, "-o", out])
                for source, out in zip(sources, objects, strict=True)
            ]
            statuses = [compiler.wait() for compiler in compilers]
            if any(statuses):
                raise RuntimeError("tests/csrc/avx512_on_avx2 does not compile, see the output of g++")
            partial = result.with_suffix(".partial")
            subprocess.run(["g++", "-shared", *objects, "-o", partial], check=True)
            partial.replace(result)
    return result
