import platform
import subprocess
import sys
from pathlib import Path

import pytest

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# How often set_up_heap could, twice in a row; how many MB stay resident when what was taken is freed; and
# whether the heap there asks for huge pages.
PROGRAM = """
import re, torch
from pathlib import Path
from binaural.training.allocator import set_up_heap

def megabytes():
    return int(re.search(r"VmRSS:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1]) >> 10

def asks_for_huge_pages(address):
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        if line.startswith("VmFlags:") and inside:
            return "hg" in line.split()

could = set_up_heap() + set_up_heap()
before = megabytes()
taken = [torch.ones(25_000_000) for _ in range(4)]
huge = asks_for_huge_pages(taken[3].data_ptr() + 10**7)
del taken
print(could, megabytes() - before, int(huge))
"""

pytestmark = [
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library"),
    pytest.mark.skipif(not HUGE_PAGES.exists(), reason="no huge pages on this system"),
]


def run(program):
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return map(int, ran.stdout.split())


def test_freed_memory_is_kept_and_lies_on_huge_pages():
    could, kept, huge = run(PROGRAM)
    if not could:
        pytest.skip("addresses are limited or counted on this system")
    assert could == 2
    assert kept > 350
    assert huge == 1


def test_a_limit_on_addresses_leaves_the_pages_small():
    limit = "import resource\nhard = resource.getrlimit(resource.RLIMIT_AS)[1]\n"
    could, kept, huge = run(limit + "resource.setrlimit(resource.RLIMIT_AS, (2**35, hard))\n" + PROGRAM)
    assert could == 0
    assert kept > 350
    assert huge == 0
