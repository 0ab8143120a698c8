"""A real recording through everything that training does: loader, network, loss, metrics."""

import pytest
import torch
from torch.utils.data import DataLoader

from binaural.data import BatVisionV2
from binaural.losses import BinauralAttentionLoss
from binaural.metrics import DepthMetrics
from binaural.models.binaural_attention import BinauralAttentionDepthNet
from binaural.models.unet import UNet


@pytest.fixture(autouse=True)
def one_thread():
    """On tensors this small, threads mostly wait for each other; on a busy machine for seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("network", [BinauralAttentionDepthNet, UNet])
@pytest.mark.parametrize("preprocessing", ["default", "official"])
def test_networks_fit_a_real_recording(batvision_sample, network, preprocessing):
    data = BatVisionV2(batvision_sample, "train", max_depth=10, image_size=32, preprocessing=preprocessing)
    (spectrogram, depth), *rest = DataLoader(data, batch_size=1)
    assert not rest
    torch.manual_seed(0)
    model, loss = network(base_channels=8, max_depth=10.0), BinauralAttentionLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    history, metrics = [], []
    for _ in range(30):
        pred = model(spectrogram)
        total, terms = loss(pred, depth)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        assert torch.isfinite(terms).all()
        history.append(float(total.detach()))
        running = DepthMetrics(threshold=0.1)
        running.update(pred, depth)
        metrics.append(running.compute())
    assert pred.shape == depth.shape
    assert 0 <= pred.min() <= pred.max() <= 10
    assert history[-1] < 0.5 * history[0]
    assert metrics[-1]["rmse"] < 0.8 * metrics[0]["rmse"]
    assert metrics[-1]["mae"] < 0.5 * metrics[0]["mae"]
