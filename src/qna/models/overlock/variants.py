"""The sizes of OverLoCK, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from qna._core.checks import positive
from qna._core.errors import InvalidInput
from qna.models.family import Variant

_LENGTHS = {"dims": 4, "depths": 4, "focus_depths": 2, "num_heads": 2, "kernel_sizes": 4}


@dataclass(frozen=True)
class OverLoCKVariant(Variant):
    """A base, an overview and a focus network.

    Attributes:
        dims: channels of the base network's three stages and of the overview; the focus network has those of
            the last two. Context and overview have a quarter of the last, which 4 divides.
        depths: blocks of the base network's stages and of the overview.
        focus_depths: blocks of the focus network's two stages.
        num_heads: of their dynamic kernels, `ContMix2d`'s.
        kernel_sizes: of the stages; those of `DilatedReparam2d`.
        small_kernel_size: of the dynamic kernels' smaller half.
        mlp_ratio: hidden channels per channel in base and overview.
        focus_mlp_ratio: and in the focus network.
        projection: channels before the classifier.
        drop_path_rate: of the last block in training; it grows linearly from 0, base and overview first.
        deploy: whether large kernels begin merged, in the form that is for evaluation.
        aux_weight: of the loss of a second head in training, on the overview; 0 for no such head. The
            authors' is 0.4.
    """

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    focus_depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    kernel_sizes: tuple[int, ...] = (17, 15, 13, 7)
    small_kernel_size: int = 5
    mlp_ratio: int = 4
    focus_mlp_ratio: int = 3
    projection: int = 1024
    drop_path_rate: float = 0.0
    deploy: bool = False
    aux_weight: float = 0.0

    def __post_init__(self):
        name = type(self).__name__
        for field, length in _LENGTHS.items():
            numbers = getattr(self, field)
            if not isinstance(numbers, tuple | list) or len(numbers) != length:
                raise InvalidInput(f"{field} must be {length} numbers, got {numbers!r}")
            positive(name, **{f"{field}[{i}]": n for i, n in enumerate(numbers)})
        for field in ("small_kernel_size", "mlp_ratio", "focus_mlp_ratio", "projection"):
            positive(name, **{field: getattr(self, field)})
        if self.dims[-1] % 4:
            raise InvalidInput(f"4 must divide the last of dims, got {self.dims}")
        if not isinstance(self.deploy, bool):
            raise InvalidInput(f"deploy must be True or False, got {self.deploy!r}")
        if isinstance(self.aux_weight, bool) or not 0 <= self.aux_weight < inf:
            raise InvalidInput(f"aux_weight must be at least 0 and finite, got {self.aux_weight!r}")

    @property
    def context_dim(self) -> int:
        """Channels of context and overview."""
        return self.dims[-1] // 4


# exact counts of the form that is trained, without the second head; the authors print those of the other
OVERLOCK = {
    "overlock_xt": OverLoCKVariant(
        (56, 112, 256, 336), (2, 2, 3, 2), (6, 2), (4, 6), drop_path_rate=0.1, parameters=16_969_600
    ),
    "overlock_t": OverLoCKVariant(
        (64, 128, 256, 512), (4, 4, 6, 2), (12, 2), (4, 8), drop_path_rate=0.15, parameters=34_476_448
    ),
    "overlock_s": OverLoCKVariant(
        (64, 128, 320, 512), (6, 6, 8, 3), (16, 3), (8, 16), drop_path_rate=0.4, parameters=57_795_748
    ),
    "overlock_b": OverLoCKVariant(
        (80, 160, 384, 576), (8, 8, 10, 4), (20, 4), (6, 9), drop_path_rate=0.5, parameters=97_434_816
    ),
    # ours, for small images: maps of 8x8, 4x4, 2x2 and 1x1 at the named size
    "overlock_nano_32": OverLoCKVariant(
        (8, 16, 16, 32),
        (1, 1, 1, 1),
        (2, 1),
        (2, 2),
        (7, 5, 5, 5),
        3,
        2,
        2,
        64,
        image_size=32,
        parameters=132_792,
    ),
}
