"""Operators to compare with, one file each: `PEERS` by name."""

from qna.bench.peers import (
    depthwise,
    full_attention,
    halo,
    learned_query,
    neighbourhood,
    plain_copy,
    sasa,
    swin,
    two_convolutions,
)
from qna.bench.peers.contender import Peer

__all__ = ["PEERS"]

# in the order of tables and legends
PEERS: dict[str, Peer] = {
    peer.name: peer
    for family in (
        learned_query,
        two_convolutions,
        depthwise,
        swin,
        halo,
        neighbourhood,
        sasa,
        full_attention,
        plain_copy,
    )
    for peer in family.PEERS
}
