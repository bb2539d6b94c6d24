"""Whether what stores much has room for it."""

from __future__ import annotations

import os

import torch


def refuse_above_memory(device: str, needed: int, what: str = "windows") -> str | None:
    """A sentence if `needed` bytes are more than two thirds of the device's memory."""
    if device == "cpu":
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        total = torch.cuda.get_device_properties(device).total_memory
    if needed > total * 2 // 3:
        return f"stores about {needed / 2**30:.0f} GiB of {what}, this machine has {total / 2**30:.0f} GiB"
    return None
