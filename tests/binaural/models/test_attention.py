import pytest
import torch
from torch import nn

from binaural import BinauralCrossAttention
from binaural.kernels.cross_attention import reference


def make_maps(batch=2, channels=16, height=3, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, channels, height, width, generator=generator).to(memory_format=torch.channels_last)
        for _ in range(2)
    ]


def with_gain(module: BinauralCrossAttention) -> BinauralCrossAttention:
    """Gains and lag biases start at 0; give them values, so that all of the module shows."""
    with torch.no_grad():
        for parameter in (module.gain_left, module.gain_right, module.lag_bias):
            if parameter is not None:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    return module


@pytest.mark.parametrize("scope", ["time", "plane"])
@pytest.mark.parametrize("similarity", ["shared", "separate"])
def test_starts_as_identity(scope, similarity):
    left, right = make_maps()
    module = BinauralCrossAttention(16, heads=4, scope=scope, similarity=similarity)
    o_left, o_right = module(left, right)
    torch.testing.assert_close(o_left, left, rtol=0, atol=0)
    torch.testing.assert_close(o_right, right, rtol=0, atol=0)


@pytest.mark.parametrize("similarity", ["shared", "separate"])
def test_time_scope_matches_each_frequency_row_by_itself(similarity):
    """The module equals the definition applied to every row of every sample on its own."""
    left, right = make_maps()
    module = with_gain(BinauralCrossAttention(16, heads=4, similarity=similarity, max_lag=3, lag_bias=2))
    o_left, o_right = module(left, right)
    projected = [
        project(nn.functional.layer_norm(x.permute(0, 2, 3, 1), (16,)))
        for x, project in ((left, module.project_left), (right, module.project_right))
    ]
    for sample in range(2):
        for row in range(3):
            parts = [p[sample, row].split(module.sizes, dim=-1) for p in projected]
            (ql, vl, *kl), (qr, vr, *kr) = ([t.reshape(1, 5, 4, -1) for t in part] for part in parts)
            read = reference(ql, qr, vl, vr, *(kl + kr), scale=4**-0.5, max_lag=3, lag_bias=module.lag_bias)
            for x, o, r, gain in zip(
                (left, right), (o_left, o_right), read, (module.gain_left, module.gain_right), strict=True
            ):
                expected = x[sample, :, row] + gain[:, None] * r.reshape(5, 16).T
                torch.testing.assert_close(o[sample, :, row], expected)


@pytest.mark.parametrize(
    "options",
    [{}, {"similarity": "separate"}, {"scope": "plane"}, {"max_lag": 2}, {"lag_bias": None}],
    ids=str,
)
def test_a_symmetric_one_is_one_whose_ears_have_the_same_weights(options):
    torch.manual_seed(0)
    symmetric = BinauralCrossAttention(16, heads=2, symmetric=True, **options)
    plain = BinauralCrossAttention(16, heads=2, **options)
    with torch.no_grad():
        for parameter in symmetric.parameters():
            parameter.normal_()
        for side in ("left", "right"):
            getattr(plain, f"norm_{side}").load_state_dict(symmetric.norm_left.state_dict())
            getattr(plain, f"project_{side}").load_state_dict(symmetric.project_left.state_dict())
            getattr(plain, f"gain_{side}").copy_(symmetric.gain_left)
        if plain.lag_bias is not None:
            plain.lag_bias.copy_(symmetric.bias_of_lags())
    ears = [ear.requires_grad_() for ear in make_maps()]
    (both,) = symmetric(torch.cat(ears))
    wanted = torch.cat(plain(*ears))
    torch.testing.assert_close(both, wanted)
    gradient = torch.randn_like(both)
    found, expected = (torch.autograd.grad(o, ears, gradient) for o in (both, wanted))
    torch.testing.assert_close(found, expected)


def test_what_is_no_pair_of_ears_is_refused():
    left, right = make_maps()
    for symmetric in (False, True):
        module = BinauralCrossAttention(16, heads=2, symmetric=symmetric)
        for ears in ((), (left[:1],), (left, right, left)):
            with pytest.raises(ValueError, match="expected maps of left and right ear, or one batch of both"):
                module(*ears)


def test_plane_scope_matches_all_cells():
    """Moving cells of one ear about moves what is read with them, since no lag counts on a plane."""
    left, right = make_maps()
    module = with_gain(BinauralCrossAttention(16, scope="plane"))
    o_left, _ = module(left, right)
    shuffled = right.flatten(2)[..., torch.randperm(15)].reshape(right.shape)
    torch.testing.assert_close(module(left, shuffled)[0], o_left)


def test_default_path_copies_no_layout():
    """The kernel reads the packed projection in place, and the result stays channels-last."""
    left, right = make_maps(channels=32)
    module = BinauralCrossAttention(32, heads=4)
    for of_ear in zip(*module._project_ears(left, right), strict=True):
        assert len({part.untyped_storage().data_ptr() for part in of_ear}) == 1
        assert all(part.stride(-1) == 1 for part in of_ear)
    assert all(o.is_contiguous(memory_format=torch.channels_last) for o in module(left, right))


def test_more_heads_where_one_would_be_wide():
    assert BinauralCrossAttention(512, heads=4).heads == 8
    assert BinauralCrossAttention(128, heads=4).heads == 4


def test_every_parameter_gets_a_gradient():
    module = with_gain(BinauralCrossAttention(16, similarity="separate"))
    sum(o.square().sum() for o in module(*make_maps())).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 10, "heads": 4}, "channels must be divisible by heads, got 10 and 4"),
        ({"channels": 16, "scope": "space"}, "scope must be one of"),
        ({"channels": 16, "similarity": "equal"}, "similarity must be one of"),
        ({"channels": 16, "scope": "plane", "max_lag": 2}, "max_lag needs scope 'time'"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        BinauralCrossAttention(**arguments)
