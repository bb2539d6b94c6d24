"""What was written, beside the module that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qna._core.errors import InvalidInput
from qna.export.shapes import Shape, random

# largest difference to the module in eager mode, in standard deviations of its output
TOLERANCE = 1e-4

Run = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was tried.

    Attributes:
        path: the file.
        form: "ONNX, opset 20" or "torch.export".
        sizes: the open sizes that it was tried with.
        difference: the largest to the module in eager mode, in standard deviations of its output.
        bytes: of the file.
    """

    path: Path
    form: str
    sizes: tuple[Mapping[str, int], ...]
    difference: float
    bytes: int

    def __str__(self) -> str:
        tried = ", ".join("x".join(map(str, sizes.values())) for sizes in self.sizes)
        return (
            f"{self.path}: {self.form}, {self.bytes / 1e6:.1f} MB; within {self.difference:.1e} of eager "
            f"(standard deviations of its output), tried with {' x '.join(self.sizes[0])} = {tried}"
        )


def largest_difference(
    module: Callable[..., Any],
    run: Run,
    shapes: Sequence[Shape],
    sizes: Sequence[Mapping[str, int]],
    what: str,
) -> float:
    """The largest between outputs of both on random inputs, in standard deviations of the first's.

    Args:
        module: the truth.
        run: what was written: inputs -> outputs.
        shapes: of the inputs.
        sizes: of the open axes.
        what: was written, for the error text.

    Raises:
        InvalidInput: `run` fails, or its outputs have other shapes.
    """
    largest = 0.0
    for named in sizes:
        inputs = random(shapes, named)
        at = ", ".join(f"{name}={size}" for name, size in named.items())
        expected = outputs_of(module, *inputs)
        try:
            got = run(*inputs)
        except Exception as error:  # runtimes have errors of their own
            raise InvalidInput(
                f"{what} does not run at {at}: {' '.join(str(error).split())[:300]}"
            ) from error
        for a, b in zip(got, expected, strict=True):
            if a.shape != b.shape:
                raise InvalidInput(f"{what} gives {tuple(a.shape)} at {at}, eager {tuple(b.shape)}")
            difference = _difference(a, b)
            # NaN is further than all
            if not difference <= largest:
                largest = difference
    return largest


def outputs_of(module: Callable[..., Any], *inputs: Tensor) -> tuple[Tensor, ...]:
    """What a module gives, one tensor or several, without gradients."""
    with torch.no_grad():
        result = module(*inputs)
    return (result,) if isinstance(result, Tensor) else tuple(result)


def check_difference(difference: float, most: float, what: str) -> None:
    """Refuse what is further away than `most`; NaN always is.

    Raises:
        InvalidInput: with both numbers.
    """
    if not difference <= most:
        raise InvalidInput(
            f"{what} was not kept: it is off by {difference:.1e} standard deviations of its output, and may "
            f"be by {most:.1e}"
        )


def _difference(a: Tensor, b: Tensor) -> float:
    if not b.numel():
        return 0.0
    spread = b.double().std(correction=0).item()
    return ((a.double() - b.double()).abs().max() / (spread or 1.0)).item()
