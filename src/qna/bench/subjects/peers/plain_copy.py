"""The floor: read the map once, write it once. As a layer, the two projections with a copy between them."""

from __future__ import annotations

from torch import Tensor

from qna.bench.measure.contender import Contender, Peer, Setting
from qna.bench.measure.gate import pick
from qna.bench.subjects.peers.layer import contender_of_core


def build(setting: Setting, level: str) -> Contender:
    """A copy of the map."""
    return contender_of_core(
        setting, level, Tensor.clone, lambda leaves, at: pick(leaves["value"], at), terms=1, maps=("value",)
    )


PEERS = (Peer("copy", "plain copy: the floor", build),)
