"""The comparison with PyTorch's attention, on the CPU, where no speed is of interest."""

import torch

from benchmarks.gpu_check import run, two_sdpa_calls
from benchmarks.gpu_compare import SIZES, Size, attentions, fixed_configuration, measure, section
from binaural.kernels.cross_attention import reference


def test_every_implementation_is_measured_or_left_out_with_the_reason() -> None:
    size = Size("small", 2, 16, 2, 8, 8, 5)
    rows, missing = measure(size, "cpu", torch.float32)
    measured = {row["implementation"] for row in rows}
    left_out = {text.split(":")[0] for text in missing}
    assert measured | left_out == {"packed", *attentions("cpu", size)}
    assert {"packed", "cpp", "2 x SDPA, math"} <= measured
    assert "2 x SDPA, cudnn" in left_out
    assert {row["phase"] for row in rows} == {"forward", "backward", "both"}
    text = section(size, rows, missing)
    assert "small: 2 x 16 x 2 heads, d 8, dv 8, a bias of 5 lags" in text
    assert all(reason in text for reason in missing)


def test_two_calls_of_pytorch_compute_the_same() -> None:
    from benchmarks.gpu_check import Shape, make_inputs

    shape = Shape(2, 12, 9, 2, 8, 4, reach=3, max_lag=5)
    inputs = [x.double() for x in make_inputs(shape, torch.float64, "cpu")]
    ours = run(two_sdpa_calls, inputs, shape)
    for a, b in zip(ours, run(reference, inputs, shape), strict=True):
        torch.testing.assert_close(a.nan_to_num(), b)


def test_the_model_is_among_the_sizes() -> None:
    from binaural.models.attention import BinauralCrossAttention
    from binaural.training.build import make_network
    from binaural.training.options import parse_options

    network = make_network(parse_options(["--base_channels", "64", "--max_depth", "30"]))
    batch, pixels = 32, 256
    for name, module in network.named_modules():
        if isinstance(module, BinauralCrossAttention):
            level = int(name.rpartition(".")[2])
            bias, side = module.bias_of_lags(), pixels >> (level - 1)
            d, dv = (channels // module.heads for channels in module.sizes[:2])
            lags = None if bias is None else bias.shape[1]
            assert Size(f"level {level}", batch * side, side, module.heads, d, dv, lags) in SIZES["cuda"]


def test_the_fixed_configuration_leaves_the_settings_as_they_were() -> None:
    before = torch.utils.deterministic.fill_uninitialized_memory
    with fixed_configuration():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == before
