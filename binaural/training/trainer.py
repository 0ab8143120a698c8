"""One run's network, loss and optimiser: an epoch of training, and all that a resumed run needs."""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from binaural.data import Echoes
from binaural.device import autocast
from binaural.losses import AdaptiveBinauralAttentionLoss, DepthLoss
from binaural.models.pretrained import Pretrained
from binaural.training.batches import steps_per_epoch, training_loader
from binaural.training.interruption import Interruption
from binaural.training.optimisation import compile_network, make_optimizer, make_scheduler
from binaural.training.options import Options
from binaural.training.processes import Processes
from binaural.training.run_folder import RunFolder
from binaural.training.step_losses import StepLosses


class LossNotFinite(RuntimeError):
    """The loss became NaN or infinite; the text names the batch."""


class Trainer:
    """Trains a network on a data set.

    Args:
        options: of the run.
        network: on its device, in its memory layout.
        loss: of the network's output in training mode, the depth, and the picture where the data set has it.
        train_set: what it learns from.
        run: where the log goes.
        processes: that train together; the network is on the device of this one.
        precision: of autocast; float32 means none.
        compiled: run the network through torch.compile.

    Raises:
        ValueError: an epoch holds less than one step, or the processes cannot share a batch equally.
    """

    def __init__(
        self,
        options: Options,
        network: Pretrained,
        loss: DepthLoss,
        train_set: Echoes,
        run: RunFolder,
        processes: Processes,
        precision: torch.dtype,
        compiled: bool,
    ) -> None:
        processes.share_of(options.batch_size)
        self.options, self.network, self.train_set, self.run = options, network, train_set, run
        self.processes, self.precision = processes, precision
        self.device = device = processes.device
        self.forward: Any = network
        if compiled:
            self.forward = compile_network(network)
        if processes.count > 1:
            devices = [device] if device.type == "cuda" else None
            self.forward = DistributedDataParallel(self.forward, devices, gradient_as_bucket_view=True)
        self.loss = loss.to(device)
        self.batches, self.order = training_loader(
            train_set,
            options.batch_size,
            options.seed,
            options.num_workers,
            processes.rank,
            processes.count,
        )
        self.steps_per_epoch = steps_per_epoch(len(train_set), options.batch_size, options.accumulate)
        self.optimizer = make_optimizer(
            options.optimizer, network, options.learning_rate, options.weight_decay
        )
        self.scheduler = make_scheduler(
            options.scheduler, self.optimizer, self.steps_per_epoch * options.nb_epochs
        )
        # Low-precision gradients vanish in float16 alone; elsewhere the scaler does nothing.
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
        self.front_end = None
        if options.features_on == "device":
            self.front_end = deepcopy(train_set.front_end).to(device)
        self.losses = StepLosses(self.loss.terms, device, options.log_interval * options.accumulate)
        self.epoch = 0  # the present one
        self.step = 0  # steps of it that are done
        self.best = math.inf  # lowest validation RMSE so far, metres

    def train_epoch(self, interruption: Interruption) -> None:
        """The rest of the present epoch.

        Raises:
            StopRequested: between two steps; `state` is then what a resumed run needs.
            LossNotFinite: naming the batch.
        """
        options = self.options
        if isinstance(self.loss, AdaptiveBinauralAttentionLoss):
            self.loss.set_epoch(self.epoch, options.nb_epochs)
        self.network.train()
        self.order.go_to(self.epoch, self.step * options.accumulate)
        self.optimizer.zero_grad(set_to_none=True)
        watch = Stopwatch()
        with tqdm(
            total=self.steps_per_epoch,
            initial=self.step,
            desc=f"epoch {self.epoch + 1}/{options.nb_epochs}",
            unit="step",
            disable=not self.processes.main,
        ) as bar:
            batches = interruption.watch(self.batches, options.log_interval * options.accumulate)
            for number, (heard, *seen) in enumerate(batches, start=1):
                if self.step == self.steps_per_epoch:
                    break  # batches that do not fill another step
                full = number % options.accumulate == 0
                with nullcontext() if full else self._without_exchange():
                    self._add_gradient(heard, *seen)
                watch.count(len(heard) * self.processes.count)
                if not full:
                    continue
                self._update_weights()
                bar.update()
                if self.step % options.log_interval == 0 or self.step == self.steps_per_epoch:
                    bar.set_postfix_str(self._log(watch))

    def _without_exchange(self) -> AbstractContextManager[None]:
        """Gradients are exchanged between processes once a step."""
        return self.forward.no_sync() if isinstance(self.forward, DistributedDataParallel) else nullcontext()

    def _add_gradient(self, heard: Tensor, *seen: Tensor) -> None:
        heard, *targets = (x.to(self.device, non_blocking=True) for x in (heard, *seen))
        if self.front_end is not None:
            heard = self.front_end(heard)
        heard = heard.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.precision):
            # Of the whole batch, whose masked means are not those of its shares. Gradients of the shares add
            # up to the batch's; DistributedDataParallel takes their mean.
            total, terms = self.loss(self.processes.join(self.forward(heard)), *self.processes.join(targets))
        self.scaler.scale(total * (self.processes.count / self.options.accumulate)).backward()
        self.losses.add(total, terms)

    def _update_weights(self) -> None:
        if self.options.clip_gradient:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.options.clip_gradient)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def _log(self, watch: "Stopwatch") -> str:
        """Log the steps since the last time; return what the progress bar says of them."""
        means = self.check_losses()
        rate, speed = self.scheduler.get_last_lr()[0], watch.rate()
        self.run.log(
            {
                "kind": "train",
                "epoch": self.epoch + 1,
                "step": self.total_steps,
                **means,
                "learning_rate": rate,
                "samples_per_second": round(speed, 1),
            }
        )
        terms = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        return f"{terms} lr {rate:.1e} {speed:.0f} samples/s"

    def check_losses(self) -> dict[str, float]:
        """Mean loss and terms since the last check.

        Raises:
            LossNotFinite: one of them was NaN or infinite; the text names the files of its batch.
        """
        means, batches_ago = self.losses.take()
        if batches_ago is not None:
            batch = self.step * self.options.accumulate - batches_ago
            files = [self.train_set.recordings[i].audio[0] for i in self.order.indices(batch)]
            raise LossNotFinite(
                f"the loss of step {batch // self.options.accumulate + 1} of epoch {self.epoch + 1} is not "
                f"finite. Its batch: {', '.join(map(str, files))}"
            )
        return means

    @property
    def total_steps(self) -> int:
        """Steps since the beginning of the run."""
        return self.epoch * self.steps_per_epoch + self.step

    def finish_epoch(self, rmse: float) -> bool:
        """Go to the next epoch; whether this one's validation RMSE, metres, was the lowest so far."""
        is_best = rmse < self.best
        self.best = min(rmse, self.best)
        self.epoch, self.step = self.epoch + 1, 0
        return is_best

    def close(self) -> None:
        """End the loading processes.

        They ignore SIGTERM, by which Python would end at its exit what is left of them, and wait for ever.
        """
        iterator: Any = self.batches._iterator  # there is none without loading processes
        if iterator is not None:
            iterator._shutdown_workers()

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs to go on as if it had not stopped."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "epoch": self.epoch,
            "step": self.step,
            "best": self.best,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from the result of `state`.

        Raises:
            ValueError: it is not the state of such a run.
        """
        try:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["random"])
            self.epoch, self.step, self.best = int(state["epoch"]), int(state["step"]), float(state["best"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"not the training state of this run ({reason})") from error


class Stopwatch:
    """Samples per second since the last reading."""

    def __init__(self) -> None:
        self._start, self._samples = time.perf_counter(), 0

    def count(self, samples: int) -> None:
        self._samples += samples

    def rate(self) -> float:
        now = time.perf_counter()
        rate = self._samples / (now - self._start)
        self._start, self._samples = now, 0
        return rate
