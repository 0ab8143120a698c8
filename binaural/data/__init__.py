"""Recorded echoes and the depth a camera saw: the BatVision data sets as spectrograms and metres."""

from binaural.data.batvision import BatVisionV1, BatVisionV2
from binaural.data.cached_dataset import CachedEchoes, Echoes
from binaural.data.echo_dataset import EchoDataset
from binaural.data.front_end import FrontEnd
from binaural.data.network_input import NetworkInput
from binaural.data.registry import DATASETS, open_split
from binaural.data.spectrogram import LogSpectrogram, OfficialSpectrogram

__all__ = [
    "DATASETS",
    "BatVisionV1",
    "BatVisionV2",
    "CachedEchoes",
    "EchoDataset",
    "Echoes",
    "FrontEnd",
    "LogSpectrogram",
    "NetworkInput",
    "OfficialSpectrogram",
    "open_split",
]
