"""The device that a network runs on, and mixed precision on it."""

import torch


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU where there is one.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    return device


def choose_precision(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype of autocast (float32 means none), and why it was chosen.

    "auto" takes bfloat16 where the hardware multiplies it: on a GPU, and on a CPU with AVX-512 BF16 or AMX,
    where a step is up to twice as fast and networks learn as well. Else it takes float16 on a GPU and float32
    on a CPU.

    Raises:
        ValueError: the device lacks the precision.
    """
    on_gpu = device.type == "cuda"
    lacks_bf16 = on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        if on_gpu:
            return (torch.float16, "no bfloat16 on this GPU") if lacks_bf16 else (torch.bfloat16, "on a GPU")
        has = torch.cpu.get_capabilities()
        if has.get("avx512_bf16") or has.get("amx_bf16"):
            return torch.bfloat16, "this CPU multiplies it"
        return torch.float32, "this CPU does not multiply bfloat16"
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    if dtype == torch.float16 and not on_gpu:
        raise ValueError(
            f"--precision fp16 needs a GPU, and this run is on {device}; bf16 or fp32 would work"
        )
    if dtype == torch.bfloat16 and lacks_bf16:
        raise ValueError(f"--precision bf16: {device} lacks it; fp16 or fp32 would work")
    return dtype, "as asked"


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """The context that networks and losses run in: autocast to `precision`; float32 means none."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)
