"""Whether a peer that stores its windows has room for them."""

from __future__ import annotations

import os

import torch

from qna.bench.measure.contender import Setting


def refuse_above_memory(setting: Setting, needed: int) -> str | None:
    """A sentence if `needed` bytes are more than two thirds of the device's memory."""
    if setting.device == "cpu":
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        total = torch.cuda.get_device_properties(setting.device).total_memory
    if needed > total * 2 // 3:
        return f"stores about {needed / 2**30:.0f} GiB of windows, this machine has {total / 2**30:.0f} GiB"
    return None
