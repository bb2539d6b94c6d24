"""Products that autocast must leave alone."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from qna.parts.attend import transformed


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """In which products on `device` keep their dtype, for sums that half precision cannot hold."""
    # a device without autocast, as meta is, may not be asked
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def as_they_are(device: torch.device) -> AbstractContextManager[Any]:
    """In which layers under a transform of `torch.func` compute in the dtype that they have.

    Autocast (torch 2.13) casts the operands of some batched ops there and not of others, so that a
    convolution after a linear map meets a dtype that is not its own.
    """
    return without_autocast(device) if transformed() else nullcontext()
