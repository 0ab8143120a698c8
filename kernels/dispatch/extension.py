"""Load the compiled extension, if it was built: its operators then appear as `torch.ops.binaural.*`."""

import struct
from pathlib import Path

import torch

NAMESPACE = "binaural"
# The operator that was added last: older builds lack it.
_NEWEST = "cross_attention_packed_forward"


def _is_complete(library: Path) -> bool:
    """Whether a shared library has its full length: loading a truncated one may crash the process."""
    with library.open("rb") as file:
        header = file.read(64)
    if header[:4] != b"\x7fELF":
        return len(header) == 64  # another system's format: loading it tells
    if len(header) < 64 or header[4:6] != b"\x02\x01":
        return False
    # The table of sections comes last in the file.
    (begin,) = struct.unpack_from("<Q", header, 0x28)
    entry_bytes, entries = struct.unpack_from("<HH", header, 0x3A)
    return library.stat().st_size >= begin + entry_bytes * entries


def _load() -> str | None:
    """Load the shared library in the package's folder; return why it could not be loaded, or None."""
    # Not resolved: in a checkout this folder is a link to kernels/, and the library is beside the link.
    folder = Path(__file__).parent.parent
    # sorted: if there is also a stale build of another name, every run still loads the same one
    libraries = sorted(folder.glob("_C*.so")) + sorted(folder.glob("_C*.pyd"))
    if not libraries:
        return "the extension is not built; run `make setup` or `pip install --no-build-isolation -e .`"
    if not _is_complete(libraries[-1]):
        name = libraries[-1].name
        return f"{name} is incomplete: delete {libraries[-1]}, then run `make setup` or `pip install` again"
    try:
        torch.ops.load_library(libraries[-1])
    except OSError as error:
        return f"{libraries[-1].name} does not load: {error}".splitlines()[0]
    if not hasattr(torch.ops.binaural, _NEWEST):
        return f"{libraries[-1].name} was built from older sources; run `make setup` or `pip install` again"
    return None


WHY_NOT_LOADED = _load()


def has_kernel(operator: str, dispatch_key: str) -> bool:
    """Whether the extension has a kernel of `operator` for "CPU" or "CUDA"."""
    name = f"{NAMESPACE}::{operator}"
    return WHY_NOT_LOADED is None and torch._C._dispatch_has_kernel_for_dispatch_key(name, dispatch_key)


def release_memory() -> None:
    """Free the memory that the CPU kernels keep for their next results, at most 1 GiB."""
    if WHY_NOT_LOADED is None:
        torch.ops.binaural.release_memory()
