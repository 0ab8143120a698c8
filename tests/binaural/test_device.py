import pytest
import torch

from binaural.device import choose_device, choose_precision


def test_precision_and_device():
    cpu = choose_device("cpu")
    assert choose_precision("bf16", cpu) == (torch.bfloat16, "as asked")
    assert choose_precision("fp32", cpu) == (torch.float32, "as asked")
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        choose_precision("fp16", cpu)
    for name in ("abacus", "meta"):
        with pytest.raises(ValueError, match=f"--device {name}: "):
            choose_device(name)


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({}, torch.float32)],
)
def test_a_cpu_with_and_without_bfloat16(
    instructions: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **instructions})
    assert choose_precision("auto", torch.device("cpu"))[0] == expected


def test_a_gpu_without_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    gpu = torch.device("cuda")
    assert choose_precision("auto", gpu) == (torch.float16, "no bfloat16 on this GPU")
    with pytest.raises(ValueError, match="--precision bf16: cuda lacks it"):
        choose_precision("bf16", gpu)
