"""The systems of `train.py --model`: the network and the loss of each."""

from argparse import Namespace
from dataclasses import fields
from pathlib import Path

import torch

from binaural.checkpoint import load_checkpoint
from binaural.losses import AdaptiveBinauralAttentionLoss, BinauralAttentionLoss, DepthLoss, MaskedL1Loss
from binaural.models.adaptive_bins import AdaptiveBinsLoss, AdaptiveBinsNet, DistillationLoss
from binaural.models.base_residual import BaseResidualLoss, BaseResidualNet
from binaural.models.binaural_attention import BinauralAttentionDepthNet, BinauralAttentionOptions
from binaural.models.pretrained import Pretrained
from binaural.models.unet import UNet
from binaural.models.unet_pix2pix import UNetPix2Pix, halvings


def make_network(options: Namespace) -> Pretrained:
    """The network of a run, with random weights.

    Raises:
        ValueError: the network refuses an option; the message begins with its name.
    """
    channels, reach, features = options.base_channels, options.max_depth, options.features
    match options.model:
        case "unet":
            return UNet(channels, reach, features, options.view_levels, options.skip_levels)
        case "unet_pix2pix":
            return UNetPix2Pix(channels, reach, halvings(options.image_size), features)
        case "base_residual":
            return BaseResidualNet(channels, reach, features)
        case "adabins_teacher" | "adabins_distill":
            return AdaptiveBinsNet(channels, reach, features=features)
    return BinauralAttentionDepthNet(
        channels,
        max_depth=reach,
        features=features,
        backend=options.kernel_backend,
        **{field.name: getattr(options, field.name) for field in fields(BinauralAttentionOptions)},
    )


def make_loss(options: Namespace, network: Pretrained) -> DepthLoss:
    """The training loss of the network that `make_network` makes.

    Raises:
        FileNotFoundError: the teacher's folder holds no network.
        ValueError: the network in it cannot be the teacher of this one.
    """
    match options.model:
        case "unet_pix2pix":
            return MaskedL1Loss()
        case "base_residual":
            return BaseResidualLoss()
        case "adabins_teacher":
            return AdaptiveBinsLoss()
        case "adabins_distill":
            return DistillationLoss(load_teacher(options.teacher, options.image_size, network))
    kind = AdaptiveBinauralAttentionLoss if options.use_adaptive_loss else BinauralAttentionLoss
    return kind(
        options.lambda_recon, options.lambda_edge, options.lambda_smooth, backend=options.kernel_backend
    )


def load_teacher(folder: str | Path, image_size: int, student: Pretrained) -> AdaptiveBinsNet:
    """The trained teacher in `folder`.

    Raises:
        FileNotFoundError: the folder holds no network. ValueError: it holds another system, or a network that
        differs from the student in more than its input.
    """
    checkpoint = load_checkpoint(folder, torch.device("cpu"))
    teacher = checkpoint.network
    if not isinstance(teacher, AdaptiveBinsNet) or not checkpoint.input.sees:
        raise ValueError(f"--teacher must be an adabins_teacher, got {checkpoint.name}")

    def size(network: Pretrained, image_size: int) -> dict[str, object]:
        return {**network.arguments, "features": None, "image_size": image_size}

    theirs, ours = size(teacher, checkpoint.input.image_size), size(student, image_size)
    for name, value in theirs.items():
        if value != ours[name]:
            raise ValueError(
                f"--teacher: {name} must be that of the student, {ours[name]}, got {value} in {folder}"
            )
    return teacher
