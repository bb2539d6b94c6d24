"""Whether Terminator converges faster than a residual network of its size, and what stored kernels change."""

from __future__ import annotations

from dataclasses import replace

from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics
from qna.labs.terminator_convergence.config import TerminatorConvergenceConfig
from qna.labs.terminator_convergence.picture import draw
from qna.labs.terminator_convergence.training import train_all
from qna.labs.terminator_convergence.verdict import EXAMPLES, RULE, verdict
from qna.models.terminator import FAMILY


def run(config: TerminatorConvergenceConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which every network is trained by every optimiser."""
    return folder.measured(parts_of(config, train_all))


LAB = Lab(
    name="terminator-convergence",
    about=replace(
        FAMILY.about,
        differs="the author's configuration has five blocks and 100 epochs on images of 32 x 32; these are "
        "networks of three blocks, after a few passes over some hundred images of 14 x 14. In evaluation "
        "an answer depends on the batch, of 100 images, as published; the rates of both optimisers rise and "
        "fall alike",
    ),
    claim="Without any residual connection, training converges faster and takes fewer parameters (abstract), "
    "and the hyper-kernels of the whole map, which no image changes, are fixed after training.",
    control="A residual network of three stages with as many parameters, by the same optimisers, AdamW and "
    "the author's Kar3, at the same rates: each network counts by the one that suits it. Images, their "
    "order, epochs and schedule are the same.",
    rule=RULE,
    config=TerminatorConvergenceConfig,
    tiny=TerminatorConvergenceConfig(
        data="digits", images=32, held_out=16, shrink=1, epochs=1, batch=16, rates=(4e-3,), seeds=2
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
