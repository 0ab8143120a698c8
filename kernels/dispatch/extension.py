"""Load the compiled extension, if it was built: its operators then appear as `torch.ops.binaural.*`."""

from pathlib import Path

import torch

NAMESPACE = "binaural"
# Of the operators, the one that came last: builds from before lack it.
_NEWEST = "cross_attention_packed_forward"


def _load() -> str | None:
    """Load the shared library in the package's folder; return why it could not be loaded, or None."""
    # Not resolved: in a checkout this folder is a link into kernels/, and the library is where the link is.
    folder = Path(__file__).parent.parent
    # sorted: should a stale build of another name lie there, every run still takes the same one
    libraries = sorted(folder.glob("_C*.so")) + sorted(folder.glob("_C*.pyd"))
    if not libraries:
        return "the extension is not built; run `make setup` or `pip install --no-build-isolation -e .`"
    try:
        torch.ops.load_library(libraries[-1])
    except OSError as error:
        return f"{libraries[-1].name} does not load: {error}".splitlines()[0]
    if not hasattr(torch.ops.binaural, _NEWEST):
        return f"{libraries[-1].name} was built from older sources; run `make setup` or `pip install` again"
    return None


WHY_NOT_LOADED = _load()


def has_kernel(operator: str, dispatch_key: str) -> bool:
    """Whether the extension brought a kernel of `operator` for "CPU" or "CUDA"."""
    name = f"{NAMESPACE}::{operator}"
    return WHY_NOT_LOADED is None and torch._C._dispatch_has_kernel_for_dispatch_key(name, dispatch_key)


def release_memory() -> None:
    """Give back to the system the memory that the CPU kernels keep for their next results, at most 1 GiB."""
    if WHY_NOT_LOADED is None:
        torch.ops.binaural.release_memory()
