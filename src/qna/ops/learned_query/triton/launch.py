"""One launch of a Triton kernel, found by its name."""

from __future__ import annotations

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


def run(launch: Launch) -> Any:
    """Run it on the device of its tensors and the current stream; returns the compiled kernel."""
    kernel = kernels()[launch.kernel]
    with torch.cuda.device(launch.device) if launch.device.type == "cuda" else nullcontext():
        return kernel[(launch.programs,)](*launch.arguments, **launch.constants, **launch.options)


def kernels() -> dict[str, Any]:
    """The compiled-on-demand kernels by name; here triton is imported."""
    from qna.ops.learned_query.triton import backward, exact, forward, products, products_backward

    return {
        "tabulate": forward.tabulate,
        "attend": forward.attend,
        "attend_far": exact.attend_far,
        "sum_inside": backward.sum_inside,
        "gather": backward.gather,
        "add_up": backward.add_up,
        "lay_out": products.lay_out,
        "attend_by_products": products.attend_by_products,
        "sum_inside_by_products": products_backward.sum_inside_by_products,
        "gather_by_products": products_backward.gather_by_products,
        "correlate": products_backward.correlate,
        "fold": products_backward.fold,
    }
