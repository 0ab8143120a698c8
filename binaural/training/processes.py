"""The processes that train together, started by torchrun; without it there is one.

Every process takes an equal share of each batch, and what they learn is what one process would learn from the
whole batch.
"""

import gc
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils import _pytree as pytree


class Processes:
    """This process among those that train together, within a `with` block.

    Args:
        device: that each computes on; `cuda` becomes the GPU of the process's number on its machine.

    Attributes:
        count: of processes.
        rank: this one's number from 0.
        main: whether this is the one that writes and prints.
        device: of this process.
    """

    def __init__(self, device: torch.device) -> None:
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.main = self.rank == 0
        self.device = device
        self._silence = redirect_stdout(None)
        if self.count == 1:
            return
        if device.type == "cuda":
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(self.device)
        # Tensors on a CPU go by gloo even beside GPUs, so that asking does not wait for those.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")

    def __enter__(self) -> "Processes":
        if not self.main:
            self._silence.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.count == 1:
            return
        if not self.main:
            self._silence.__exit__(kind, error, traceback)
        # A process that failed leaves without the others; torchrun ends them.
        if error is None:
            # What still holds on to the group would keep its threads alive beyond Python's end: an abort.
            gc.collect()
            dist.destroy_process_group()

    def share_of(self, batch_size: int) -> int:
        """This process's samples of a batch.

        Raises:
            ValueError: the processes cannot have equal shares.
        """
        if batch_size % self.count:
            raise ValueError(f"batch_size is {batch_size}, which {self.count} processes cannot share equally")
        return batch_size // self.count

    def from_main(self, choose: Callable[[], str]) -> str:
        """What the main process chooses."""
        values = [choose() if self.main else ""]
        if self.count == 1:
            return values[0]
        dist.broadcast_object_list(values, 0)
        return values[0]

    def any(self, here: bool) -> bool:
        """Whether it holds in any process."""
        if self.count == 1:
            return here
        flag = torch.tensor(float(here))
        dist.all_reduce(flag)
        return bool(flag)

    def wait(self) -> None:
        """For all processes to come here."""
        self.any(False)

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by the sum over the processes."""
        if self.count > 1:
            dist.all_reduce(tensor)

    def take_buffers_from_main(self, network: nn.Module) -> None:
        """Running means and variances, which every process has from its own samples, become the main's."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def join(self, parts: Any) -> Any:
        """The whole batch of the tensors [share, ...] in `parts`, in the order of the processes.

        A gradient goes back to this process's own share only: the others' is theirs to follow.
        """
        if self.count == 1:
            return parts
        return pytree.tree_map_only(torch.Tensor, _Join.apply, parts)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, part: Tensor) -> Tensor:
        part = part.contiguous()
        parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, part)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]
