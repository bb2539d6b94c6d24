"""What runs the kernels: Triton or its interpreter, and which card."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch

INSTALLED = importlib.util.find_spec("triton") is not None
# set before the first import, triton runs its kernels in Python on the CPU: slow, and for tests
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@cache
def architecture(device: torch.device) -> str:
    """The name by which `tiles.json` knows a card: "sm_90", "gfx942"; "cpu" for the interpreter."""
    if device.type != "cuda":
        return device.type
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return properties.gcnArchName.split(":")[0]
    return f"sm_{properties.major}{properties.minor}"


@cache
def processors(device: torch.device) -> int:
    """How many multiprocessors a card has; the interpreter is one."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@cache
def compiler() -> tuple[int, ...]:
    """Triton's version, major and minor."""
    import triton

    return tuple(int(part) for part in triton.__version__.split(".")[:2])
