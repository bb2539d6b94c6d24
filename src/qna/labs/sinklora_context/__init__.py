"""Whether a decoder adapted to longer contexts in groups with sinks comes near one with full attention."""

from __future__ import annotations

from functools import partial

from qna._core.about import About
from qna.labs.row import Lab, LabFolder, Metrics
from qna.labs.sinklora_context.config import SinkloraContextConfig
from qna.labs.sinklora_context.leak import show_leak
from qna.labs.sinklora_context.picture import draw
from qna.labs.sinklora_context.training import adapt_all, train_base
from qna.labs.sinklora_context.verdict import EXAMPLES, RULE, verdict


def run(config: SinkloraContextConfig, folder: LabFolder) -> Metrics:
    """The leak, then the decoder of short contexts, then a part for each seed of adapting it."""
    parts = {
        f"leak, seed {seed}": partial(show_leak, config, seed)
        for seed in range(config.seed, config.seed + config.leak_seeds)
    }
    parts["base"] = partial(train_base, config, folder.path)
    for seed in range(config.seed, config.seed + config.seeds):
        parts[f"adapting, seed {seed}"] = partial(adapt_all, config, folder.path, seed)
    return folder.measured(parts)


LAB = Lab(
    name="sinklora-context",
    about=About(
        title="SinkLoRA: Enhanced Efficiency and Chat Capabilities for Long-Context Large Language Models",
        authors="Zhang",
        venue="arXiv 2024",
        arxiv="2406.05678",
        read="the paper in translation, and LongLoRA's code, dvlab-research/LongLoRA at d4eb344 (Apache-2.0)",
        differs="a decoder of a tenth of a million parameters on bytes of Python's source, adapted from 128 "
        "tokens to 256, where the paper adapts 7 billion from 4,096 to 8,192; sinks see what comes before "
        "them alone. From where the paper counts a gain is not read; here from the decoder before it is "
        "adapted. Lengths, steps and rate were chosen in trials of full attention alone",
        status="after",
    ),
    claim="Adapted to a longer context by LoRA, with embeddings and norms trained beside it, a model that "
    "attends in groups, a quarter of its heads shifted, with sinks (SF-Attn) reaches 92 % of the gain in "
    "perplexity that full attention reaches, where LongLoRA's S2-Attn reaches 39 % (the paper's figures).",
    control="The same decoder adapted with full attention, with S2-Attn, with S2-Attn in its wrapped form, "
    "whose first positions see the last, and not at all. Weights at first, sequences, order, updates' draws "
    "and rates are the same, and all are judged by full attention.",
    rule=RULE,
    config=SinkloraContextConfig,
    tiny=SinkloraContextConfig(
        short=16,
        dim=16,
        depth=1,
        tokens=64,
        base_steps=2,
        steps=2,
        judged=2,
        leak_steps=2,
        leak_seeds=1,
        seeds=2,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
