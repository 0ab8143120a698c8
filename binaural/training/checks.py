"""What tells, before anything is written, that no run can come of the options."""

import torch
from torch import nn

from binaural.data import EchoDataset
from binaural.evaluate import predict
from binaural.features import channel_names
from binaural.kernels import edge_aware_loss
from binaural.training.options import Options


def check_backend(network: nn.Module, options: Options, device: torch.device, precision: torch.dtype) -> None:
    """Try the kernel backend that was asked for.

    Raises:
        ValueError: it cannot run network and loss here.
    """
    channels = len(channel_names(options.features))
    silence = torch.zeros(1, channels, options.image_size, options.image_size)
    channels_last = options.channels_last
    depth = predict(network.eval(), silence, device=device, precision=precision, channels_last=channels_last)
    edge_aware_loss(depth, depth, backend=options.kernel_backend)


def check_data(options: Options, **splits: EchoDataset) -> None:
    """Read the first sample of each split, and look for a depth to learn or to measure by.

    Raises:
        FileNotFoundError, ValueError: a sample cannot be used as the options want it, or there is no depth.
    """
    for split, dataset in splits.items():
        dataset[0]
        threshold = 0.0 if split == "train" else options.metric_threshold
        if not any((depth > threshold).any() for depth in dataset.depths()):
            raise ValueError(
                f"{options.dataset_dir}: no depth map of the {split} split has a pixel deeper than "
                f"{threshold:g} m"
            )
