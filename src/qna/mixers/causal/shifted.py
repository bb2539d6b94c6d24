"""Attention in shifted groups, trained with at long contexts: S2-Attn of LongLoRA and SF-Attn of SinkLoRA."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from qna._core.about import About
from qna._core.errors import InvalidInput, check_choice
from qna.mixers.causal.softmax import SoftmaxAttention
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.causal_attend import attend_before
from qna.parts.kv_cache import CachePolicy, KeepAll
from qna.parts.rotary import HALVES
from qna.parts.sequence_state import SequenceState
from qna.parts.shifted_groups import KeepGroups, attend_wrapped, with_first_seeing_all

FULL, GROUPED = "full", "grouped"
BEFORE, ALL = "before", "all"


class _GroupedInTraining(SoftmaxAttention):
    """Softmax attention that attends in groups while it is trained, and by choice in inference.

    Args:
        group: positions of a group, or below 1 the part of the sequence that is one.
        inference: FULL or GROUPED.
        shifted: heads of queries whose groups begin half a group later.
        sinks: first positions that all later ones see.
        common: of `SoftmaxAttention`.
    """

    def __init__(
        self, dim: int, *, group: float, inference: str, shifted: int, sinks: int = 0, **common: Any
    ):
        super().__init__(dim, **common)
        name = type(self).__name__
        self.inference = check_choice("inference of attention in groups", inference, (FULL, GROUPED))
        of_sequence = isinstance(group, float) and 0 < group < 1
        if not of_sequence and (isinstance(group, bool) or not isinstance(group, int) or group < 1):
            raise InvalidInput(
                f"{name}: group must be a whole number of positions, or below 1 a part of the sequence, got "
                f"{group!r}"
            )
        if of_sequence and inference == GROUPED:
            raise InvalidInput(
                f"{name}: the length of a sequence that is still read is not known, so inference='grouped' "
                f"needs group as a number of positions, got {group:g}; or take inference='full'"
            )
        self.group, self.shifted = group, shifted
        # sizes are checked where they are given, whatever the group will be
        self.sinks = KeepGroups(1 if of_sequence else int(group), shifted, sinks).sinks

    def groups(self, length: int) -> KeepGroups:
        """The groups of a sequence; where they are parts of it, it is a whole one of so many positions."""
        part = self.group
        size = max(1, math.ceil(length * part)) if part < 1 else int(part)
        return KeepGroups(size, self.shifted, self.sinks)

    @property
    def in_groups(self) -> bool:
        """Whether attention is in groups now: in training, and where inference is so too."""
        return self.training or self.inference == GROUPED

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """In groups, or over all positions up to its own."""
        if not self.in_groups:
            return attend_before(query, key, value)
        return self.attend_in_groups(self.groups(query.shape[2]), query, key, value)

    def attend_in_groups(self, groups: KeepGroups, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Of a whole sequence."""
        return groups.attend(query, key, value, 0)

    def advance(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Attention over what is kept and the new positions."""
        if self.training and self.inference == FULL:
            raise InvalidInput(
                f"{type(self).__name__} attends in groups in training and everything in inference, and a "
                "step is inference; call eval() first, or build it with inference='grouped'"
            )
        return super().advance(x, state)

    @property
    def policy(self) -> CachePolicy:
        """What inference can see: everything, or groups and sinks."""
        return KeepAll() if self.inference == FULL else self.groups(0)

    def policy_state(
        self,
        batch: int,
        policy: CachePolicy,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> SequenceState:
        """As `init_state`, with a cache that keeps what `policy` says; H2O in SinkLoRA.

        Raises:
            InvalidInput: inference is in groups, which say themselves what is kept.
        """
        if self.inference == GROUPED:
            raise InvalidInput(
                f"{type(self).__name__} with inference='grouped' keeps what its groups see, and {policy} is "
                "for inference='full'"
            )
        return self.kept_by(policy, batch, device, dtype)

    def pairs(self, length: int) -> float:
        """Of groups where attention is in groups now, else a triangle."""
        if not self.in_groups:
            return length * (length + 1) // 2
        groups, heads = self.groups(length), self.heads.num_heads
        every = sum((last - first) * groups.pairs(length, s) for first, last, s in groups.shifts(heads))
        return every / heads

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{super().extra_repr()}, group={self.group:g}, inference={self.inference}"


class ShiftedSparseAttention1d(_GroupedInTraining):
    """S2-Attn (Chen et al., LongLoRA, arXiv 2309.12307, section 3.2): groups, half of the heads shifted.

    In training each position attends the positions up to itself inside its group; the groups of the last half
    of the heads begin half a group later, so that what is between two groups is seen by one half of the heads
    in each layer. Keys are turned to their positions in the sequence before. In inference, as published, each
    position attends all before it: weights are those of `CausalAttention1d`, and go from one to the other.
    With ``inference="grouped"`` groups hold there too, and a state keeps fewer than `group` positions.

    The first half group of shifted heads is a group of its own, and so is what is left at the end, as in
    the authors' LLaMA with FlashAttention. Without it the authors roll the sequence, so that the last group
    holds the first half group too, and first positions see the last ones: ``wrap=True``, **not causal**, in
    training alone; a model that is trained so reports a loss that inference does not have.

    Of N positions with C channels, h heads of d, g of keys and groups of G it costs ``2 N C d (h + g)``
    multiply-adds and ``N (G + 1) h d`` for scores and values, little less with shifted heads; scores are not
    held. A length that groups do not divide has a shorter last one, where the authors refuse it (and their
    code for supervised fine-tuning takes groups of 8192, so full attention below).

    Args:
        dim: channels of input and output.
        group: positions of a group; below 1 the part of the sequence that is one, rounded up: a quarter as
            published.
        inference: "full", as published, or "grouped", which needs a `group` in positions.
        wrap: let the last group hold the first half group too; the length must be a multiple of groups then.
        num_heads: even; this and the following are those of `SoftmaxAttention`.

    Raises:
        InvalidInput: heads that do not divide or are odd, a group that is none, `wrap` with inference in
            groups; in training with `wrap` a length that groups do not divide; a step while it is in training
            and inference is full.
    """

    # heads come in so many
    heads_multiple: ClassVar[int] = 2

    def __init__(
        self,
        dim: int,
        *,
        group: float = 0.25,
        inference: str = FULL,
        wrap: bool = False,
        num_heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        rope_base: float | None = 10_000.0,
        rope_layout: str = HALVES,
        rope_scale: float = 1.0,
    ):
        super().__init__(
            dim,
            group=group,
            inference=inference,
            shifted=num_heads // 2,
            num_heads=num_heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            bias=bias,
            rope_base=rope_base,
            rope_layout=rope_layout,
            rope_scale=rope_scale,
        )
        if num_heads % self.heads_multiple:
            raise InvalidInput(
                f"{type(self).__name__} shifts half of the heads, got num_heads={num_heads}; make it even"
            )
        if wrap and inference == GROUPED:
            raise InvalidInput(
                f"{type(self).__name__} with wrap=True lets first positions see the last ones, which no "
                "state can give; take inference='full', or leave wrap out"
            )
        self.wrap = wrap

    def attend_in_groups(self, groups: KeepGroups, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Of a whole sequence, rolled where it is to be."""
        if not self.wrap:
            return super().attend_in_groups(groups, query, key, value)
        if query.shape[2] % groups.group:
            raise InvalidInput(
                f"{type(self).__name__} with wrap=True needs a length that groups of {groups.group} divide, "
                f"got {query.shape[2]}; cut the sequence, or leave wrap out"
            )
        return attend_wrapped(query, key, value, group=groups.group, shifted=groups.shifted)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{super().extra_repr()}, wrap={self.wrap}"


class SinkFixedAttention1d(_GroupedInTraining):
    """SF-Attn (Zhang, SinkLoRA, arXiv 2406.05678): groups, a quarter of the heads shifted, and sinks.

    As `ShiftedSparseAttention1d`, but of the half of the heads that are shifted there one part stays as it is
    and one is shifted (segmentation); what comes out of shifted heads is put back to its positions before the
    heads are joined (reassembly). And the first `sinks` positions are seen by all later ones, in every head.
    In the paper they also see all: ``sinks_see="all"``, **not causal**, in training alone, since what
    the first positions give then depends on the last.

    The paper's own code is not public (its repository holds LongLoRA's), and its algorithm is a picture;
    which part stays, and its share, are our reading: the last quarter of the heads is shifted. Sinks are
    inside the softmax once, also where they lie in a position's own group. It costs as
    `ShiftedSparseAttention1d`, and at most ``2 N sinks h d`` more.

    Args:
        dim: channels of input and output.
        group: positions of a group; below 1 the part of the sequence that is one, rounded up.
        inference: "full", as published, or "grouped", which needs a `group` in positions.
        sinks: first positions that all later ones see; 4 as published.
        sinks_see: "before", which is causal, or "all".
        num_heads: a multiple of 4; this and the following are those of `SoftmaxAttention`.

    Raises:
        InvalidInput: as `ShiftedSparseAttention1d`, ``sinks_see="all"`` in the place of `wrap`.
    """

    # heads come in so many
    heads_multiple: ClassVar[int] = 4

    def __init__(
        self,
        dim: int,
        *,
        group: float = 0.25,
        inference: str = FULL,
        sinks: int = 4,
        sinks_see: str = BEFORE,
        num_heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        rope_base: float | None = 10_000.0,
        rope_layout: str = HALVES,
        rope_scale: float = 1.0,
    ):
        super().__init__(
            dim,
            group=group,
            inference=inference,
            shifted=num_heads // 4,
            sinks=sinks,
            num_heads=num_heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            bias=bias,
            rope_base=rope_base,
            rope_layout=rope_layout,
            rope_scale=rope_scale,
        )
        if num_heads % self.heads_multiple:
            raise InvalidInput(
                f"{type(self).__name__} shifts a quarter of the heads, got num_heads={num_heads}; make it a "
                "multiple of 4"
            )
        self.sinks_see = check_choice("sinks_see", sinks_see, (BEFORE, ALL))
        if sinks_see == ALL and inference == GROUPED:
            raise InvalidInput(
                f"{type(self).__name__} with sinks_see='all' lets the first {sinks} positions see all later "
                "ones, which no state can give; take inference='full', or sinks_see='before'"
            )

    def attend_in_groups(self, groups: KeepGroups, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Of a whole sequence, that of sinks over all of it where they are to see it."""
        attended = super().attend_in_groups(groups, query, key, value)
        if self.sinks_see == BEFORE or not self.sinks:
            return attended
        return with_first_seeing_all(attended, query, key, value, self.sinks)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{super().extra_repr()}, sinks={self.sinks}, sinks_see={self.sinks_see}"


_POLICY_EXEMPT = {
    "caches_follow_policies": "in groups nothing is kept that they do not see; with inference='full', as by "
    "default, any policy is followed"
}

ROWS = (
    MixerRow(
        ShiftedSparseAttention1d,
        About(
            title="LongLoRA: Efficient Fine-tuning of Long-Context Large Language Models",
            authors="Chen, Qian, Tang et al.",
            venue="ICLR 2024",
            arxiv="2309.12307",
            read="the authors' code, dvlab-research/LongLoRA at d4eb344 (Apache-2.0): LLaMA with "
            "FlashAttention, and without it for the wrapped form",
            differs="groups may be a number of positions and hold in inference too; any length; odd groups "
            "are rolled back as far as forth; padding is not masked, for sequences have none",
            status="exact",
        ),
        Example(
            (9,),
            {"num_heads": 4, "kv_heads": 2, "group": 6, "inference": GROUPED},
            long={"group": 1024},
        ),
        Traits(1, heads=True, causal=True),
        _POLICY_EXEMPT,
    ),
    MixerRow(
        SinkFixedAttention1d,
        About(
            title="SinkLoRA: Enhanced Efficiency and Chat Capabilities for Long-Context Large Language "
            "Models",
            authors="Zhang",
            venue="arXiv 2024",
            arxiv="2406.05678",
            read="the paper in translation; its repository, Dexter-GT-86/SinkLoRA, holds LongLoRA's "
            "attention and not this one",
            differs="which part of the heads stays, and its share, are our reading; sinks see what comes "
            "before them alone unless they are told to see all",
            status="after",
        ),
        Example(
            (9,),
            {"num_heads": 4, "kv_heads": 2, "group": 6, "sinks": 2, "inference": GROUPED},
            long={"group": 1024, "sinks": 4},
        ),
        Traits(1, heads=True, causal=True),
        _POLICY_EXEMPT,
    ),
)
