"""Training the networks alike, and what part of unseen images each gets right."""

from __future__ import annotations

from qna._core.seeds import derive_seed, seeded
from qna.analysis.cost import total_macs
from qna.data import load_data
from qna.labs import classifying
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.sasa_stages.config import SasaStagesConfig
from qna.labs.sasa_stages.network import StagedResNet

# what cases are named after
ACCURACY = "accuracy"
NETWORKS = LATE, CONTROL, EARLY = "attention-late", "convolution", "attention-early"


def attending(name: str, stages: int) -> tuple[int, ...]:
    """The stages that attend: early the first, late all but the first."""
    late = tuple(range(1, stages))
    return {LATE: late, CONTROL: (), EARLY: (0,)}[name]


def train_all(config: SasaStagesConfig, seed: int, rate: float) -> list[Figure]:
    """Train every network alike, and measure each."""
    data = load_data(config.data, config.data_dir)
    train, held_out = classifying.drawn(data, config.images, config.held_out, seed)
    classes = int(max(train.labels.max(), held_out.labels.max())) + 1
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train), "held_out": len(held_out)}
    size = train.pixels.shape[1:]
    figures = []
    for name in NETWORKS:
        stages = attending(name, len(config.widths))
        with seeded(derive_seed(seed, "weights")):
            network = StagedResNet(size[0], classes, config.widths, stages, config.window)
        classifying.train(network, train, epochs=config.epochs, batch=config.batch, rate=rate, seed=seed)
        measured = {
            ("train", "top1", "%"): classifying.top1(network, held_out),
            ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
            ("none", "macs", "MMAC"): total_macs(network, (1, *size)) / 1e6,
        }
        case = case_of(ACCURACY, seed, rate)
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures
