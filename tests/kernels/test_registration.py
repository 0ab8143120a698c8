import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from binaural.kernels.depth_loss.operator import _FORWARD
from binaural.kernels.dispatch import extension


@pytest.mark.skipif(extension.WHY_NOT_LOADED is not None, reason="the extension is not built")
@pytest.mark.parametrize("grad_mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_an_operator_is_the_same_where_no_gradient_is_recorded(grad_mode):
    """Below autograd it meets the same fake, and the same kernel."""
    images = torch.full((2, 1, 5, 6), 2.0), torch.full((2, 1, 5, 6), 3.0)
    with grad_mode():
        total, _, coded, _ = _FORWARD["cpp"](*images, torch.ones(3), True)
    assert total == 1.0
    assert coded.shape == (2, 5, 6)
    with FakeTensorMode() as mode, grad_mode():
        fakes = [mode.from_tensor(image) for image in images]
        total, _, coded, _ = _FORWARD["cpp"](*fakes, torch.ones(3), True)
        assert type(total) is type(fakes[0])
        assert coded.shape == (2, 5, 6)
