"""What is compared: one file for each hand-written peer, and the registry's mixers. `PEERS` by name."""

from importlib import import_module

from qna.bench.measure.contender import Peer
from qna.mixers import MIXERS

__all__ = ["PEERS"]

# files of peers, in the order of tables and legends -> a mixer that one is made of, or None: an older
# version, which this one's code measures, may lack some mixers
_FILES = {
    "learned_query": None,
    "of_ops": None,
    "two_convolutions": None,
    "depthwise": "DepthwiseConvolution2d",
    "swin": None,
    "halo": None,
    "neighbourhood": None,
    "sasa": None,
    "routing": "BiLevelRoutingAttention2d",
    "aggregated": "AggregatedAttention2d",
    "full_attention": "FullAttention2d",
    "plain_copy": None,
    "registered": None,
}

PEERS: dict[str, Peer] = {
    peer.name: peer
    for file, mixer in _FILES.items()
    if mixer is None or mixer in MIXERS
    for peer in import_module(f"{__name__}.{file}").PEERS
}
