"""Sizes of the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from qna._core.errors import check_choice

# the vocabulary that counts of parameters are for: bytes, and the end of a text
BYTES = 257


@dataclass(frozen=True)
class DecoderVariant:
    """One size.

    Attributes:
        dim: channels.
        depth: blocks.
        num_heads: of mixers that have heads; this and `kv_heads` where a mixer's arguments say nothing.
        kv_heads: of keys and values.
        hidden: channels of the gated MLPs.
        mixers: a causal mixer's name, a name with its arguments as ("SlidingAttention1d", {"window": 64}), or
            several of these, which blocks take in turn.
        tied: the head is the embedding.
        norm_eps: of all norms.
        parameters: exact count with a vocabulary of `BYTES`; None where a field was changed.
    """

    dim: int
    depth: int
    num_heads: int
    kv_heads: int
    hidden: int
    mixers: Any = "CausalAttention1d"
    tied: bool = True
    norm_eps: float = 1e-6
    parameters: int | None = None

    def varied(self, name: str, arguments: Mapping[str, Any]) -> DecoderVariant:
        """This variant, called `name`, with other fields.

        Raises:
            UnknownName: for what is no field, with the nearest.
        """
        own = {field.name for field in fields(self)} - {"parameters"}
        for argument in arguments:
            check_choice(f"argument of {name}", argument, own)
        return replace(self, **arguments, parameters=None) if arguments else self


VARIANTS = {
    "decoder_pico": DecoderVariant(64, 2, 4, 2, 176, parameters=108_928),
    "decoder_nano": DecoderVariant(128, 4, 4, 2, 352, parameters=771_328),
    "decoder_micro": DecoderVariant(256, 6, 8, 4, 704, parameters=4_492_800),
}
