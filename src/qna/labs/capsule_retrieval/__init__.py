"""Capsules of two modalities: whether self-attention routes them as well as iterations do, for less."""

from __future__ import annotations

from functools import partial

from qna._core.about import About
from qna.labs.capsule_retrieval.config import CapsuleRetrievalConfig
from qna.labs.capsule_retrieval.pairs import TASKS
from qna.labs.capsule_retrieval.picture import draw
from qna.labs.capsule_retrieval.training import measure_cost, retrieve
from qna.labs.capsule_retrieval.verdict import EXAMPLES, RULE, verdict
from qna.labs.row import Lab, LabFolder, Metrics


def run(config: CapsuleRetrievalConfig, folder: LabFolder) -> Metrics:
    """A part for each number of capsules, then one for each seed and task."""
    parts = {f"cost of {count}": partial(measure_cost, config, count) for count in config.counts}
    for seed in range(config.seed, config.seed + config.seeds):
        parts |= {f"seed {seed}, {task}": partial(retrieve, config, task, seed) for task in TASKS}
    return folder.measured(parts)


LAB = Lab(
    name="capsule-retrieval",
    about=About(
        title="Routing with Self-Attention for Multimodal Capsule Networks",
        authors="Duarte, Chen, Shvetsova et al.",
        venue="2021",
        arxiv="2112.00775",
        read="the abstract; the authors' repository (KevinDuarte/Multimodal-Capsule-Networks at 84ec4f3) has "
        "no code",
        differs="formulas of capsules, activations and joint feature are ours; halves of images and captions "
        "of three words in the place of video, sound and speech; recall is asked among hundreds of pairs. "
        "Costs were taken in turns while other programs ran",
        status="after",
    ),
    claim="Capsules of each modality routed by self-attention, which is not iterated, form a joint feature; "
    "that costs less than routing by agreement or by expectation and maximisation, so that more capsules "
    "fit, and finds the other modality well (abstract).",
    control="Dynamic and EM routing of as many capsules, and capsules without routing, each between the same "
    "layers and trained alike.",
    rule=RULE,
    config=CapsuleRetrievalConfig,
    tiny=CapsuleRetrievalConfig(
        data="digits", capsules=3, dim=4, more=4, out_dim=4, steps=2, batch=4, judged=6, seeds=1,
        counts=(2, 3), cost_batch=2, seconds=0.001,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)  # fmt: skip
