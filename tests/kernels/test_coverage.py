"""`python -m binaural.kernels`: each backend is available or has a reason, and its coverage is stated."""

import pytest
import torch

from binaural.kernels import cross_attention, use_backend
from binaural.kernels.__main__ import main
from binaural.kernels.dispatch.backends import OPERATIONS, requested_backend
from binaural.kernels.dispatch.coverage import coverage


def test_every_backend_has_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    _, _, *lines = capsys.readouterr().out.splitlines()
    for operation, backends in OPERATIONS.items():
        assert lines.pop(0) == operation
        for backend in backends:
            name, status = lines.pop(0).split(maxsplit=1)
            assert name == backend
            assert status.startswith(("available", "unavailable: "))
            assert lines.pop(0).split(maxsplit=1) == ["covers", coverage(operation, backend)]
    assert not lines


def test_the_list_agrees_with_the_errors() -> None:
    assert coverage("upsample_concat", "cpp") == "float32, bfloat16; channels-last"
    assert coverage("batch_norm_relu", "cpp") == "float32, bfloat16; channels-last; in training"
    assert coverage("cross_attention", "cpp") == "float32, bfloat16, float16, float64"
    listed = coverage("cross_attention", "cuda")
    assert listed == "float32, bfloat16, float16; up to 128 channels of q per head"
    assert coverage("cross_attention", "triton") == listed
    for tensor in (torch.zeros(1, 2, 1, 129), torch.zeros(1, 2, 1, 8, dtype=torch.float64)):
        with use_backend("cuda"), pytest.raises(ValueError, match="cannot run cross_attention here"):
            cross_attention(tensor, tensor, tensor, tensor)


def test_contexts_of_two_threads_may_end_in_any_order() -> None:
    first, second = use_backend("reference"), use_backend("cpp")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert requested_backend() == "cpp"
    second.__exit__(None, None, None)
    assert requested_backend() is None


def test_a_compiled_call_follows_a_later_request() -> None:
    compiled = torch.compile(lambda x: x + (requested_backend() is None), backend="eager", fullgraph=True)
    zero = torch.zeros(())
    assert compiled(zero) == 1
    with use_backend("reference"):
        assert compiled(zero) == 0
    assert compiled(zero) == 1
