"""Whether a few proxy heads find the blocks that all heads attend, and what reading these alone saves."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from qna.labs.proxyattn_prefill.config import ProxyattnPrefillConfig
from qna.labs.proxyattn_prefill.network import train
from qna.labs.proxyattn_prefill.picture import draw
from qna.labs.proxyattn_prefill.recall import recall_of_text
from qna.labs.proxyattn_prefill.timing import time_length
from qna.labs.proxyattn_prefill.verdict import EXAMPLES, RULE, verdict
from qna.labs.row import Lab, LabFolder, Metrics
from qna.mixers import MIXERS


def run(config: ProxyattnPrefillConfig, folder: LabFolder) -> Metrics:
    """A part for the network, then for each length and text, and for the times of each length."""
    parts = {"network": partial(train, config, folder.path)}
    for length in config.lengths:
        for text in range(config.texts):
            parts[f"text {text} of {length}"] = partial(recall_of_text, config, folder.path, length, text)
    for length in config.lengths:
        parts[f"times at {length}"] = partial(time_length, config, folder.path, length)
    return folder.measured(parts)


LAB = Lab(
    name="proxyattn-prefill",
    about=replace(
        MIXERS["ProxyAttention1d"].about,
        differs="a decoder of 771,328 parameters, trained at 512 tokens and read far beyond that, in the "
        "place of models of 7 and 8 billion. In a first run it was trained for 200 steps, nearly all blocks "
        "were needed and all choosers were alike; so it is trained longer now, by the rule as it stood, and "
        "blocks that are always kept no longer count in the budget. Times were taken in turns while other "
        "programs ran",
    ),
    claim="Heads attend alike, so one proxy head that is the mean of many finds the blocks that matter to "
    "all; reading a prompt by these blocks makes attention up to 10.3 times as fast (256k tokens) at nearly "
    "the quality of full attention, with 61 to 80 % of the blocks skipped (the paper's tables, Llama-3.1-8B "
    "and Qwen2.5-7B).",
    control="Full attention, by torch's fused form and by the same kernel over all blocks; and as many "
    "blocks in each row of each head, drawn, or the first and the last ones, at no cost of choice. All of "
    "one small decoder's queries and keys in the same texts: it was trained at a short context, and "
    "positions are interpolated to it.",
    rule=RULE,
    config=ProxyattnPrefillConfig,
    tiny=ProxyattnPrefillConfig(
        model="decoder_pico",
        context=64,
        steps=2,
        batch=2,
        lengths=(256, 512),
        texts=1,
        block=16,
        least=32,
        gamma=0.5,
        queries=32,
        seconds=0.01,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
