"""Training decoders to say what they read, and asking them at that length and beyond."""

from __future__ import annotations

from collections.abc import Sequence

from qna.data.text import Drawn
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.small_decoder import right, small_decoder, train
from qna.labs.titans_recall.config import TitansRecallConfig
from qna.labs.titans_recall.networks import NEEDLE, RECALL, mixers_of


def case_at(task: str, times: int, seed: int, rate: float) -> str:
    """The case of a task at so many lengths of training."""
    return case_of(f"{task}-x{times}", seed, rate)


def train_all(config: TitansRecallConfig, names: Sequence[str], seed: int) -> list[Figure]:
    """Train these decoders on the same sequences, and count right answers of both tasks at every length."""
    either, figures = config.either, []
    # so many that none comes twice
    data = Drawn(either, config.length, 10**9, f"trained on {seed}")
    about = {"seed": seed, "lr": config.rate, "steps": config.steps, "batch": config.batch}
    for name in names:
        network = small_decoder(config, mixers_of(config, name), either.vocabulary, seed)
        train(network, data, steps=config.steps, batch=config.batch, rate=config.rate, seed=seed)
        parameters = sum(p.numel() for p in network.parameters())
        for task, kind in ((RECALL, either.recall), (NEEDLE, either.needle)):
            for times in config.times:
                length = times * config.length
                case = case_at(task, times, seed, config.rate)
                measured = {
                    ("train", "right", "%"): right(network, kind, length, config.judged, seed),
                    ("none", "state", "bytes"): network.state_bytes((1, length)),
                    ("none", "parameters", "1"): parameters,
                }
                extra = {**about, "data": str(kind), "length": length}
                figures += [Figure(case, name, *what, value, extra=extra) for what, value in measured.items()]
    return figures
