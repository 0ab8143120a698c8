"""Loading of a saved network by its folder alone."""

from pathlib import Path

from binaural.models.adaptive_bins import AdaptiveBinsNet
from binaural.models.base_residual import BaseResidualNet
from binaural.models.binaural_attention import BinauralAttentionDepthNet
from binaural.models.pretrained import Pretrained, read_config
from binaural.models.unet import UNet
from binaural.models.unet_pix2pix import UNetPix2Pix

NETWORKS: tuple[type[Pretrained], ...] = (
    BinauralAttentionDepthNet,
    UNet,
    UNetPix2Pix,
    BaseResidualNet,
    AdaptiveBinsNet,
)


def load_network(folder: str | Path) -> Pretrained:
    """The network saved in `folder`, whichever it is, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: the folder holds no network.
        ValueError: the network is unknown, or its files do not fit each other.
    """
    name = read_config(folder)["network"]
    for network in NETWORKS:
        if network.__name__ == name:
            return network.from_pretrained(folder)
    known = ", ".join(network.__name__ for network in NETWORKS)
    raise ValueError(f"{folder} holds a {name!r}, expected one of {known}")
