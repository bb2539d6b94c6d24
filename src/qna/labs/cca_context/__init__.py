"""Whether core tokens save time and memory of long prompts, and what they cost of text."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from qna.labs.cca_context.config import CcaContextConfig
from qna.labs.cca_context.picture import draw
from qna.labs.cca_context.times import time_prompt
from qna.labs.cca_context.training import train_all
from qna.labs.cca_context.verdict import EXAMPLES, RULE, verdict
from qna.labs.row import Lab, LabFolder, Metrics
from qna.mixers import MIXERS


def run(config: CcaContextConfig, folder: LabFolder) -> Metrics:
    """A part for each prompt that is timed, and one for each seed."""
    parts = {f"prompt of {length}": partial(time_prompt, config, length) for length in config.prompts}
    for seed in range(config.seed, config.seed + config.seeds):
        parts[f"seed {seed}"] = partial(train_all, config, seed)
    return folder.measured(parts)


LAB = Lab(
    name="cca-context",
    about=replace(
        MIXERS["CoreContextAttention1d"].about,
        differs="the paper goes on from LLaMA2-7B with prompts of 32,000 and more on a graphics processor; "
        "times here are of one core and decoders of two blocks with random weights, and text is read by "
        "decoders of three blocks in windows of 512 bytes, with 16 positions one by one and groups of 8. "
        "Sizes were chosen after a trial of one seed; the times at 16,384 positions look disturbed, for all "
        "alike, and stand as they were taken",
    ),
    claim="With core tokens the first token behind 32,000 positions is there in less than a third of the "
    "time (2.59 s for 9.15 s), memory is about a half (19.12 for 35.58 GB), and after a short fine-tuning "
    "quality is that of full attention (21.86 for 22.11 on LongBench-E), where windows with sinks lose "
    "(14.95; the paper's table).",
    control="The same decoder with full attention, by torch's fused kernel, and with windows, with and "
    "without sinks, whose caches are no smaller than what core tokens keep. All go on from the same network, "
    "that learned with full attention, on the same text for as many steps.",
    rule=RULE,
    config=CcaContextConfig,
    tiny=CcaContextConfig(
        dim=32,
        depth=1,
        heads=2,
        steps=2,
        tuned=1,
        batch=2,
        length=32,
        text=20_000,
        judged=2,
        window=4,
        group=4,
        sinks=1,
        prompts=(32, 64),
        time_dim=32,
        time_depth=1,
        time_heads=2,
        time_window=8,
        time_group=4,
        seconds=0.001,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
