"""Training with full attention, then going on with less of it: what held-out text costs before and after."""

from __future__ import annotations

from qna.labs.cca_context.config import CcaContextConfig
from qna.labs.cca_context.networks import FULL, NETWORKS, mixers_of
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.small_decoder import bits_per_byte, small_decoder, stdlib_text, train

CASE = "text"


def train_all(config: CcaContextConfig, seed: int) -> list[Figure]:
    """Train with full attention, and go on from there with the attention of each contender.

    Bits per byte are those of the second half of each window, before and after the further steps.
    """
    text = stdlib_text(config.text, config.length, (config.length,))
    (held_out,) = text.held_out.parts
    begins = small_decoder(config, mixers_of(config, FULL), text.vocabulary, seed)
    train(begins, text.train, steps=config.steps, batch=config.batch, rate=config.rate, seed=seed)
    case = case_of(CASE, seed, config.rate)
    about = {
        "data": text.name, "seed": seed, "lr": config.rate, "steps": config.steps, "tuned": config.tuned,
        "length": config.length, "near": config.window, "group": config.group, "narrow": config.narrow,
    }  # fmt: skip
    figures = []
    for name in NETWORKS:
        mixers = mixers_of(config, name)
        network = small_decoder(config, mixers, text.vocabulary, seed, like=begins.state_dict())
        as_it_is = bits_per_byte(network, held_out, config.judged, behind=config.length // 2)
        train(
            network,
            text.train,
            steps=config.tuned,
            batch=config.batch,
            rate=config.rate / 3,
            seed=seed + 10**6,
        )
        measured = {
            ("none", "bits-per-byte", "bit"): as_it_is,
            ("train", "bits-per-byte", "bit"): bits_per_byte(
                network, held_out, config.judged, behind=config.length // 2
            ),
            ("none", "state", "bytes"): network.state_bytes((1, config.length)),
        }
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures
