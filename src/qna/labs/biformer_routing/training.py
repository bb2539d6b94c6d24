"""Training the networks, and what part of the images that they have not seen each gets right."""

from __future__ import annotations

from qna._core.seeds import derive_seed, seeded
from qna.analysis.cost import total_macs
from qna.data import load_data
from qna.labs import classifying
from qna.labs.biformer_routing.config import BiFormerRoutingConfig
from qna.labs.biformer_routing.networks import CONTENDERS, build
from qna.labs.paired import case_of
from qna.labs.row import Figure

# what cases are named after
ACCURACY = "accuracy"


def train_all(config: BiFormerRoutingConfig, seed: int, rate: float) -> list[Figure]:
    """Train every contender alike, on the same images in the same order, and measure each."""
    data = load_data(config.data, config.data_dir)
    train, held_out = classifying.drawn(data, config.images, config.held_out, seed)
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs, "topk": config.topk}
    about |= {"regions": config.regions, "trained_on": len(train), "held_out": len(held_out)}
    channels, size = train.pixels.shape[1:3]
    names = ("dim", "blocks", "patch_size", "regions", "topk")
    sizes = {name: getattr(config, name) for name in names}
    figures = []
    for name in CONTENDERS:
        with seeded(derive_seed(seed, "weights")):
            network = build(name, channels=channels, size=size, **sizes)
        classifying.train(network, train, epochs=config.epochs, batch=config.batch, rate=rate, seed=seed)
        measured = {
            ("train", "top1", "%"): classifying.top1(network, held_out),
            ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
            ("none", "macs", "MMAC"): total_macs(network, (1, channels, size, size)) / 1e6,
        }
        case = case_of(ACCURACY, seed, rate)
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures
