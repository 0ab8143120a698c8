"""Mixed precision, the same wherever a network runs."""

import torch


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """The context that networks and losses run in: autocast to `precision`; float32 means none."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)
