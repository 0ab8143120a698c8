"""What only a GPU can show of the CUDA and Triton kernels: streams, graphs, synchronisation, the sanitizers.

What they compute is tested with every other backend.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from backend import Backend
from torch import Tensor

from benchmarks.gpu_check import check_compiled
from benchmarks.step_networks import Problem
from binaural.kernels import cross_attention, edge_aware_loss

pytestmark = pytest.mark.gpu

BACKENDS = ("cuda", "triton")
# R, N, M, heads, d, dv, longest lag of the bias or None: whole on the chip, and a block at a time.
SIZES = {
    "whole": (3, 100, 128, 4, 32, 32, 6),
    "whole, no bias": (3, 100, 128, 4, 32, 32, None),
    "blocks": (1, 300, 520, 2, 24, 40, 6),
    "blocks, no bias": (1, 300, 520, 2, 24, 40, None),
}
Computation = tuple[list[Tensor], Callable[[], list[Tensor]]]


def attention(backend: str, size: tuple[int | None, ...], dtype: torch.dtype = torch.bfloat16) -> Computation:
    """Inputs, and a function that computes outputs and all gradients from what the inputs hold then."""
    Backend(backend, "cuda").skip_unless_available("cross_attention")
    r, n, m, heads, d, dv, longest = size
    shapes = [(r, n, heads, d), (r, m, heads, d), (r, n, heads, dv), (r, m, heads, dv)]
    inputs = [torch.randn(shape, device="cuda", dtype=dtype).requires_grad_() for shape in shapes]
    bias = None if longest is None else torch.randn(heads, 2 * longest + 1, device="cuda").requires_grad_()
    leaves = [*inputs, *([] if bias is None else [bias])]

    def compute() -> list[Tensor]:
        outputs = cross_attention(*inputs, lag_bias=bias, backend=backend)
        return [*outputs, *torch.autograd.grad(outputs, leaves, outputs)]

    return leaves, compute


def loss(backend: str) -> Computation:
    """The same of the depth loss."""
    Backend(backend, "cuda").skip_unless_available("edge_aware_loss")
    pred = torch.rand(4, 1, 65, 130, device="cuda").requires_grad_()
    target = torch.rand(4, 1, 65, 130, device="cuda") - 0.1

    def compute() -> list[Tensor]:
        total, terms = edge_aware_loss(pred, target, backend=backend)
        return [total, terms, *torch.autograd.grad(total, pred)]

    return [pred], compute


@pytest.fixture(params=[*SIZES, "loss"])
def problem(request: pytest.FixtureRequest, backend_name: str) -> Computation:
    if request.param == "loss":
        return loss(backend_name)
    return attention(backend_name, SIZES[request.param])


@pytest.fixture(params=BACKENDS)
def backend_name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_cuda_graph_replays_the_same_bits(problem: Computation) -> None:
    inputs, compute = problem
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is tuned or loaded at the first call is not to be captured
        for _ in range(3):
            compute()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = compute()
    for _ in range(2):
        with torch.no_grad():
            for tensor in inputs:
                tensor.copy_(torch.rand_like(tensor))
        graph.replay()
        for replayed, expected in zip(captured, compute(), strict=True):
            assert torch.equal(replayed, expected)


def test_it_runs_on_the_current_stream(problem: Computation) -> None:
    inputs, compute = problem
    compute()
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)  # cycles: what does not wait for it reads the old values
        with torch.no_grad():
            for tensor in inputs:
                tensor.copy_(torch.rand_like(tensor))
        results = compute()
    torch.cuda.synchronize()
    for result, expected in zip(results, compute(), strict=True):
        assert torch.equal(result, expected)


def test_the_host_never_waits(problem: Computation) -> None:
    compute = problem[1]
    compute()
    torch.cuda.set_sync_debug_mode("error")
    try:
        compute()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_largest_of_the_time_axis_agrees_between_backends() -> None:
    # The model's own size: more programs than any case of the suites.
    results = []
    for backend in BACKENDS:
        torch.manual_seed(0)
        results.append(attention(backend, (512, 128, 128, 4, 32, 32, 127))[1]())
    for ours, other in zip(*results, strict=True):
        error = torch.linalg.vector_norm(ours.float() - other.float())
        assert error <= 1e-2 * torch.linalg.vector_norm(other.float())


@pytest.mark.parametrize("graphs", [False, True], ids=["compiled", "CUDA graphs"])
def test_the_compiled_network_of_train_py_takes_the_steps_of_the_eager_one(graphs: bool) -> None:
    eager, compiled, wrong = check_compiled("cuda", torch.bfloat16, Problem(16, 64, 4), graphs)
    assert len(eager) == len(compiled) == 10
    assert wrong == ""


SANITIZED = """
import sys, torch
sys.path[:0] = ["tests", "tests/kernels"]
from test_on_gpu import SIZES, attention, loss
torch.use_deterministic_algorithms(True)  # Triton then does not tune, which would run each kernel many times
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    for size in SIZES.values():
        attention(sys.argv[1], size, dtype)[1]()
loss(sys.argv[1])[1]()
torch.cuda.synchronize()
print("ran")
"""


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(backend_name: str, tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer, which comes with the CUDA toolkit, is not on the PATH")
    ran = subprocess.run(
        [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SANITIZED, backend_name],
        # Without PyTorch's own pool, every tensor is an allocation with bounds of its own.
        env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, "ran" in ran.stdout) == (0, True), ran.stdout[-5000:] + ran.stderr[-5000:]
