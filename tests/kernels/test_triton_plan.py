"""How the Triton kernels are launched: on which device, and with which blocks."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from binaural.kernels import cross_attention
from binaural.kernels.dispatch.backends import WHY_UNAVAILABLE

WHY_NOT = WHY_UNAVAILABLE["triton", "cross_attention"]
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


class Recorder:
    """In place of a kernel, or of a tuned one: records with what it was launched, and on which device."""

    def __init__(self, device: list[torch.device]) -> None:
        self.device, self.launches = device, []

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments, **options: self.launches.append((list(self.device), options))


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices that `torch.cuda.device` has made current, innermost last; no GPU is needed."""
    devices: list[torch.device] = []

    class Guard:
        def __init__(self, device: torch.device) -> None:
            self.device = torch.device(device)

        def __enter__(self) -> None:
            devices.append(self.device)

        def __exit__(self, *_: object) -> None:
            devices.pop()

    monkeypatch.setattr(torch.cuda, "device", Guard)
    return devices


def test_kernels_are_launched_on_the_device_of_their_tensors(current: list[torch.device]) -> None:
    from binaural.kernels.dispatch.launch import Launch, launch_all

    kernel = Recorder(current)
    launch = Launch(kernel, (1,), (), {"BLOCK": 16}, {"num_warps": 4})
    launch_all([launch, launch], torch.device("cuda", 1))
    assert kernel.launches == [([torch.device("cuda", 1)], {"BLOCK": 16, "num_warps": 4})] * 2
    launch_all([launch], torch.device("cpu"))
    assert kernel.launches[2][0] == current == []


@pytest.mark.parametrize("steps", [20, 150])
def test_every_operator_guards_the_device(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All operators launch by `launch_all`, and hand it the device of their tensors."""
    from binaural.kernels import edge_aware_loss, packed_cross_attention
    from binaural.kernels.cross_attention import triton_packed, triton_plan
    from binaural.kernels.depth_loss import triton_entry as depth_loss_entry

    devices: list[torch.device] = []
    for module in (triton_plan, triton_packed, depth_loss_entry):
        whole = module.launch_all

        def recorded(launches: Any, device: torch.device, whole: Any = whole) -> None:
            devices.append(device)
            whole(launches, device)

        monkeypatch.setattr(module, "launch_all", recorded)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    ears = [torch.randn(1, steps, 1, 16, device=where, requires_grad=True) for _ in range(4)]
    sum(o.sum() for o in cross_attention(*ears, backend="triton")).backward()
    packed = torch.randn(2, steps, 32, device=where, requires_grad=True)
    packed_cross_attention(packed, 1, 16, 16, backend="triton").sum().backward()
    pred = torch.rand(1, 1, 20, 40, device=where, requires_grad=True)
    edge_aware_loss(pred, pred.detach().clone(), backend="triton")[0].backward()
    assert [device.type for device in devices] == [where] * 6


@pytest.mark.parametrize("max_lag", [2**31 - 20, 2**31 - 1, 2**31, 2**40])
@pytest.mark.parametrize("steps", [20, 150])
def test_a_limit_beyond_all_lags_is_none(max_lag: int, steps: int) -> None:
    where = "cuda" if torch.cuda.is_available() else "cpu"
    ears = [torch.randn(1, steps, 1, 16, device=where) for _ in range(4)]
    expected = cross_attention(*ears, backend="triton")
    for o, value in zip(cross_attention(*ears, max_lag=max_lag, backend="triton"), expected, strict=True):
        assert torch.equal(o, value)


def plan(count: int, steps: int = 64, dtype: torch.dtype = torch.bfloat16) -> list[Any]:
    """Launches of a forward and a backward pass of `count` problems, on the meta device."""
    from binaural.kernels.cross_attention.triton_plan import plan_backward, plan_forward

    q, v = (torch.empty(count, steps, 2, c, dtype=dtype, device="meta") for c in (32, 64))
    bias = torch.empty(2, 17, device="meta")
    inputs = (q, q, v, v, None, None, bias)
    launches, outputs = plan_forward(*inputs, 0.1, None)
    return launches + plan_backward(v, v, *inputs, *outputs, 0.1, None)[0]


@pytest.mark.parametrize("steps", [64, 300])
def test_the_tuner_knows_the_number_of_problems(steps: int) -> None:
    """What was chosen for one recording is not taken for a batch; nearly the same numbers share a choice."""
    from binaural.kernels.cross_attention.triton_tuning import TunedLaunch, tuned

    def keys(count: int) -> list[Any]:
        found = []
        for launch in plan(count, steps):
            if isinstance(launch, TunedLaunch):
                named = dict(zip(launch.kernel.arg_names, launch.arguments, strict=False))
                found.append([{**named, **launch.constants}[name] for name in tuned(launch.kernel).keys])
        return found

    assert keys(1) != keys(2048)
    assert keys(1500) == keys(2048)
    assert all(
        "problems" in tuned(launch.kernel).keys
        for launch in plan(1, steps)
        if isinstance(launch, TunedLaunch)
    )


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch, current: list[torch.device]) -> SimpleNamespace:
    """Stand-ins for a GPU whose stream may be capturing a graph, and for Triton's tuner and kernels."""
    import triton

    from binaural.kernels.cross_attention import triton_tuning

    state = SimpleNamespace(capturing=False, fixed=Recorder(current), tuned=Recorder(current))
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state.capturing)
    monkeypatch.setattr(triton_tuning, "tuned", lambda kernel: state.tuned)
    monkeypatch.setattr(triton_tuning, "_tuned_before", set())
    return state


