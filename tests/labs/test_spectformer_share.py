"""The laboratory of spectral and attending blocks: networks that differ in one thing, its rule."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.seeds import seeded
from qna.labs.spectformer_share.config import SpectFormerShareConfig
from qna.labs.spectformer_share.networks import ATTENTION, CONTENDERS, MIXED, SPECTRAL, build
from qna.labs.spectformer_share.verdict import made_up, verdict
from qna.mixers import FullAttention2d, SpectralGating2d

CONFIG = SpectFormerShareConfig(dim=16, depth=3, spectral=1)
IMAGE = torch.Size((1, 28, 28))


def made(name, config=CONFIG):
    with seeded(0):
        return build(name, config, IMAGE, 10)


def test_the_first_blocks_are_spectral_and_the_others_attend():
    kinds = {
        name: [type(stage[0].mixer) for stage in made(name, SpectFormerShareConfig(dim=16)).stages]
        for name in CONTENDERS
    }
    assert kinds == {
        MIXED: [SpectralGating2d] * 2 + [FullAttention2d] * 4,
        ATTENTION: [FullAttention2d] * 6,
        SPECTRAL: [SpectralGating2d] * 6,
    }


def test_networks_differ_in_mixers_alone():
    states = {name: made(name).state_dict() for name in CONTENDERS}
    rest = [{k: v.shape for k, v in state.items() if ".mixer." not in k} for state in states.values()]
    assert rest[0] == rest[1] == rest[2]
    sizes = {name: sum(p.numel() for p in made(name).parameters()) for name in CONTENDERS}
    # four linear maps with their biases against 7 x 4 complex numbers a channel
    per_block = 4 * 16 * 17 - 2 * 7 * 4 * 16
    assert sizes[ATTENTION] - sizes[MIXED] == per_block
    assert sizes[MIXED] - sizes[SPECTRAL] == 2 * per_block


def test_the_rule():
    assert verdict(made_up({ATTENTION: 0.25, SPECTRAL: 0.25})).word == "held"
    assert verdict(made_up({ATTENTION: 5.0, SPECTRAL: 0.15})).word == "direction only"
    assert verdict(made_up({ATTENTION: 0.15, SPECTRAL: 5.0})).word == "direction only"
    assert verdict(made_up({ATTENTION: -0.1, SPECTRAL: 5.0})).word == "not seen"
    assert verdict(made_up({ATTENTION: 5.0, SPECTRAL: -0.1})).word == "not seen"
    alone = {
        case: {name: figures for name, figures in found.items() if name != SPECTRAL}
        for case, found in made_up({ATTENTION: 5.0, SPECTRAL: 5.0}).items()
    }
    assert verdict(alone).word == "not seen"
    assert "missing" in verdict(alone).figures


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"spectral": 0}, "of depth=6 blocks some must be spectral and some not, got spectral=0"),
        ({"spectral": 6}, "got spectral=6"),
        ({"dim": 24}, "dim must be a multiple of 16, got 24"),
        ({"patch_size": 0}, "patch_size must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_tried_is_refused(options, says):
    with pytest.raises(InvalidInput, match=says):
        SpectFormerShareConfig(**options)
