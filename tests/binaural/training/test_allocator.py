import platform
import subprocess
import sys
from pathlib import Path

import pytest

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Resident memory after what was taken is freed, and how much of it lay on huge pages, in MB.
PROGRAM = """
import re, torch
from binaural.training.allocator import set_up_heap
assert set_up_heap()

def megabytes(field):
    return int(re.search(rf"{field}: +([0-9]+) kB", open("/proc/self/smaps_rollup").read())[1]) >> 10

before = megabytes("Rss")
taken = [torch.ones(25_000_000) for _ in range(4)]
huge = megabytes("AnonHugePages")
del taken
print(megabytes("Rss") - before, huge)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="no huge pages on this system"
)
def test_freed_memory_is_kept_and_lies_on_huge_pages():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    kept, huge = map(int, ran.stdout.split())
    assert kept > 350
    assert huge > 300


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.skipif(
    HUGE_PAGES.exists() and "[always]" in HUGE_PAGES.read_text(), reason="all pages are huge on this system"
)
def test_a_limit_on_addresses_leaves_the_pages_small():
    program = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))\n" + PROGRAM.replace(
        "assert set_up_heap()", "assert not set_up_heap()"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    kept, huge = map(int, ran.stdout.split())
    assert kept > 350
    assert huge < 300
