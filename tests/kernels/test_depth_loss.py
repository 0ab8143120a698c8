"""The edge-aware depth loss: every backend against the definition, and the definition against kornia."""

import math

import pytest
import torch
from backend import Backend
from depth_loss_cases import WEIGHTS, defined, make, relative_error, run
from torch import Tensor

from binaural.kernels import edge_aware_loss
from binaural.kernels.depth_loss import reference, weighted_loss

SHAPES = [
    (1, 1, 1),
    (1, 3, 5),
    (2, 1, 257, 129),
    (3, 4, 4),
    (2, 1, 9, 40),
    (1, 40, 1),
    (1, 1, 40),
    (1, 5, 1100),
]
TOLERANCES = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 8e-3}


@pytest.fixture(autouse=True)
def _available(request: pytest.FixtureRequest) -> None:
    if "backend" in request.fixturenames:
        request.getfixturevalue("backend").skip_unless_available("edge_aware_loss")


def check(backend: Backend, pred: Tensor, target: Tensor, dtype: torch.dtype = torch.float32) -> None:
    if dtype not in backend.dtypes:
        pytest.skip(f"{backend} does not take {dtype}")
    if backend.name == "triton" and backend.device == "cpu" and pred.numel() > 4000:
        pytest.skip("triton: its interpreter would take minutes")
    expected = defined(pred, target)
    results = run(pred.to(backend.device, dtype), target.to(backend.device, dtype), backend.name)
    total, terms, gradient = results
    wide = torch.promote_types(dtype, torch.float32)
    assert (total.dtype, terms.dtype, gradient.dtype) == (wide, wide, dtype)
    assert gradient.shape == pred.shape
    # Sums are float32 whatever the inputs; the gradient is rounded to the dtype of the prediction.
    assert relative_error(total, expected[0]) < TOLERANCES[wide]
    assert relative_error(terms, expected[1]) < TOLERANCES[wide]
    assert relative_error(gradient, expected[2]) < TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_agrees_with_the_definition(backend: Backend, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check(backend, *make(shape), dtype)


@pytest.mark.parametrize("invalid", [0.0, 0.5, 0.97, 1.0])
def test_any_share_of_valid_pixels(backend: Backend, invalid: float) -> None:
    check(backend, *make((1, 19, 35), invalid))


def test_nothing_valid_gives_zeros(backend: Backend) -> None:
    pred, target = make((1, 12, 20), invalid=1.0)
    for result in run(pred.float().to(backend.device), target.float().to(backend.device), backend.name):
        assert not result.any()


@pytest.mark.parametrize("place", [(0, 0), (10, 10), (15, 16)])
def test_one_valid_pixel_has_depth_and_no_edges(backend: Backend, place: tuple[int, int]) -> None:
    pred, target = make((1, 16, 17), invalid=1.0)
    target[0, place[0], place[1]] = 3.0
    total, terms, gradient = run(
        pred.float().to(backend.device), target.float().to(backend.device), backend.name
    )
    difference = pred[0, place[0], place[1]] - 3
    assert terms.tolist() == pytest.approx([difference.abs().item(), 0, 0])
    assert total.item() == pytest.approx(WEIGHTS[0] * difference.abs().item())
    expected = torch.zeros_like(pred)
    expected[0, place[0], place[1]] = WEIGHTS[0] * difference.sign()
    torch.testing.assert_close(gradient.cpu().double(), expected, rtol=1e-6, atol=0)


def test_three_by_three_valid_pixels_have_one_edge(backend: Backend) -> None:
    pred, target = make((1, 8, 30), invalid=1.0)
    target[0, 2:5, 14:17] = torch.arange(1.0, 10.0).reshape(3, 3)
    assert defined(pred, target)[1][1] > 0
    check(backend, pred, target)


def test_the_same_depths_cost_only_their_smoothness(backend: Backend) -> None:
    target = make((1, 12, 30), invalid=0.0)[1]
    total, terms, gradient = run(*[target.float().to(backend.device)] * 2, backend.name, (1.0, 1.0, 0.0))
    assert total.item() == pytest.approx(0, abs=1e-6)
    assert terms[2] > 0
    assert (
        gradient.abs().max() <= 2e-3
    )  # rounding may take either side of an edge's kink, never of the depth's


def test_a_flat_prediction_has_no_edge_gradient(backend: Backend) -> None:
    pred, target = torch.full((1, 20, 40), 2.5), make((1, 20, 40), invalid=0.0)[1].float()
    _, _, gradient = run(pred.to(backend.device), target.to(backend.device), backend.name, (0.0, 1.0, 1.0))
    assert not gradient.any()


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (-1.0, -0.5, -0.25)])
def test_each_term_and_weights_below_zero(backend: Backend, weights: tuple[float, float, float]) -> None:
    # A tensor's values are not looked at, so that a weight that is learned may pass 0.
    pred, target = make((1, 14, 35))
    expected = defined(pred, target, weights)
    results = run(pred.float().to(backend.device), target.float().to(backend.device), backend.name, weights)
    for result, value in zip(results, expected, strict=True):
        assert relative_error(result, value) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(2, 1, 6, 7), (2, 6, 7)], ids=str)
