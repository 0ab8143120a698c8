"""Checks of the options, before anything is written."""

import torch
from torch import nn

from binaural.data import EchoDataset
from binaural.evaluate import predict
from binaural.features import channel_names
from binaural.kernels import edge_aware_loss
from binaural.training.options import Options


def check_backend(network: nn.Module, options: Options, device: torch.device, precision: torch.dtype) -> None:
    """Run network and loss once with the kernel backend of the options.

    Raises:
        ValueError: the backend cannot run them here.
    """
    channels = len(channel_names(options.features))
    silence = torch.zeros(1, channels, options.image_size, options.image_size)
    depth = predict(network.eval(), silence, device=device, precision=precision)
    edge_aware_loss(depth, depth, backend=options.kernel_backend)


def check_data(options: Options, **splits: EchoDataset) -> None:
    """Read the first sample of each split, and look for valid depth in it; check the size of a batch.

    Raises:
        FileNotFoundError, ValueError: a sample does not suit the options, no depth map has a valid pixel, or
        the
            training split is smaller than a batch.
    """
    samples = len(splits["train"])
    if options.batch_size > samples:
        raise ValueError(
            f"--batch_size must be at most {samples}, the samples of the training split, "
            f"got {options.batch_size}"
        )
    for split, dataset in splits.items():
        dataset[0]
        threshold = 0.0 if split == "train" else options.metric_threshold
        if not any((depth > threshold).any() for depth in dataset.depths()):
            raise ValueError(
                f"{options.dataset_dir}: no depth map of the {split} split has a pixel deeper than "
                f"{threshold:g} m"
            )
