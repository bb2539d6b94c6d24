"""What is compared: one file for each hand-written peer, and the registry's mixers. `PEERS` by name."""

from importlib import import_module

from qna.bench.measure.contender import Peer
from qna.bench.subjects.peers import (
    depthwise,
    full_attention,
    halo,
    learned_query,
    neighbourhood,
    of_ops,
    plain_copy,
    registered,
    sasa,
    swin,
    two_convolutions,
)
from qna.mixers import MIXERS

__all__ = ["PEERS"]

# files of peers -> the mixer that they are made of, which an older version that is measured may lack
_OF_MIXERS = {"routing": "BiLevelRoutingAttention2d", "aggregated": "AggregatedAttention2d"}

# in the order of tables and legends
PEERS: dict[str, Peer] = {
    peer.name: peer
    for family in (
        learned_query,
        of_ops,
        two_convolutions,
        depthwise,
        swin,
        halo,
        neighbourhood,
        sasa,
        *(import_module(f"{__name__}.{file}") for file, mixer in _OF_MIXERS.items() if mixer in MIXERS),
        full_attention,
        plain_copy,
        registered,
    )
    for peer in family.PEERS
}
