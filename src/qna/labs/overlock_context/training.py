"""Training the networks alike, and how far the last map of each sees as images grow."""

from __future__ import annotations

from qna.analysis.cost import total_macs
from qna.analysis.receptive_field import receptive_field
from qna.data import load_data
from qna.data.images.labelled import TensorImages
from qna.labs import classifying
from qna.labs.overlock_context.config import OverLoCKContextConfig
from qna.labs.overlock_context.networks import NETWORKS, build, enlarged
from qna.labs.paired import case_of
from qna.labs.row import Figure

# what cases are named after
CONTEXT = "context"
# of all strength, what the side of a receptive field holds
SHARE = 0.9
# held-out images on which a field is measured, and draws of signs for each
_SAMPLES, _DRAWS = 4, 4


def train_all(config: OverLoCKContextConfig, seed: int, rate: float) -> list[Figure]:
    """Train every network, judge it, and measure its receptive field on images of growing size."""
    data = load_data(config.data, config.data_dir)
    small = classifying.drawn(data, config.images, config.held_out, seed)
    train, held_out = (TensorImages(enlarged(p.pixels, config.image_size), p.labels) for p in small)
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train), "held_out": len(held_out), "image_size": config.image_size}
    size = train.pixels.shape[1:]
    figures = []
    for name in NETWORKS:
        network = build(name, channels=size[0], seed=seed)
        classifying.train(network, train, epochs=config.epochs, batch=config.batch, rate=rate, seed=seed)
        measured = {
            ("train", "top1", "%"): classifying.top1(network, held_out),
            ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
            ("none", "macs", "MMAC"): total_macs(network, (1, *size)) / 1e6,
        }
        for pixels in config.fields:
            images = classifying.scaled(enlarged(small[1].pixels[:_SAMPLES], pixels))
            field = receptive_field(network, images, draws=_DRAWS, seed=seed)
            measured["none", f"field-{pixels}", "px"] = field.side(SHARE)
        case = case_of(CONTEXT, seed, rate)
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures
