"""One launch of a Triton kernel, found by its name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch


class Launch(NamedTuple):
    """One kernel launch, with everything that the compiler specialises on."""

    kernel: str
    programs: int
    arguments: tuple
    constants: dict[str, Any]
    options: dict[str, int]
    device: torch.device


def run(launch: Launch, kernels: Mapping[str, Any]) -> Any:
    """Run it on the device of its tensors and the current stream; returns the compiled kernel."""
    kernel = kernels[launch.kernel]
    with torch.cuda.device(launch.device) if launch.device.type == "cuda" else nullcontext():
        return kernel[(launch.programs,)](*launch.arguments, **launch.constants, **launch.options)
