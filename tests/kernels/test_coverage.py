"""`python -m binaural.kernels`: each backend is available or has a reason, and its coverage is stated."""

import pytest
import torch

from binaural.kernels import cross_attention, use_backend
from binaural.kernels.__main__ import main
from binaural.kernels.dispatch.backends import BACKENDS, OPERATIONS, requested_backend
from binaural.kernels.dispatch.coverage import coverage


def test_every_backend_has_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    _, _, *lines = capsys.readouterr().out.splitlines()
    for operation in OPERATIONS:
        assert lines.pop(0) == operation
        for backend in BACKENDS:
            name, status = lines.pop(0).split(maxsplit=1)
            assert name == backend
            assert status.startswith(("available", "unavailable: "))
            assert lines.pop(0).split(maxsplit=1) == ["covers", coverage(operation, backend)]
    assert not lines


def test_what_is_said_is_what_is_refused() -> None:
    assert coverage("cross_attention", "cpp") == "float32, bfloat16, float16, float64"
    said = coverage("cross_attention", "cuda")
    assert said == "float32, bfloat16, float16; up to 128 channels of q per head"
    assert coverage("cross_attention", "triton") == said
    for tensor in (torch.zeros(1, 2, 1, 129), torch.zeros(1, 2, 1, 8, dtype=torch.float64)):
        with use_backend("cuda"), pytest.raises(ValueError, match="cannot run cross_attention here"):
            cross_attention(tensor, tensor, tensor, tensor)


def test_what_one_thread_asked_for_does_not_outlast_it() -> None:
    first, second = use_backend("reference"), use_backend("cpp")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert requested_backend() == "cpp"
    second.__exit__(None, None, None)
    assert requested_backend() is None


def test_a_compiled_call_follows_what_is_asked_for_later() -> None:
    compiled = torch.compile(lambda x: x + (requested_backend() is None), backend="eager", fullgraph=True)
    zero = torch.zeros(())
    assert compiled(zero) == 1
    with use_backend("reference"):
        assert compiled(zero) == 0
    assert compiled(zero) == 1
