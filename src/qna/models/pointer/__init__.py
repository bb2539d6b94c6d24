"""Networks that answer with their own inputs, of LSTMs and of attention, and the search for answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qna._core.about import About
from qna._core.errors import check_choice
from qna.models.bounds import bounded_building
from qna.models.pointer.lstm import PointerNetwork
from qna.models.pointer.pointing import PointsAtInputs
from qna.models.pointer.search import Pointed, point
from qna.models.pointer.transformer import TransformerPointer

__all__ = [
    "POINTERS",
    "Pointed",
    "PointerNetwork",
    "PointerRow",
    "PointerVariant",
    "PointsAtInputs",
    "TransformerPointer",
    "create_pointer",
    "point",
]


@dataclass(frozen=True)
class PointerVariant:
    """One size.

    Attributes:
        arguments: of the network.
        parameters: exact count, for points of two numbers and answers that end by a choice.
    """

    arguments: Mapping[str, Any]
    parameters: int


@dataclass(frozen=True)
class PointerRow:
    """A family of networks that point.

    Attributes:
        name: of the family.
        about: the published work.
        network: its class.
        variants: sizes by name.
    """

    name: str
    about: About
    network: type[PointsAtInputs]
    variants: Mapping[str, PointerVariant] = field(default_factory=dict)


_TITLE, _AUTHORS, _VENUE, _ARXIV = (
    "Pointer Networks",
    "Vinyals, Fortunato, Jaitly",
    "NIPS 2015",
    "1506.03134",
)

POINTERS = {
    row.name: row
    for row in (
        PointerRow(
            "pointer_lstm",
            About(
                _TITLE,
                _AUTHORS,
                _VENUE,
                _ARXIV,
                read="a summary of the paper; its authors published no code",
                differs="the vectors to stop and to start from are learned: the paper has symbols for them "
                "and says no more",
                status="formula",
            ),
            PointerNetwork,
            {
                "pointer_lstm_128": PointerVariant({"dim": 128}, 168_194),
                "pointer_lstm_256": PointerVariant({"dim": 256}, 664_066),
                "pointer_lstm_512": PointerVariant({"dim": 512}, 2_638_850),
            },
        ),
        PointerRow(
            "pointer_transformer",
            About(
                _TITLE,
                _AUTHORS,
                _VENUE,
                _ARXIV,
                read="a summary of the paper; its authors published no code",
                differs="Transformer layers in the place of LSTMs, whose form and sizes are ours; the head, "
                "what the decoder is told and training are the paper's",
                status="after",
            ),
            TransformerPointer,
            {
                "pointer_transformer_128": PointerVariant({"dim": 128}, 1_418_242),
                "pointer_transformer_256": PointerVariant({"dim": 256}, 5_654_530),
            },
        ),
    )
}


def create_pointer(name: str, *, in_dim: int = 2, **arguments: Any) -> PointsAtInputs:
    """Make a network that points, by the name of its size.

    Args:
        name: "pointer_lstm_256" for example.
        in_dim: numbers of an input.
        arguments: of the network, in the place of the size's.

    Raises:
        UnknownName: for a size that there is not, with the nearest names.
        InvalidInput: values that are refused.
    """
    sizes = {key: (row, size) for row in POINTERS.values() for key, size in row.variants.items()}
    row, variant = sizes[check_choice("pointer network", name, sizes)]
    with bounded_building():
        return row.network(in_dim, **{**variant.arguments, **arguments})
