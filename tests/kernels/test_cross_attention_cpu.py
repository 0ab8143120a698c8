"""Cross-attention on the CPU beyond the common suite: threads, instruction sets, masks, memory."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from backend import Backend
from cross_attention_cases import Case, defined, make, relative_error
from instruction_sets import INSTRUCTION_SETS

from benchmarks.memory import peak_memory
from binaural import kernels
from binaural.kernels.dispatch import extension

CASES = [
    case
    for pair in (
        Case(4, 64, 64, 2, 32, 32).both(),
        Case(2, 37, 53, 3, 5, 7, reach=4).both(),
        Case(2, 20, 90, 2, 16, 8, max_lag=10, reach=10).both(),
        Case(1, 600, 300, 1, 24, 40, reach=9).both(),
        Case(1, 300, 270, 2, 8, 8, size=8.0).both(),
        # one block, whose results need no accumulators
        Case(3, 16, 30, 2, 16, 48).both(),
        Case(2, 64, 51, 2, 64, 32, reach=4).both(),
        Case(2, 17, 32, 2, 16, 16, size=8.0).both(),
        # small, operands are read in place
        Case(3, 32, 32, 2, 32, 16, reach=31).both(),
        Case(2, 1, 32, 2, 16, 64, reach=40).both(),
        Case(2, 29, 1, 3, 64, 32).both(),
        Case(2, 5, 7, 2, 128, 112, scale=-0.2).both(),
        # as short, but with a band, or with rows that end within a vector
        Case(2, 8, 8, 2, 16, 16, max_lag=2).both(),
        Case(1, 3, 8, 1, 16, 16, max_lag=0).both(),
        Case(2, 8, 8, 2, 21, 16).both(),
        Case(2, 8, 7, 2, 16, 21).both(),
        # one block with rows that end within a vector
        Case(2, 33, 30, 2, 16, 40).both(),
        Case(2, 33, 30, 2, 40, 16).both(),
        # several blocks of rows, with few and many columns: results of rows need no accumulators
        Case(2, 140, 60, 2, 16, 32, reach=4).both(),
        Case(1, 100, 128, 2, 32, 48).both(),
        Case(1, 140, 70, 2, 16, 16, size=8.0).both(),
        # the longest that are not cut into stripes
        Case(1, 256, 200, 2, 40, 72, reach=9).both(),
    )
    for case in pair
]


@pytest.fixture(autouse=True)
def _available() -> None:
    Backend("cpp", "cpu").skip_unless_available("cross_attention")


@pytest.fixture(params=[*INSTRUCTION_SETS, "amx"])
def isa(request: pytest.FixtureRequest, force_isa: Callable[[str], None]) -> str:
    """Each instruction set in turn; its kernels run. AMX is only tested in this file."""
    force_isa(request.param)
    return request.param


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_number_of_threads_does_not_change_a_bit(case: Case) -> None:
    call = make(case).to(torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = call.run("cpp")
        torch.set_num_threads(3)
        together = call.run("cpp")
    finally:
        torch.set_num_threads(threads)
    for name, one, three in zip(call.names(), alone, together, strict=True):
        assert torch.equal(one, three), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_instruction_sets_agree(isa: str, case: Case, dtype: torch.dtype) -> None:
    call = make(case)
    # Rounding a large similarity costs in proportion to its size.
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 1e-2, torch.float16: 1e-3}[dtype]
    tolerance *= 10 if case.size > 1 else 1
    expected = defined(call)
    for name, ours, value in zip(call.names(), call.to(dtype).run("cpp"), expected, strict=True):
        assert relative_error(ours, value) < tolerance, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_single_partner_gets_no_gradient_of_rounding(isa: str, dtype: torch.dtype) -> None:
    # Its weight is 1 whatever the logit, so all of dq comes from the query of the single time step.
    call = make(Case(3, 1, 64, 2, 32, 63))
    for name, ours, value in zip(call.names(), call.to(dtype).run("cpp"), defined(call), strict=True):
        assert relative_error(ours, value) < 1e-2, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_bias_that_removes_pairs_removes_them(isa: str, dtype: torch.dtype) -> None:
    call = make(Case(2, 20, 21, 2, 16, 16, reach=3))
    bias = torch.randn(2, 7, dtype=torch.float64)
    bias[:, [1, 4]] = -torch.inf
    call.lag_bias = bias.requires_grad_()
    results = call.to(dtype).run("cpp")
    assert torch.equal(results[-1] == 0, bias == -torch.inf)
    for name, ours, value in zip(call.names(), results, defined(call), strict=True):
        assert relative_error(ours, value) < (1e-5 if dtype == torch.float32 else 1e-2), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nan_reaches_no_lag_that_its_query_lacks(isa: str, dtype: torch.dtype) -> None:
    call = make(Case(1, 20, 5, 1, 16, 16, reach=24)).to(dtype)
    call.grads[0][0, -1] = torch.nan
    gradient = call.run("cpp")[-1][0]
    lags = torch.arange(-24, 25)
    assert torch.equal(gradient.isnan(), (lags >= -19) & (lags <= -15))


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("where", ["q_right", "v_right", "k_right"])
@pytest.mark.parametrize(
    "case",
    [
        Case(1, 12, 12, 2, 16, 16, max_lag=2),
        Case(1, 12, 12, 2, 16, 16, max_lag=2, reach=3),
        Case(1, 64, 64, 1, 8, 8, max_lag=2, reach=1),
        Case(1, 20, 300, 1, 16, 24, max_lag=10),
        Case(1, 12, 12, 2, 16, 16, max_lag=2, separate=True),
        Case(1, 12, 12, 2, 16, 16, reach=3),
        Case(1, 40, 12, 2, 16, 16),
        Case(1, 12, 30, 2, 16, 16, separate=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_nan_and_infinity_reach_no_query_that_masks_them(
    isa: str, dtype: torch.dtype, case: Case, where: str, poison: float
) -> None:
    call = make(case)
    if where not in call.inputs:
        pytest.skip("the keys are the queries")
    value = call.inputs[where].detach().clone()
    value[0, -1, 0, 1] = poison
    call.inputs[where] = value.requires_grad_()
    if call.lag_bias is not None:  # a bias of -inf masks pairs too
        bias = call.lag_bias.detach().clone()
        bias[:, 0] = -torch.inf
        call.lag_bias = bias.requires_grad_()
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    expected = defined(call)
    for name, ours, value in zip(call.names(), call.to(dtype).run("cpp"), expected, strict=True):
        # Finite where the definition is. Its products of zero weights with NaN reach far beyond the band,
        # where the kernels skip blocks; outputs and d lag_bias have none but those of the values.
        finite = value.isfinite()
        assert ours[finite].isfinite().all(), name
        if finite.any() and value[finite].abs().max() > 0:
            assert relative_error(ours[finite], value[finite]) < tolerance, name
        if where != "v_right" and not name.startswith("d "):
            assert torch.equal(ours.isnan(), value.isnan()), name


@pytest.mark.parametrize(("n", "m", "d"), [(512, 128, 32), (256, 64, 64)])
@pytest.mark.parametrize("separate", [False, True])
def test_float32_is_about_as_exact_as_pytorch(isa: str, n: int, m: int, d: int, separate: bool) -> None:
    call = make(Case(1, n, m, 4, d, d, separate=separate))
    torch.manual_seed(0)
    # Not the numbers of `make`, whose products are exact in float32.
    call.inputs = {name: torch.randn(value.shape) for name, value in call.inputs.items()}
    call = call.to(torch.float32)
    exact = call.to(torch.float64).run("reference")
    expected, ours = call.run("reference"), call.run("cpp")
    for name, value, theirs, truth in zip(call.names(), ours, expected, exact, strict=True):
        error, reference_error = ((t.double() - truth).norm() / truth.norm() for t in (value, theirs))
        # Accumulators that begin with the logarithms of sums give 2.2 to 3.1 times the error.
        assert error < 1.8 * reference_error, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nan_in_the_bias_of_a_head_leaves_the_others_right(isa: str, dtype: torch.dtype) -> None:
    call = make(Case(1, 12, 12, 2, 16, 16, reach=2))
    bias = torch.zeros(2, 5, dtype=torch.float64)
    bias[0, 3], bias[1, 0], bias[1, 1] = 300, 0.1, torch.nan
    call.lag_bias = bias.requires_grad_()
    for ours, value in zip(call.to(dtype).run("cpp")[:2], defined(call)[:2], strict=True):
        assert relative_error(ours[:, :, 0], value[:, :, 0]) < (1e-5 if dtype == torch.float32 else 1e-2)


def test_similarities_that_are_large_and_alike(isa: str) -> None:
    # The sums of their exponentials are just beyond the largest float.
    call = make(Case(2, 20, 21, 2, 16, 16))
    for side in ("q_left", "q_right"):
        call.inputs[side] = torch.full_like(call.inputs[side], 4.625).requires_grad_()
    results = call.to(torch.bfloat16).run("cpp")
    for name, ours, value in zip(call.names(), results, defined(call), strict=True):
        # Gradients through queries that are all the same add up to 0.
        assert ours.isfinite().all() if name.startswith("d q") else relative_error(ours, value) < 1e-2, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_is_rounded_as_pytorch_rounds(isa: str, dtype: torch.dtype) -> None:
    # With a single partner the output is the value itself: every finite number must come back unchanged,
    # and the gradient of a single value is the rounded sum of all queries' gradients.
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    values = bits[bits.isfinite()].reshape(1, 1, 1, -1)
    zero = torch.zeros(1, 1, 1, 1, dtype=dtype)
    o_left, _ = kernels.cross_attention(zero, zero, values, values, backend="cpp")
    if isa == "amx" and dtype == torch.bfloat16:
        # Its products take subnormal numbers as zero.
        values = torch.where(values.abs() < torch.finfo(dtype).smallest_normal, 0, values)
    assert torch.equal(o_left, values)

    many = torch.randn(1, 9, 1, 4000).to(dtype)
    query, value = (
        torch.zeros(1, 9, 1, 1, dtype=dtype),
        torch.zeros(1, 1, 1, 4000, dtype=dtype).requires_grad_(),
    )
    o_left, _ = kernels.cross_attention(query, zero, torch.zeros_like(many), value, backend="cpp")
    (gradient,) = torch.autograd.grad(o_left, value, many)
    exact = many.double().sum(1, keepdim=True)
    assert (
        torch.equal(gradient, exact.float().to(dtype))
        or relative_error(gradient, exact) < torch.finfo(dtype).eps / 2
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_an_earlier_call_left_in_memory_does_not_matter(isa: str, case: Case) -> None:
    call = make(case).to(torch.bfloat16)
    expected = call.run("cpp")
    missing = torch.full((64, 256, 1, 128), torch.nan, dtype=torch.bfloat16, requires_grad=True)
    outputs = kernels.cross_attention(missing, missing, missing, missing, backend="cpp")
    torch.autograd.grad(outputs, missing, [torch.ones_like(o) for o in outputs])
    for name, ours, value in zip(call.names(), call.run("cpp"), expected, strict=True):
        assert torch.equal(ours, value), name


def test_tiles_are_multiplied_where_there_are_any(force_isa: Callable[[str], None]) -> None:
    call = make(Case(2, 37, 53, 3, 32, 32)).to(torch.bfloat16)
    force_isa("avx512_bf16")
    in_float = call.run("cpp")
    force_isa("amx")
    assert not any(map(torch.equal, call.run("cpp"), in_float))
    # Only bfloat16.
    half = make(Case(2, 37, 53, 3, 32, 32)).to(torch.float16)
    in_tiles = half.run("cpp")
    force_isa("avx512_bf16")
    assert all(map(torch.equal, half.run("cpp"), in_tiles))


TILE_LAYOUT = """
struct __attribute__((aligned(64))) Layout { unsigned char bytes[64]; };
void set(const struct Layout* to) { __asm__ volatile("ldtilecfg %0" ::"m"(*to)); }
void get(struct Layout* to) { __asm__ volatile("sttilecfg %0" : "=m"(*to)); }
"""


@pytest.mark.parametrize("rows", [5, 0], ids=["laid-out", "released"])
def test_a_thread_gets_its_tile_layout_back(
    force_isa: Callable[[str], None], tmp_path: Path, rows: int
) -> None:
    # Other libraries use tiles too, and configure the registers once for many products.
    force_isa("amx")
    source, library = tmp_path / "layout.c", tmp_path / "layout.so"
    source.write_text(TILE_LAYOUT)
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", library], check=True)
    functions = ctypes.CDLL(str(library))
    memory = torch.zeros(3, 64, dtype=torch.uint8)  # aligned to 64 bytes, as the allocator gives it
    layout, during, after = memory
    if rows > 0:  # of 12 bytes, in the first register
        layout[0], layout[16], layout[48] = 1, 12, rows
    call = make(Case(2, 20, 30, 2, 16, 16)).to(torch.bfloat16)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        call.run("cpp")  # asks for permission to use tiles
        functions.set(ctypes.c_void_p(layout.data_ptr()))
        functions.get(ctypes.c_void_p(during.data_ptr()))
        call.run("cpp")
        functions.get(ctypes.c_void_p(after.data_ptr()))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(during, layout)
    assert torch.equal(after, layout)


NO_PAGE_BEHIND = """
import ctypes
import mmap
import sys