def test_nothing_is_tuned_while_a_graph_is_captured(on_gpu: SimpleNamespace) -> None:
    from binaural.kernels.cross_attention.triton_tuning import TunedLaunch

    def launch(tensor: Tensor, steps: int) -> None:
        TunedLaunch(on_gpu.fixed, (1,), (tensor, (1, 2, 3), steps), {"D": 16}, {"num_warps": 4})()

    on_gpu.capturing = True
    launch(torch.zeros(3), 5)
    assert (len(on_gpu.fixed.launches), len(on_gpu.tuned.launches)) == (1, 0)
    assert on_gpu.fixed.launches[0][1] == {"D": 16, "num_warps": 4}
    on_gpu.capturing = False
    launch(torch.zeros(3), 5)
    assert (len(on_gpu.fixed.launches), len(on_gpu.tuned.launches)) == (1, 1)
    on_gpu.capturing = True
    launch(torch.ones(3), 5)  # tuned before
    launch(torch.ones(3), 6)  # another size
    assert (len(on_gpu.fixed.launches), len(on_gpu.tuned.launches)) == (2, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [16, 32, 64, 128])
@pytest.mark.parametrize("m", [1, 16, 24, 48, 64, 128])
@pytest.mark.parametrize("full", [False, True])
def test_what_is_tried_fits_the_call(rows: int, m: int, full: bool, dtype: torch.dtype) -> None:
    from binaural.kernels.cross_attention.triton_tuning import tuned, worth_trying
    from binaural.kernels.cross_attention.triton_whole import forward_whole

    if full and m % 16:
        pytest.skip("no call has full tiles of so few steps")
    arguments = {"m": m, "q_left": torch.empty(1, dtype=dtype, device="meta")}
    found = worth_trying(tuned(forward_whole).configs, arguments, BLOCK_N=rows, FULL=full)
    assert found
    for config in found:
        assert 16 <= rows / config.num_warps <= 64
        assert not full or m % config.kwargs["BLOCK_M"] == 0


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (12, 0)])
def test_the_fixed_choice_knows_the_gpu(
    capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch, current: list[torch.device]
) -> None:
    from binaural.kernels.dispatch.launch import Launch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    kernel = Recorder(current)
    Launch(kernel, (1,), (), {}, {"BLOCK_A": 128}, {"BLOCK_A": 64})()
    assert kernel.launches == [([], {"BLOCK_A": 128 if capability == (9, 0) else 64})]
