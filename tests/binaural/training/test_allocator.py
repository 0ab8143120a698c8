import resource
import sys

import pytest
import torch

from binaural.training.allocator import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_is_taken_again_without_page_faults():
    if not keep_freed_memory():
        pytest.skip("this C library has no mallopt")

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(2**24)  # 64 MB: 16,384 pages of 4 KB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 100
