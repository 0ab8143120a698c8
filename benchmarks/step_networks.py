"""The training steps that the benchmark compares."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cross_attention import count_flops
from binaural import BinauralAttentionDepthNet, BinauralCrossAttention, UNet
from binaural.device import autocast
from binaural.kernels import use_backend
from binaural.losses import BinauralAttentionLoss
from binaural.models.attention import Scope
from binaural.models.ear_pairs import each_ear
from binaural.models.levels import ALL_SKIPS
from binaural.training.optimisation import compile_network, make_optimizer
from binaural.training.options import parse_options

LEAN = 0.375  # of large networks a step takes half of the U-Net's time
OURS, OURS_LEAN, OURS_ALL_SKIPS, FAST_UNET, USUAL_UNET = (
    "ours",
    "ours, lean ears",
    "ours, all skips",
    "U-Net, fast path",
    "U-Net as usually written",
)
NAIVE_PLANE, NAIVE_TIME = "naive attention, plane", "naive attention, time axis"


@dataclass(frozen=True)
class Problem:
    """The size of a step."""

    base_channels: int
    size: int  # of the square spectrogram and depth map
    batch: int

    def __str__(self) -> str:
        return f"base {self.base_channels}, {self.size} x {self.size}, batch {self.batch}"


@dataclass(frozen=True)
class Setting:
    """Device, precision and compilation of the fast path."""

    device: str
    precision: torch.dtype  # of autocast; float32 means none
    compiled: bool
    graphs: bool = False  # the compiled network replays CUDA graphs


@dataclass(frozen=True)
class System:
    """A network and how it trains.

    The fast path is channels-last, in the precision chosen for the device, with fused kernels, loss and
    optimiser. Otherwise the network runs as usually written: default layout, float32, eager.
    """

    make: Callable[[int], nn.Module]
    fast: bool
    loss: Callable[[], nn.Module]


class MaskedL1(nn.Module):
    """Mean absolute error over valid pixels, the usual loss of a plain U-Net."""

    def forward(self, pred: Tensor, target: Tensor) -> tuple[Tensor, None]:
        valid = target > 0
        return F.l1_loss(pred[valid], target[valid]), None


def make_ours(base: int, **arguments: Any) -> nn.Module:
    """The network of `train.py`, with some arguments replaced."""
    options = vars(parse_options([]))
    as_trained = {
        name: options[name] for name in ("symmetric", "attention_levels", "view_levels", "skip_levels")
    }
    return BinauralAttentionDepthNet(base, **(as_trained | arguments))


def naive(scope: Scope) -> System:
    """The network as first written: attention at levels 2 to 5, skip connections at all levels, two
    materialised similarity matrices, eager loss."""
    make = partial(BinauralAttentionDepthNet, similarity="separate", scope=scope, backend="reference")
    return System(make, fast=False, loss=lambda: BinauralAttentionLoss(backend="reference"))


SYSTEMS = {
    OURS: System(make_ours, True, BinauralAttentionLoss),
    OURS_LEAN: System(partial(make_ours, ear_width=LEAN), True, BinauralAttentionLoss),
    OURS_ALL_SKIPS: System(
        partial(make_ours, skip_levels=ALL_SKIPS, attention_levels=(2, 3, 4, 5)), True, BinauralAttentionLoss
    ),
    FAST_UNET: System(UNet, True, BinauralAttentionLoss),
    USUAL_UNET: System(UNet, False, MaskedL1),
    NAIVE_PLANE: naive("plane"),
    NAIVE_TIME: naive("time"),
}


class Step:
    """The training step of one system on a fixed batch: forward, loss, backward, optimiser."""

    def __init__(self, system: System, problem: Problem, setting: Setting) -> None:
        torch.manual_seed(0)
        device = setting.device
        layout = torch.channels_last if system.fast else torch.contiguous_format
        self.fast, self.setting = system.fast, setting
        self.network = system.make(problem.base_channels).to(device).to(memory_format=layout).train()
        compiled = setting.compiled and system.fast
        self.forward: Any = self.network
        if compiled:
            # The options of compile_network, and the mode that captures CUDA graphs.
            self.forward = (
                torch.compile(self.network, fullgraph=True, dynamic=False, mode="reduce-overhead")
                if setting.graphs
                else compile_network(self.network)
            )
        self.loss = system.loss().to(device)
        self.optimizer = (
            make_optimizer("adamw", self.network, 1e-4, 1e-4)
            if system.fast
            else torch.optim.AdamW(self.network.parameters(), 1e-4, weight_decay=1e-4)
        )
        shape = (problem.batch, 2, problem.size, problem.size)
        self.spectrogram = torch.randn(shape, device=device).to(memory_format=layout)
        self.depth = 10 * torch.rand(problem.batch, 1, problem.size, problem.size, device=device)
        self.depth[torch.rand_like(self.depth) < 0.1] = 0  # no measurement

    def __call__(self) -> None:
        self.compute_loss(self.predict()).backward()
        self.update()

    def predict(self) -> Tensor:
        if self.setting.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with self._mode():
            return self.forward(self.spectrogram)

    def compute_loss(self, pred: Tensor) -> Tensor:
        with self._mode():
            return self.loss(pred, self.depth)[0]

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _mode(self) -> Any:
        if not self.fast:
            return use_backend("reference")
        return autocast(torch.device(self.setting.device), self.setting.precision)

    def count_flops(self) -> float:
        """FLOPs of a step: those of `torch.utils.flop_counter`, and those of the fused attention kernels."""
        kernels = 0.0

        def count(module: BinauralCrossAttention, ears: tuple[Tensor, ...]) -> None:
            nonlocal kernels
            left, _ = each_ear(ears)
            batch, channels, height, width = left.shape
            scores = batch * height * width * (width if module.scope == "time" else height * width)
            # Over all heads the inner sizes add up to the channels.
            kernels += sum(count_flops(scores, module.sizes[0], channels))

        hooks = [
            module.register_forward_pre_hook(count)
            for module in self.network.modules()
            if isinstance(module, BinauralCrossAttention) and module.backend is None
        ]
        with FlopCounterMode(display=False) as counter:
            self.compute_loss(self.network(self.spectrogram)).backward()
        self.optimizer.zero_grad(set_to_none=True)
        for hook in hooks:
            hook.remove()
        return counter.get_total_flops() + kernels

    def state_bytes(self) -> int:
        """Bytes of the weights and, after the first step, of the optimiser's state."""
        tensors = [*self.network.parameters(), *self.network.buffers()]
        for state in self.optimizer.state.values():
            tensors += [value for value in state.values() if isinstance(value, Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
