"""Recorded echoes and the depth a camera saw: the BatVision data sets as spectrograms and metres."""

from binaural.data.batvision import BatVisionV1, BatVisionV2
from binaural.data.spectrogram import LogSpectrogram, OfficialSpectrogram

__all__ = ["BatVisionV1", "BatVisionV2", "LogSpectrogram", "OfficialSpectrogram"]