import instruction_sets
import torch
from cross_attention_cases import Case, make

memory = ctypes.CDLL(None)
PAGE = mmap.PAGESIZE


def at_the_end(values):
    size = values.numel() * values.element_size()
    end = (size + PAGE - 1) // PAGE * PAGE
    pages = mmap.mmap(-1, end + PAGE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    assert memory.mprotect(ctypes.c_void_p(begin + end), ctypes.c_size_t(PAGE), 0) == 0
    moved = torch.frombuffer(pages, dtype=values.dtype, count=values.numel(), offset=end - size)
    return moved.view(values.shape).copy_(values.detach())


for case in (
    Case(1, 17, 31, 2, 20, 16, separate=True), Case(1, 33, 65, 1, 16, 24), Case(1, 50, 5, 2, 33, 1, reach=3),
    Case(2, 17, 31, 1, 32, 16, reach=3), Case(1, 5, 32, 2, 16, 48),
):
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        call = make(case).to(dtype)
        call.inputs = {name: at_the_end(value).requires_grad_() for name, value in call.inputs.items()}
        call.grads = tuple(map(at_the_end, call.grads))
        for name in sys.argv[1:]:
            if instruction_sets.force(name) is None:
                call.run("cpp")
"""


def test_reads_nothing_beyond_its_inputs() -> None:
    here = Path(__file__).resolve().parent
    subprocess.run(
        [sys.executable, "-c", NO_PAGE_BEHIND, *INSTRUCTION_SETS, "amx"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(here.parents[1])},
        check=True,
    )


def test_results_in_memory_that_is_used_again() -> None:
    # Large results take the memory of earlier ones: all of it must be written, and none that is in use.
    call = make(Case(4, 64, 64, 16, 64, 80)).to(torch.float32)
    first = call.run("cpp")
    assert all(t.nbytes >= 1 << 20 for t in first)
    expected = [t.clone() for t in first]
    second = call.run("cpp")
    assert not {t.data_ptr() for t in first} & {t.data_ptr() for t in second}
    for t in second:
        t.fill_(torch.nan)
    places = {t.data_ptr() for t in second}
    del second, t
    third = call.run("cpp")
    assert places & {t.data_ptr() for t in third}
    for name, ours, kept, value in zip(call.names(), third, first, expected, strict=True):
        assert torch.equal(ours, value), name
        assert torch.equal(kept, value), name


def test_memory_can_be_given_back() -> None:
    call = make(Case(64, 64, 64, 8, 32, 32)).to(torch.float32)
    taken = sum(t.nbytes for t in call.run("cpp"))
    extension.release_memory()
    peak = peak_memory(lambda: call.run("cpp"), "cpu")
    if peak is None:
        pytest.skip("this system does not tell how much memory is in use")
    assert peak > 0.8 * taken  # nothing was left to be used again


@pytest.mark.slow
def test_the_dense_plane_takes_no_memory_for_its_matrix() -> None:
    # Level 2 of a 256 x 256 input: the matrix alone would take 1 GiB, and as much for every step on it.
    n, d, dv = 128 * 128, 16, 128
    widths = {"q_left": d, "q_right": d, "v_left": dv, "v_right": dv}
    inputs = {name: torch.randn(1, n, 1, width).requires_grad_() for name, width in widths.items()}
    grads = [torch.randn(1, n, 1, dv) for _ in range(2)]

    def both() -> list[torch.Tensor]:
        outputs = kernels.cross_attention(**inputs, backend="cpp")
        return [*outputs, *torch.autograd.grad(outputs, list(inputs.values()), grads)]

    peak = peak_memory(both, "cpu")
    if peak is None:
        pytest.skip("this system does not tell how much memory is in use")
    results = 4 * n * (2 * d + 4 * dv)
    assert peak - results < 64e6
