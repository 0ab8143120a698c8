"""The emulation of CUDA on the CPU runs right kernels right, and reports each kind of fault."""

from pathlib import Path

import pytest
from emulator import Emulator

CHECK = Path(__file__).parent / "emulation_check.cu"
RIGHT = ("reverse", "neighbour", "within", "last_block", "copy")


@pytest.mark.parametrize("sanitizer", [None, "address", "thread"])
def test_right_kernels_run_and_nothing_is_reported(emulator: Emulator, sanitizer: str | None) -> None:
    program = emulator.program(CHECK, sanitizer)
    for kernel in RIGHT:
        ran = emulator.run(program, kernel)
        assert (ran.stdout, ran.returncode) == ("right\n", 0), f"{kernel}: {ran.stderr}"
        assert "ERROR" not in ran.stderr
        assert "WARNING: ThreadSanitizer" not in ran.stderr


@pytest.mark.parametrize("kernel", ["reverse_without_barrier", "neighbour_without_barrier", "collide"])
def test_thread_sanitizer_reports_a_race_at_its_line(emulator: Emulator, kernel: str) -> None:
    ran = emulator.run(emulator.program(CHECK, "thread"), kernel)
    assert "ThreadSanitizer: data race" in ran.stderr
    assert f"{CHECK.name}:" in ran.stderr
    assert ran.returncode != 0


def test_address_sanitizer_reports_an_access_beyond_shared_memory(emulator: Emulator) -> None:
    ran = emulator.run(emulator.program(CHECK, "address"), "overrun")
    assert "AddressSanitizer: heap-buffer-overflow" in ran.stderr
    assert f"{CHECK.name}:" in ran.stderr
    assert ran.returncode != 0


@pytest.mark.parametrize("kernel", ["reverse_without_barrier", "copy_without_wait"])
def test_missing_synchronisation_gives_wrong_results(emulator: Emulator, kernel: str) -> None:
    assert emulator.run(emulator.program(CHECK), kernel).stdout == "wrong\n"


def test_a_barrier_that_some_threads_miss_is_a_deadlock(emulator: Emulator) -> None:
    ran = emulator.run(emulator.program(CHECK), "diverge")
    assert "deadlock" in ran.stderr
    assert ran.returncode != 0
