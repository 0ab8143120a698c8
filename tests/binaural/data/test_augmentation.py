"""Augmentation keeps the physics: ears and depth mirror together, one gain for both ears."""

import torch

from binaural.data import LogSpectrogram
from binaural.data.augmentation import augment, mirror


def test_mirror_swaps_ears_and_depth_together():
    waveform, depth = torch.randn(2, 500), torch.rand(1, 8, 8)
    ears, view = mirror(waveform, depth)
    assert torch.equal(ears, torch.stack([waveform[1], waveform[0]]))
    assert torch.equal(view[..., 0], depth[..., -1])
    again = mirror(ears, view)
    assert torch.equal(again[0], waveform)
    assert torch.equal(again[1], depth)
    spectrogram = LogSpectrogram(500, 16)
    assert torch.equal(spectrogram(ears), mirror(spectrogram(waveform), depth)[0])


def test_gain_and_noise():
    torch.manual_seed(0)
    waveform = torch.stack([torch.randn(20000), 0.3 * torch.randn(20000)])
    depth = torch.rand(1, 4, 4)
    gains, swaps = [], 0
    for _ in range(200):
        varied, view = augment(waveform, depth)
        swapped = not torch.equal(view, depth)
        swaps += swapped
        if swapped:
            varied = varied.flip(0)
        gain = (varied * waveform).sum(1) / (waveform**2).sum(1)
        torch.testing.assert_close(gain[0], gain[1], rtol=1e-3, atol=0)
        residual = (varied - gain[:, None] * waveform).std(1)
        assert ((residual > 0.9e-4) & (residual < 1.9e-3)).all()
        gains.append(20 * torch.log10(gain[0]))
    assert 70 < swaps < 130
    assert -6.1 < min(gains) < -5
    assert 5 < max(gains) < 6.1
