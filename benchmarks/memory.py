"""Peak memory of a call."""

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

from binaural.kernels.dispatch import extension


def peak_memory(function: Callable[[], object], device: str) -> int | None:
    """Peak memory of one call in bytes, beyond the memory in use before, its results included.

    On the CPU it is resident memory, and None where the system does not tell; what the heap keeps is given
    back first.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    # Freed memory that is kept for later calls would hide the peak.
    extension.release_memory()
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS")
    reset.write_text("5")
    kept = function()
    peak = _resident("VmHWM")
    del kept
    return max(0, peak - before)


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None, f"/proc/self/status has no {field}"
    return int(found[1]) * 1024
