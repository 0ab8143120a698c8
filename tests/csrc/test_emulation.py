"""The emulation of CUDA on the CPU runs right kernels right, and reports each kind of fault."""

import importlib.util
from pathlib import Path

import pytest
from emulator import Emulator

CHECK = Path(__file__).parent / "emulation_check.cu"
LAYOUTS = Path(__file__).parent / "fragment_layouts.cu"
RIGHT = ("reverse", "neighbour", "within", "last_block", "copy", "overwrite")


@pytest.mark.parametrize("sanitizer", [None, "address", "thread"])
def test_right_kernels_run_and_nothing_is_reported(emulator: Emulator, sanitizer: str | None) -> None:
    program = emulator.program(CHECK, sanitizer)
    for kernel in RIGHT:
        ran = emulator.run(program, kernel)
        assert (ran.stdout, ran.returncode) == ("right\n", 0), f"{kernel}: {ran.stderr}"
        assert "ERROR" not in ran.stderr
        assert "WARNING: ThreadSanitizer" not in ran.stderr


@pytest.mark.parametrize(
    "kernel",
    ["reverse_without_barrier", "neighbour_without_barrier", "collide", "overwrite_without_barrier"],
)
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


def test_a_block_gets_no_more_shared_memory_than_the_card_has(emulator: Emulator) -> None:
    program = emulator.program(CHECK)
    assert emulator.run(program, "most").stdout == "right\n"
    ran = emulator.run(program, "too_much")
    assert "more shared memory than a block may have" in ran.stderr
    assert ran.returncode != 0


def test_fragments_lie_where_cute_says(emulator: Emulator) -> None:
    spec = importlib.util.find_spec("cutlass_library")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("the package nvidia-cutlass is not installed")
    cutlass = Path(spec.submodule_search_locations[0]) / "source/include"
    standard = emulator.headers / "cccl"
    if not (standard / "cuda/std").is_dir():
        pytest.skip(f"CuTe needs libcu++, and {standard} is not there")
    program = emulator.program(LAYOUTS, None, f"-isystem{standard}", f"-isystem{cutlass}")
    assert emulator.run(program).stdout == "agrees\n"
