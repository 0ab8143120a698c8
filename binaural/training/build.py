"""The systems of `train.py --model`: the network and the loss of each."""

import inspect
from argparse import Namespace
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

MODELS: dict[str, type[Pretrained]] = {
    "binaural": BinauralAttentionDepthNet,
    "unet": UNet,
    "unet_pix2pix": UNetPix2Pix,
    "base_residual": BaseResidualNet,
    "adabins_teacher": AdaptiveBinsNet,
    "adabins_distill": AdaptiveBinsNet,
}


def make_network(options: Namespace) -> Pretrained:
    """The network of a run, with random weights.

    It gets the options with the names of its arguments, also those that only the config.json of an older run
    has, such as `heads`.

    Raises:
        ValueError: the network refuses an option; the message begins with its name.
    """
    available = vars(options) | {
        "backend": options.kernel_backend,
        "downsamplings": halvings(options.image_size),
    }
    kind = MODELS[options.model]
    names = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in available.items() if name in names})


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
        FileNotFoundError: the folder holds no network.
        ValueError: it holds another system, or teacher and student differ in an argument other than
            `features`, or in the image size.
    """
    checkpoint = load_checkpoint(folder, torch.device("cpu"))
    teacher = checkpoint.network
    if not isinstance(teacher, AdaptiveBinsNet) or not checkpoint.input.sees:
        raise ValueError(f"--teacher must be an adabins_teacher, got {checkpoint.name}")

    def size(network: Pretrained, image_size: int) -> dict[str, object]:
        return {**network.arguments, "features": None, "image_size": image_size}

    expected = size(student, image_size)
    for name, value in size(teacher, checkpoint.input.image_size).items():
        if value != expected[name]:
            raise ValueError(
                f"--teacher: {name} must be that of the student, {expected[name]}, got {value} in {folder}"
            )
    return teacher