@pytest.mark.parametrize("permuted", [True, False])
def test_opcheck(backend: Backend, shape: tuple[int, ...], dtype: torch.dtype, permuted: bool) -> None:
    from binaural.kernels.depth_loss.operator import _BACKWARD, _FORWARD

    if dtype not in backend.dtypes:
        pytest.skip(f"{backend} does not take {dtype}")
    pred, target = (t.to(backend.device, dtype) for t in make(shape))
    if permuted:
        pred, target = (t.transpose(-1, -2) for t in (pred, target))
    weights = torch.tensor(WEIGHTS, dtype=torch.promote_types(dtype, torch.float32), device=pred.device)
    forward, backward = (operators[backend.name].overload for operators in (_FORWARD, _BACKWARD))
    for with_gradient in (False, True):
        torch.library.opcheck(forward, (pred, target, weights, with_gradient))
    total, _, coded, scales = forward(pred, target, weights, True)
    torch.library.opcheck(backward, (torch.ones_like(total), coded, scales, pred))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 19, 33)], ids=str)
def test_every_output_is_written(backend: Backend, shape: tuple[int, ...]) -> None:
    pred, target = (t.float().to(backend.device) for t in make(shape))
    expected = run(pred, target, backend.name)
    torch.use_deterministic_algorithms(True)  # PyTorch then fills empty memory with NaN; of C++ it always is
    try:
        poisoned = run(pred, target, backend.name)
    finally:
        torch.use_deterministic_algorithms(False)
    for result, value in zip(poisoned, expected, strict=True):
        assert torch.equal(result, value)


def test_gradcheck_away_from_kinks(backend: Backend) -> None:
    if torch.float64 not in backend.dtypes:
        pytest.skip(f"{backend} does not compute in float64")
    pred, target = make((2, 6, 7), invalid=0.1)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64, requires_grad=True)

    def total(pred: Tensor, weights: Tensor) -> Tensor:
        return weighted_loss(pred, target, weights, backend=backend.name)[0]

    assert torch.autograd.gradcheck(total, (pred.requires_grad_(), weights))


def test_the_target_may_be_wider_than_the_prediction(backend: Backend) -> None:
    pred, target = make((1, 12, 31))
    target = target + 1e-3  # no bfloat16
    expected = defined(pred, target)
    for dtype in (torch.float32, torch.float64):
        results = run(pred.to(backend.device, torch.bfloat16), target.to(backend.device, dtype), backend.name)
        assert relative_error(results[0], expected[0]) < 1e-6
        assert relative_error(results[2], expected[2]) < 8e-3


def test_any_strides(backend: Backend) -> None:
    pred, target = make((2, 12, 32))
    views = [
        lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
        lambda t: t.repeat_interleave(2, 2)[:, :, ::2],
        lambda t: torch.stack([t, t - 1], 3)[..., 0].unsqueeze(1),
        lambda t: torch.cat([t, t], 0)[1:3],
        lambda t: t[:, 1:, 3:],
    ]
    for view in views:
        p, t = view(pred), view(target)
        results = run(p.float().to(backend.device), t.float().to(backend.device), backend.name)
        expected = defined(p, t)
        for result, value in zip(results, expected, strict=True):
            assert relative_error(result, value) < 1e-6


def test_expanded_inputs(backend: Backend) -> None:
    pred, target = (t.expand(3, 1, 12, 20) for t in make((1, 12, 20)))
    check(backend, pred, target)


@pytest.mark.parametrize("place", [(0, 0), (7, 9), (15, 39)])
def test_a_nan_of_the_prediction_shows(backend: Backend, place: tuple[int, int]) -> None:
    pred, target = make((1, 16, 40), invalid=0.0)
    pred[0, place[0], place[1]] = float("nan")
    total, terms, _ = run(pred.float().to(backend.device), target.float().to(backend.device), backend.name)
    assert total.isnan()
    assert terms[0].isnan()


