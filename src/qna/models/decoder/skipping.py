"""A trained decoder without some of its layers, or without what mixes in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from qna._core.errors import InvalidInput, check_choice
from qna.mixers.causal.mixer import CausalMixer
from qna.models.decoder.network import Decoder, DecoderBlock, turns
from qna.parts.sequence_state import SequenceState

LAYER, MIXER = "layer", "mixer"


def without_layers(decoder: Decoder, layers: Iterable[int], *, part: str = LAYER) -> Decoder:
    """A copy of `decoder` that skips some layers: what a hybrid's simple layers were good for.

    Xue et al. (arXiv 2510.11602, section 4.2) remove the odd layers of hybrids after training, counted from
    1, and judge what is left without training it.

    Args:
        decoder: trained; it stays as it is.
        layers: numbers from 1.
        part: "layer", whole blocks with their MLPs; or "mixer", so that the skip path is all that is left of
            the mixing, and MLPs stay.

    Raises:
        InvalidInput: a number that is no layer's, or none would be left.
        UnknownName: another part, with the nearest names.
    """
    check_choice("part of a layer", part, (LAYER, MIXER))
    depth, chosen = len(decoder.blocks), set(layers)
    if strange := sorted(i for i in chosen if not 1 <= i <= depth):
        raise InvalidInput(f"layers are from 1 to {depth}, got {', '.join(map(str, strange))}")
    made = deepcopy(decoder)
    if part == MIXER:
        for i in chosen:
            block = cast(DecoderBlock, made.blocks[i - 1])
            block.mixer = _Nothing(made.variant.dim)
        return made
    kept = [i for i in range(depth) if i + 1 not in chosen]
    if not kept:
        raise InvalidInput(f"all {depth} layers would be skipped; leave one")
    mixers = turns(made.variant)
    made.blocks = nn.ModuleList(made.blocks[i] for i in kept)
    left = tuple(mixers[i % len(mixers)] for i in kept)
    made.variant = replace(made.variant, depth=len(kept), mixers=left, parameters=None)
    return made


class _Nothing(CausalMixer):
    """Adds nothing and remembers nothing."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = self.out_dim = dim

    def begin(self, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        return {}

    def advance(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        return torch.zeros_like(x), state.after(x.shape[1])

    def state_bytes(self, size: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
        return 0

    def macs(self, size: Sequence[int]) -> int:
        return 0

    def extra_repr(self) -> str:
        return f"{self.dim}"
