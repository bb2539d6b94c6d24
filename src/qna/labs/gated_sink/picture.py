"""Attention of the first token, the largest activation and accuracy, seed by seed."""

from __future__ import annotations

from functools import partial

from qna.labs.gated_sink.training import NETWORKS
from qna.labs.gated_sink.verdict import FIRST, LARGEST, TOP1
from qna.labs.small_vit import draw_figures

draw = partial(
    draw_figures,
    names=NETWORKS,
    panels={
        "attention that the first token gets, %": FIRST,
        "largest activation between blocks": LARGEST,
        "held-out images right, %": TOP1,
    },
    title="Vision transformers with and without gates",
)
