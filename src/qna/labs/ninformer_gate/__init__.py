"""Whether blocks whose gate is a token mixer beat an MLP-Mixer and a vision transformer of their size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qna.labs import paired
from qna.labs.ninformer_gate.config import NiNformerGateConfig
from qna.labs.ninformer_gate.networks import NETWORKS
from qna.labs.ninformer_gate.training import train_all
from qna.labs.ninformer_gate.verdict import EXAMPLES, RULE, TOP1, verdict
from qna.labs.paired import parts_of
from qna.labs.row import Lab, LabFolder, Metrics
from qna.mixers import MIXERS


def run(config: NiNformerGateConfig, folder: LabFolder) -> Metrics:
    """A part for each seed and learning rate, in which every network is trained."""
    return folder.measured(parts_of(config, train_all))


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a dot for each seed of each network, to the PNG at `path` and an SVG beside it."""
    best = paired.best_of(metrics, NETWORKS, TOP1)
    title = "A token mixer as a gate, beside an MLP-Mixer and attention, at equal parameters"
    paired.draw(path, best, note, title=title, xlabel="held-out images right, %")


LAB = Lab(
    name="ninformer-gate",
    about=replace(
        MIXERS["MixerGating2d"].about,
        differs="the authors train for a hundred epochs on MNIST and CIFAR with dropout of 0.5; these are "
        "small networks that see a few thousand images a few times, without dropout: how fast they learn, "
        "not what they could reach",
    ),
    claim="A block whose gate is made by a token mixer is more accurate than MLP-Mixer and the vision "
    "transformer on small images.",
    control="An MLP-Mixer and a vision transformer by timm, of as many channels. Their MLPs are as wide as "
    "it takes to have no fewer parameters. Images, their order, epochs, rates and optimiser are the same.",
    rule=RULE,
    config=NiNformerGateConfig,
    tiny=NiNformerGateConfig(
        data="digits",
        images=32,
        held_out=16,
        dim=16,
        hidden=16,
        depth=1,
        control_depth=1,
        patch_size=2,
        epochs=1,
        batch=16,
        rates=(4e-3,),
        seeds=2,
    ),
    run=run,
    verdict=verdict,
    examples=EXAMPLES,
    picture=draw,
)
