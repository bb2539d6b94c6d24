"""VPT: a few learned tokens, and a classifier, adapt a vision transformer that keeps its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from qna._core.about import About
from qna.adapters._parts.prompting import put_prompts
from qna.adapters._parts.prompts import check_prompts
from qna.adapters.row import Adapter, AdapterRow


@dataclass(frozen=True)
class VPT(Adapter):
    """Visual prompt tuning of a plain vision transformer (Jia et al., ECCV 2022).

    Deep: each of L blocks has P prompts of its own, of C channels, which its tokens attend beside themselves
    and which end there: ``[x', _] = block([x, prompts])``. Shallow: the first block's prompts pass through
    all blocks as tokens do, and are left out behind the last.

    The network's weights are frozen when it is applied; prompts and the classifier are trained, and what
    other adapters bring. P C L numbers are added, or P C. For N tokens a deep block takes 2 P C^2 + 2 N P C
    multiply-adds more, the first part once for a batch in evaluation, a shallow one as for P more tokens.

    Attributes:
        tokens: prompts of a block.
        deep: prompts of their own for every block.
        dropout: part of the prompts' numbers that is dropped in training, drawn anew for each image.
    """

    name: ClassVar[str] = "vpt"
    beside: ClassVar[frozenset[str]] = frozenset({"gated"})

    tokens: int = 5
    deep: bool = True
    dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        check_prompts(self.name, self.dropout, tokens=self.tokens)

    def transform(self, network: Any) -> list[str]:
        """Put prompts into every block, or into the first."""
        return put_prompts(network, self.name, count=self.tokens, deep=self.deep, dropout=self.dropout)


ROW = AdapterRow(
    VPT,
    About(
        "Visual Prompt Tuning",
        "Jia, Tang, Chen et al.",
        "ECCV 2022",
        "2203.12119",
        "the authors' code, KMnP/vpt at 4410440 (CC BY-NC), which was run beside this and of which nothing "
        "is copied",
        "what a deep block makes of its own prompts, which the next one replaces, is not computed; a linear "
        "map of the prompts, off by default there, is not here; dropout and drop path of the network act as "
        "they were set, where theirs are off",
        "exact",
    ),
    "learned tokens that are attended beside a frozen network's own, in every block or from the first on",
    {"tokens": 3, "dropout": 0.1},
    frozenset({"vit", "distilled", "registers"}),
)
