"""What runs Triton kernels: the compiler or its interpreter, and which card."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch

INSTALLED = importlib.util.find_spec("triton") is not None
# set before the first import, triton runs its kernels in Python on the CPU: slow, and for tests
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# type of the device whose tensors the kernels take
DEVICE = "cpu" if INTERPRETED else "cuda"


def missing() -> list[str]:
    """What this machine lacks, as sentences."""
    reasons = []
    if not INSTALLED:
        reasons.append("triton is not installed: pip install triton")
    if not (INTERPRETED or torch.cuda.is_available()):
        reasons.append("torch sees no GPU (torch.cuda.is_available() is False)")
    return reasons


@cache
def architecture(device: torch.device) -> str:
    """The name by which tables of tiles know a card: "sm_90", "gfx942"; "cpu" for the interpreter."""
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
