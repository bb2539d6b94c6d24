"""A question about a neighbour and all neighbours at once, asked of small graph convolutions."""

from __future__ import annotations

from functools import partial

from qna._core.about import About
from qna.labs.row import Lab, LabFolder, Metrics
from qna.labs.sinc_unique_signature.config import SincUniqueSignatureConfig
from qna.labs.sinc_unique_signature.graphs import Graphs, UniqueSignature
from qna.labs.sinc_unique_signature.picture import draw
from qna.labs.sinc_unique_signature.training import judge_all
from qna.labs.sinc_unique_signature.verdict import EXAMPLES, RULE, verdict

__all__ = ["LAB", "Graphs", "UniqueSignature"]


def run(config: SincUniqueSignatureConfig, folder: LabFolder) -> Metrics:
    """For each number of values, probability of an edge and seed a part that trains all contenders."""
    return folder.measured(
        {
            f"{values} values, edges {edges:g}, seed {seed}": partial(judge_all, config, values, edges, seed)
            for values in config.values
            for edges in config.edges
            for seed in range(config.seed, config.seed + config.seeds)
        }
    )


LAB = Lab(
    name="sinc-unique-signature",
    about=About(
        title="Enhancing Graph Representations with Neighborhood-Contextualized Message-Passing",
        authors="Lim, Lim, Tan et al.",
        venue="arXiv 2025",
        arxiv="2511.11046",
        read="the authors' code, briangodwinlim/SINC-GCN at c12984e (CC-BY-4.0), and its figures",
        differs="steps of 16 graphs at a larger rate along a cosine, in the place of 500 epochs of batches "
        "of 256 at 0.001, halved where the loss stays; all pairs of nodes as a mask in the place of edges, "
        "which is the same layer and on a processor quicker; graphs are drawn anew for each seed, by our own "
        "generator. SIR-GCN with sums is our addition: the published comparison gives it maxima",
        status="exact",
    ),
    claim="With 352 parameters SINC-GCN tells which nodes have a neighbour whose feature is the sum of all "
    "neighbours' features, with a balanced accuracy of 0.995 to 1; SIR-GCN, whose messages know their "
    "two ends alone, stays at 0.5 and GIN at 0.80 to 0.86. PNA, with 403 parameters, is as good.",
    control="SIR-GCN, as published with maxima and also with sums, GIN, PNA, GCN and GATv2 of as many "
    "channels, trained alike on the same graphs in the same order; each of them can win.",
    rule=RULE,
    config=SincUniqueSignatureConfig,
    tiny=SincUniqueSignatureConfig(
        values=(3,), edges=(0.5,), fewest=4, most=8, hidden=4, graphs=20, judged=20, steps=3, batch=4, seeds=2
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
