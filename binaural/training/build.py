"""The systems that `train.py --model` names: a network each, and the loss that it learns from."""

from pathlib import Path

import torch

from binaural.checkpoint import load_checkpoint
from binaural.losses import AdaptiveBinauralAttentionLoss, BinauralAttentionLoss, DepthLoss, MaskedL1Loss
from binaural.models.adaptive_bins import AdaptiveBinsLoss, AdaptiveBinsNet, DistillationLoss
from binaural.models.base_residual import BaseResidualLoss, BaseResidualNet
from binaural.models.binaural_attention import BinauralAttentionDepthNet
from binaural.models.pretrained import Pretrained
from binaural.models.unet import UNet
from binaural.models.unet_pix2pix import UNetPix2Pix, halvings
from binaural.training.options import Options


def make_network(options: Options) -> Pretrained:
    """The network of a run, with random weights.

    Raises:
        ValueError: an option that it refuses.
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
        options.attention_levels,
        options.heads,
        options.scope,
        options.similarity,
        reach,
        options.ear_width,
        options.max_lag,
        matching=options.matching,
        features=features,
        symmetric=options.symmetric,
        view_levels=options.view_levels,
        skip_levels=options.skip_levels,
        backend=options.kernel_backend,
    )


def make_loss(options: Options, network: Pretrained) -> DepthLoss:
    """The loss that the network of `make_network` learns from.

    Raises:
        FileNotFoundError: the teacher's folder holds no network.
        ValueError: what it holds cannot teach this student.
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
        FileNotFoundError: the folder holds no network.
        ValueError: it holds another system, or one that differs from its student in more than its input.
    """
    checkpoint = load_checkpoint(folder, torch.device("cpu"))
    teacher = checkpoint.network
    if not isinstance(teacher, AdaptiveBinsNet) or not checkpoint.input.sees:
        raise ValueError(f"--teacher: {checkpoint.name} is no adabins_teacher")

    def size(network: Pretrained, image_size: int) -> dict[str, object]:
        return {**network.arguments, "features": None, "image_size": image_size}

    theirs, ours = size(teacher, checkpoint.input.image_size), size(student, image_size)
    for name, value in theirs.items():
        if value != ours[name]:
            raise ValueError(
                f"--teacher: {folder} has {name} = {value}, its student {ours[name]}; both must be alike"
            )
    return teacher
