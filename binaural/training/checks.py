"""Checks of the options, before anything is written."""

import torch
from torch import nn

from binaural.data import EchoDataset
from binaural.evaluate import predict
from binaural.features import channel_names
from binaural.kernels import edge_aware_loss
from binaural.training.batches import steps_per_epoch
from binaural.training.options import Options


def check_backend(network: nn.Module, options: Options, device: torch.device, precision: torch.dtype) -> None:
    """Run network and loss once with the kernel backend of the options.

    Raises:
        ValueError: the backend cannot run them on this machine.
    """
    channels = len(channel_names(options.features))
    inputs = torch.zeros(1, channels, options.image_size, options.image_size)
    depth = predict(network.eval(), inputs, device=device, precision=precision)
    edge_aware_loss(depth, depth, backend=options.kernel_backend)


def check_data(options: Options, **splits: EchoDataset) -> None:
    """Check that an epoch has at least one step and that each split has valid depth; read one sample of each.

    Args:
        options: of the run.
        splits: data sets by name; "train" is measured by the batch size, others by the metric threshold.

    Raises:
        FileNotFoundError: a file of the sample is missing.
        ValueError: the training set is smaller than one step, a sample cannot be used with these options, or
            a split has no valid depth.
    """
    if "train" in splits:
        try:
            steps_per_epoch(len(splits["train"]), options.batch_size, options.accumulate)
        except ValueError as error:
            raise ValueError(f"--{error}") from error
    for split, dataset in splits.items():
        dataset[0]
        threshold = 0.0 if split == "train" else options.metric_threshold
        if not any((depth > threshold).any() for depth in dataset.depths()):
            raise ValueError(
                f"{options.dataset_dir}: no depth map of the {split} split has a pixel deeper than "
                f"{threshold:g} m"
            )
