"""What an authors' file of a golden case would hold."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tests.models.golden import rule


def drawn_state(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Tensors of these shapes by their names, drawn by the rule; a number that counts is 0."""
    return {
        name: torch.from_numpy(rule.torch_tensor(name, tuple(shape))) if shape else torch.tensor(0)
        for name, shape in shapes.items()
    }
