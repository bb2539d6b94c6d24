"""VFPT: prompts of which a part is the real part of a Fourier transform."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from qna._core.about import About
from qna._core.errors import InvalidInput
from qna.adapters._parts.prompting import put_prompts
from qna.adapters._parts.prompts import Over, check_prompts
from qna.adapters.row import Adapter, AdapterRow


@dataclass(frozen=True)
class VFPT(Adapter):
    """Visual Fourier prompt tuning of a plain vision transformer (Zeng et al., NeurIPS 2024).

    VPT's prompts, deep or shallow, of which the first F = floor(part P) of a block are replaced by
    ``Re(FFT(FFT(prompts, channels), tokens))`` before they are attended, not scaled. With part 0 it is VPT.
    It adds no parameter to VPT's, and F C (log F + log C) operations a block.

    The network's weights are frozen when it is applied; prompts and the classifier are trained, and what
    other adapters bring.

    Attributes:
        tokens: prompts of a block.
        part: of them that are transformed, 0 to 1.
        over: "both" tokens and channels, or one of them.
        deep: prompts of their own for every block.
        dropout: part of the prompts' numbers that is dropped in training, before they are transformed.
    """

    name: ClassVar[str] = "vfpt"
    beside: ClassVar[frozenset[str]] = frozenset({"gated"})

    tokens: int = 5
    part: float = 0.5
    over: Over = "both"
    deep: bool = True
    dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        check_prompts(self.name, self.dropout, tokens=self.tokens)
        if not 0 <= self.part <= 1:
            raise InvalidInput(f"vfpt: part must be 0 to 1, got {self.part!r}")
        if self.part and not self.transformed:
            raise InvalidInput(
                f"vfpt: a part of {self.part:g} of {self.tokens} prompts is none; raise one of them, or set "
                "part to 0"
            )

    @property
    def transformed(self) -> int:
        """How many prompts of a block are transformed."""
        return math.floor(self.tokens * self.part)

    def transform(self, network: Any) -> list[str]:
        """Put prompts into every block, or into the first."""
        return put_prompts(
            network,
            self.name,
            count=self.tokens,
            deep=self.deep,
            dropout=self.dropout,
            transformed=self.transformed,
            over=self.over,
        )


ROW = AdapterRow(
    VFPT,
    About(
        "Visual Fourier Prompt Tuning",
        "Zeng, Han, Wang et al.",
        "NeurIPS 2024",
        "2411.01327",
        "the abstract; the authors' code, runtsang/VFPT at 1b3d984 (CC BY-NC), which was run beside this and "
        "of which nothing is copied",
        "as VPT's row; options of their code that its defaults leave off (prompts drawn for the transform, "
        "added ones, linear maps in its place, half of the blocks) are not here",
        "exact",
    ),
    "VPT's prompts, a part of them as the real part of their Fourier transform",
    {"tokens": 4, "part": 0.5, "dropout": 0.1},
    frozenset({"vit", "distilled", "registers"}),
)