def test_a_nan_where_nothing_was_measured_has_no_influence(backend: Backend) -> None:
    pred, target = make((1, 16, 40), invalid=0.1)
    missing = ~((target > 0) & target.isfinite())
    expected = defined(pred, target)
    for value in (float("nan"), float("inf"), 1e30):
        spoiled = torch.where(missing, value, pred)
        results = run(spoiled.float().to(backend.device), target.float().to(backend.device), backend.name)
        for result, value in zip(results, expected, strict=True):
            assert relative_error(result, value) < 1e-6


def test_the_backward_scales_out_of_place_and_runs_twice(backend: Backend) -> None:
    pred, target = (t.float().to(backend.device) for t in make((1, 12, 30)))
    once = run(pred, target, backend.name)[2]
    pred.requires_grad_()
    total, _ = weighted_loss(pred, target, torch.tensor(WEIGHTS, device=pred.device), backend=backend.name)
    (first,) = torch.autograd.grad(total, pred, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(-3 * total, pred)
    assert torch.equal(first, once)
    assert torch.equal(first, kept)
    torch.testing.assert_close(second, -3 * once)


def test_two_runs_give_the_same_bits(backend: Backend) -> None:
    pred, target = (t.float().to(backend.device) for t in make((1, 20, 30)))
    for first, second in zip(*[run(pred, target, backend.name) for _ in range(2)], strict=True):
        assert torch.equal(first, second)


def test_without_a_gradient_the_values_are_the_same(backend: Backend) -> None:
    pred, target = (t.float().to(backend.device) for t in make((1, 12, 40)))
    weights = torch.tensor(WEIGHTS, device=pred.device)
    total, terms, _ = run(pred, target, backend.name)
    plain, plain_terms = weighted_loss(pred, target, weights, backend=backend.name)
    assert not plain.requires_grad
    torch.testing.assert_close(plain, total, rtol=1e-6, atol=0)
    torch.testing.assert_close(plain_terms, terms, rtol=1e-6, atol=0)
    with torch.no_grad():
        assert torch.equal(
            weighted_loss(pred.requires_grad_(), target, weights, backend=backend.name)[0], plain
        )


def test_a_second_order_gradient_raises(backend: Backend) -> None:
    pred, target = (t.float().to(backend.device) for t in make((1, 8, 9)))
    pred.requires_grad_()
    weights = torch.tensor(WEIGHTS, device=backend.device, requires_grad=True)
    for leaf in (pred, weights):
        total, _ = weighted_loss(pred, target, weights, backend=backend.name)
        (gradient,) = torch.autograd.grad(total, leaf, create_graph=True)
        with pytest.raises(RuntimeError, match="second-order gradients .* backend='reference'"):
            torch.autograd.grad(gradient.sum() + 0 * pred.sum(), pred)


def test_a_learned_weight_has_a_gradient(backend: Backend) -> None:
    pred, target = (t.float().to(backend.device) for t in make((1, 10, 10)))
    edge = torch.tensor(0.2, device=pred.device, requires_grad=True)
    total, terms = edge_aware_loss(pred, target, lambda_edge=edge, backend=backend.name)
    (gradient,) = torch.autograd.grad(total, edge)
    assert torch.equal(gradient, terms[1])


def test_autocast_changes_nothing(backend: Backend) -> None:
    pred, target = (t.float().to(backend.device) for t in make((1, 12, 30)))
    plain = run(pred, target, backend.name)
    with torch.autocast(backend.device, torch.bfloat16):
        cast = run(pred, target, backend.name)
    for one, other in zip(plain, cast, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("requires_grad", [True, False])
def test_it_compiles_into_one_graph(backend: Backend, requires_grad: bool) -> None:
    if (backend.name, backend.device) == ("cuda", "cpu"):
        pytest.skip("the emulation patches what torch.compile reads; it has the same operators' fakes")
    torch._dynamo.reset()  # what other tests compiled would count as a recompilation
    pred, target = (t.float().to(backend.device) for t in make((1, 12, 30)))
    weights = torch.tensor(WEIGHTS, device=pred.device)

    def loss(pred: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return weighted_loss(2 * pred, target, weights, backend=backend.name)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    if not requires_grad:
        for one, other in zip(compiled(pred, target, weights), loss(pred, target, weights), strict=True):
            assert torch.equal(one, other)
        return
    pred.requires_grad_()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for factor in (1.0, 0.5):
            total, terms = compiled(pred, target, factor * weights)
            expected, expected_terms = loss(pred, target, factor * weights)
            assert torch.equal(total, expected)
            assert torch.equal(terms, expected_terms)
            (one,), (other,) = (torch.autograd.grad(t, pred) for t in (total, expected))
            assert torch.equal(one, other)


def test_no_image_gives_zeros() -> None:
    total, terms = edge_aware_loss(torch.zeros(0, 1, 4, 4), torch.zeros(0, 1, 4, 4))
    assert total == 0
    assert not terms.any()


# --- the definition against kornia ------------------------------------------------------------------------


def test_the_definition_agrees_with_kornia() -> None:
    filters = pytest.importorskip("kornia.filters")
    contrib = pytest.importorskip("kornia.morphology")
    pred, target = make((2, 1, 24, 19))
    valid = target.isfinite() & (target > 0)
    clean = torch.where(valid, target, 0)
    inner = contrib.erosion(
        valid.double(), torch.ones(3, 3, dtype=torch.float64), border_type="constant", border_value=0.0
    ).bool()
    # kornia repeats the border, which the erosion takes away here.
    p, t = (filters.spatial_gradient(image, "sobel", 1, normalized=False)[:, 0] for image in (pred, clean))
    magnitude = [(g.square().sum(1, keepdim=True) + 1e-6).sqrt() for g in (p, t)]
    expected = [
        (pred - clean).abs()[valid].mean(),
        (magnitude[0] - magnitude[1]).abs()[inner].mean(),
        (p.abs().sum(1, keepdim=True) * torch.exp(-magnitude[1]))[inner].mean(),
    ]
    terms = reference(pred, target, torch.ones(3, dtype=torch.float64))[1]
    torch.testing.assert_close(terms, torch.stack(expected))


# --- what is refused --------------------------------------------------------------------------------------

IMAGE = torch.ones(2, 1, 4, 5)


@pytest.mark.parametrize(
    ("pred", "target", "error", "message"),
    [
        (IMAGE.int(), IMAGE, TypeError, "pred must be float32.*int32"),
        (IMAGE, IMAGE.long(), TypeError, "target must be float32.*int64"),
        ([1.0], IMAGE, TypeError, "pred must be a tensor, got list"),
        (IMAGE, None, TypeError, "target must be a tensor, got NoneType"),
        (IMAGE.expand(2, 3, 4, 5), IMAGE, ValueError, r"pred must be \[B, 1, H, W\].*\[2, 3, 4, 5\]"),
        (IMAGE[0, 0], IMAGE, ValueError, r"pred must be .*\[4, 5\]"),
        (IMAGE[..., :0], IMAGE, ValueError, r"pred must have at least one row.*\[2, 1, 4, 0\]"),
        (IMAGE, IMAGE[:, 0], ValueError, r"target must have pred's shape \[2, 1, 4, 5\], got \[2, 4, 5\]"),
        (IMAGE, IMAGE.to("meta"), ValueError, "target must be on pred's device cpu, got meta"),
        (IMAGE, IMAGE.clone().requires_grad_(), ValueError, "target must not require a gradient"),
    ],
)
def test_bad_images_are_refused(pred: Tensor, target: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        edge_aware_loss(pred, target)


@pytest.mark.parametrize("name", ["lambda_recon", "lambda_edge", "lambda_smooth"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-0.1, ValueError, "must be finite and at least 0, got -0.1"),
        (math.nan, ValueError, "must be finite and at least 0, got nan"),
        (math.inf, ValueError, "must be finite and at least 0, got inf"),
        ("1", TypeError, "must be a number or a 0-d tensor, got str"),
        (torch.ones(1), ValueError, r"0-d tensor on cpu, got a torch.float32 tensor of shape \[1\] on cpu"),
        (torch.tensor(1), ValueError, "got a torch.int64 tensor"),
        (torch.tensor(1.0, device="meta"), ValueError, "on meta"),
    ],
)
def test_bad_weights_are_refused(name: str, value: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"{name} .*{message}"):
        edge_aware_loss(IMAGE, IMAGE, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0, 1.0, 1.0], TypeError, "weights must be a tensor, got list"),
        (torch.ones(2), ValueError, r"weights must be \[3\].*\[2\]"),
        (torch.ones(3, dtype=torch.int32), TypeError, "weights must be float32.*int32"),
        (torch.ones(3, device="meta"), ValueError, "weights must be on pred's device cpu, got meta"),
    ],
)
def test_bad_weight_tensors_are_refused(weights: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        weighted_loss(IMAGE, IMAGE, weights)
