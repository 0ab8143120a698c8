"""The compiled extension beside PyTorch's own libraries."""

import os
import subprocess
import sys

import pytest
import torch

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
    """Weak, its symbol may stay without an address; then every CUDA kernel refuses to run."""
    environment = {**os.environ, "LD_DEBUG": "bindings"}
    command = [sys.executable, "-c", "import binaural.kernels"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    wanted = "aoti_torch_get_current_cuda_stream"
    bound = [line for line in told.splitlines() if wanted in line and "_C" in line.split(" to ")[0]]
    assert len(bound) == 1
    assert "libtorch_cuda" in bound[0]
