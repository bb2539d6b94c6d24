"""A small decoder whose mixer is any causal mixer of the registry: the network of the task `language`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qna._core.about import About
from qna._core.errors import check_choice
from qna.models.bounds import bounded_building, check_arguments
from qna.models.decoder.network import Decoder, DecoderBlock
from qna.models.decoder.skipping import without_layers
from qna.models.decoder.variants import BYTES, VARIANTS, DecoderVariant

__all__ = [
    "BYTES",
    "DECODERS",
    "VARIANTS",
    "Decoder",
    "DecoderBlock",
    "DecoderVariant",
    "create_decoder",
    "without_layers",
]


@dataclass(frozen=True)
class DecoderRow:
    """A family of decoders.

    Attributes:
        name: of the family.
        about: the published work.
        network: its class.
        variants: sizes by name.
    """

    name: str
    about: About
    network: type[Decoder]
    variants: Mapping[str, DecoderVariant]


DECODERS = {
    row.name: row
    for row in (
        DecoderRow(
            "decoder",
            About(
                title="LLaMA: Open and Efficient Foundation Language Models",
                authors="Touvron, Lavril, Izacard et al.",
                venue="arXiv 2023",
                arxiv="2302.13971",
                read="transformers 5.24's Llama (Apache-2.0)",
                differs="any causal mixer in the place of attention; the sizes are ours",
                status="exact",
            ),
            Decoder,
            VARIANTS,
        ),
    )
}


def create_decoder(
    name: str, *, vocabulary: int = BYTES, max_length: int | None = None, **arguments: Any
) -> Decoder:
    """Make a decoder.

    Args:
        name: of a size: "decoder_nano".
        vocabulary: tokens that there are; bytes and the end of a text by default.
        max_length: positions that a sequence may have; None for any.
        arguments: fields of `DecoderVariant` that are to be others, mixers="SlidingAttention1d" for example.

    Raises:
        UnknownName: for a size, field, mixer or argument that there is not, with the nearest names.
        InvalidInput: values that are refused.
    """
    sizes = {key: (row, size) for row in DECODERS.values() for key, size in row.variants.items()}
    row, variant = sizes[check_choice("decoder", name, sizes)]
    check_arguments(name, arguments)
    with bounded_building():
        return row.network(vocabulary, variant.varied(name, arguments), max_length=max_length)
