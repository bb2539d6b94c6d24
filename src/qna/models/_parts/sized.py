"""Networks that a variant describes: what every family's constructor takes, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import nn

from qna._core.checks import positive
from qna.models._parts.hierarchy import Hierarchy, Stage

Network = TypeVar("Network", bound="SizedHierarchy")


@dataclass(frozen=True)
class Parts:
    """What a network is made of; `Hierarchy` says what each is."""

    stem: nn.Module
    stages: Sequence[Stage]
    dims: Sequence[int]
    strides: Sequence[int]
    norm: nn.Module
    pool_heads: int


class SizedHierarchy(Hierarchy):
    """A `Hierarchy` that a variant describes. A family says in `parts` what it is made of.

    Args:
        variant: its sizes.
        in_chans: channels of the image.
        num_classes: number of logits; 0 for none.
        global_pool: "avg" (or "gap"), "qnav1", "qnav2" (pooling with learned queries), or "" for none.
        img_size: nominal size, from which the tables of the pooling with learned queries take theirs; None
            for the variant's.
        drop_rate: dropout before the classifier.
        options: the keyword-only arguments of `parts`.
    """

    # (variant, in_chans, *, options of the family) -> its parts
    parts: ClassVar[Callable[..., Parts]]

    def __init__(
        self,
        variant: Any,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        img_size: int | Sequence[int] | None = None,
        drop_rate: float = 0.0,
        **options: Any,
    ):
        positive(type(self).__name__, in_chans=in_chans)
        variant = self.sized(variant, img_size)
        parts = type(self).parts(variant, in_chans, **options)
        super().__init__(
            parts.stem,
            parts.stages,
            dims=parts.dims,
            strides=parts.strides,
            norm=parts.norm,
            pool_heads=parts.pool_heads,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            img_size=variant.image_size if img_size is None else img_size,
            drop_rate=drop_rate,
        )
        self.finish(variant)

    @staticmethod
    def sized(variant: Any, img_size: int | Sequence[int] | None) -> Any:
        """The variant for images of `img_size`; the same, unless a family has weights for one size alone."""
        return variant

    def finish(self, variant: Any) -> None:
        """What a family does with the whole network: initial weights, a head of another width."""

    @classmethod
    def of(cls: type[Network], variant: Any, **arguments: Any) -> Network:
        """The model of a variant; `arguments`, its fields' and the constructor's, go before what it says."""
        varied, others = variant.varied(arguments)
        return cls(varied, **others)
