"""What a layer or a model costs, and what it looks at."""

from qna.analysis.attention import AttentionMaps, attention_received
from qna.analysis.attention_indicators import AttentionIndicators, attention_indicators, indicators_of
from qna.analysis.receptive_field import ReceptiveField, receptive_field
from qna.analysis.rollout import Rollout, attention_rollout
from qna.analysis.tile_simulator import TileSimulation, search_gna, simulate_gna
from qna.analysis.token_attention import TokenAttention, token_attention

__all__ = [
    "AttentionIndicators",
    "AttentionMaps",
    "ReceptiveField",
    "Rollout",
    "TileSimulation",
    "TokenAttention",
    "attention_indicators",
    "attention_received",
    "attention_rollout",
    "indicators_of",
    "receptive_field",
    "search_gna",
    "simulate_gna",
    "token_attention",
]
