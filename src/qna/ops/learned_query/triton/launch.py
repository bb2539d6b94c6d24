"""One launch of a Triton kernel: sizes, strides and constants as the kernels take them."""

from __future__ import annotations

import importlib.util
import math
import os
from contextlib import nullcontext
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qna.ops._shared.window import Window

INSTALLED = importlib.util.find_spec("triton") is not None
# set before the first import, triton runs its kernels in Python on the CPU: slow, and for tests
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# of so many calls of different sizes the plans are kept: to make one takes longer than to launch it
CALLS = 1024


class Launch(NamedTuple):
    """One kernel launch, with everything that the compiler specialises on."""

    kernel: str
    programs: int
    arguments: tuple
    constants: dict[str, Any]
    options: dict[str, int]
    device: torch.device


class Maps(NamedTuple):
    """Sizes, strides and window of one call, in the form that the kernels take.

    Attributes:
        sizes: of the map, then of the windows, with three axes each, then the batch; as `odd` numbers.
        strides: (batch, *three axes) of each map, in `unit`s; as `odd` numbers.
        unit: a power of two that divides every stride.
        window: kernel, stride, dilation and margin before, with three axes each.
    """

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    unit: int
    window: tuple[int, ...]

    @classmethod
    def of(cls, scores: Tensor, window: Window, maps: tuple[Tensor, ...]) -> Maps:
        """From scores (B, *space, L, h), and all `maps` whose strides a kernel is to know."""
        return _maps(scores.shape, window, tuple((m.shape, m.stride()) for m in maps))


@lru_cache(CALLS)
def _maps(
    scores: tuple[int, ...], window: Window, maps: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
) -> Maps:
    # an axis of one position has no stride: what torch reports for it must not cost alignment
    strides = [
        [0 if n == 1 else s for n, s in zip(shape[:-2], stride[:-2], strict=True)] for shape, stride in maps
    ]
    unit = math.gcd(16, *(s for row in strides for s in row))
    return Maps(
        odd((*three(scores[1:-2], 1), *three(window.out, 1), scores[0])),
        tuple(odd((row[0] // unit, *three([s // unit for s in row[1:]], 0))) for row in strides),
        unit,
        (
            *three(window.kernel, 1),
            *three(window.stride, 1),
            *three(window.dilation, 1),
            *three(window.before, 0),
        ),
    )


def run(launch: Launch) -> Any:
    """Run it on the device of its tensors and the current stream; returns the compiled kernel."""
    kernel = kernels()[launch.kernel]
    with torch.cuda.device(launch.device) if launch.device.type == "cuda" else nullcontext():
        return kernel[(launch.programs,)](*launch.arguments, **launch.constants, **launch.options)


def kernels() -> dict[str, Any]:
    """The compiled-on-demand kernels by name; here triton is imported."""
    from qna.ops.learned_query.triton import backward as triton_backward
    from qna.ops.learned_query.triton import exact as triton_exact
    from qna.ops.learned_query.triton import forward as triton_forward
    from qna.ops.learned_query.triton import products as triton_products
    from qna.ops.learned_query.triton import products_backward as triton_products_backward

    return {
        "tabulate": triton_forward.tabulate,
        "attend": triton_forward.attend,
        "attend_far": triton_exact.attend_far,
        "sum_inside": triton_backward.sum_inside,
        "gather": triton_backward.gather,
        "add_up": triton_backward.add_up,
        "lay_out": triton_products.lay_out,
        "attend_by_products": triton_products.attend_by_products,
        "sum_inside_by_products": triton_products_backward.sum_inside_by_products,
        "gather_by_products": triton_products_backward.gather_by_products,
        "correlate": triton_products_backward.correlate,
        "fold": triton_products_backward.fold,
    }


@cache
def architecture(device: torch.device) -> str:
    """The name by which the table knows a card: "sm_90", "gfx942"; "cpu" for the interpreter."""
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


def three(axes, fill: int) -> tuple[int, ...]:
    """One to three axes as three, the new ones first."""
    return (*(fill,) * (3 - len(axes)), *axes)


def ceil(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << (n - 1).bit_length()


def odd(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """As the kernels take integers: neither 1 nor a multiple of 16, for which they would be compiled anew."""
    return tuple(2 * n + 1 for n in numbers)


def table(t: Tensor | None) -> Tensor | None:
    """Bias or weight as the kernels read them."""
    return None if t is None else t.float().contiguous()


def dense(t: Tensor, transposed: bool) -> Tensor:
    """`t` (..., m, n), copied unless its last two axes lie densely in this order, or `transposed`."""
    if transposed:
        return dense(t.transpose(-1, -2), False).transpose(-1, -2)
    (m, n), (sm, sn) = t.shape[-2:], t.stride()[-2:]
    is_dense = (n == 1 or sn == 1) and (m == 1 or sm == n)
    return t if is_dense else t.contiguous()
