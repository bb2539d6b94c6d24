"""What a layer or a model costs, and what it looks at."""

from qna.analysis.attention import AttentionMaps, attention_received

__all__ = ["AttentionMaps", "attention_received"]
