"""What is compared: one file for each hand-written peer, and the registry's mixers. `PEERS` by name."""

from qna.bench.measure.contender import Peer
from qna.bench.subjects.peers import (
    aggregated,
    depthwise,
    full_attention,
    halo,
    learned_query,
    neighbourhood,
    of_ops,
    plain_copy,
    registered,
    routing,
    sasa,
    swin,
    two_convolutions,
)

__all__ = ["PEERS"]

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
        routing,
        aggregated,
        full_attention,
        plain_copy,
        registered,
    )
    for peer in family.PEERS
}
