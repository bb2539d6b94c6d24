"""The laboratory of gating by a token mixer: equal sizes, what an image costs, and its rule."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.analysis.cost import total_macs
from qna.labs.ninformer_gate.config import NiNformerGateConfig
from qna.labs.ninformer_gate.networks import (
    ATTENTION,
    CONTROLS,
    GATED,
    MIXER,
    attention_macs,
    build,
    parameters,
)
from qna.labs.ninformer_gate.verdict import made_up, verdict
from qna.mixers import MixerGating2d

IMAGE = torch.Size((1, 28, 28))
CONFIG = NiNformerGateConfig()


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_are_just_as_large(name):
    ours = parameters(build(GATED, CONFIG, IMAGE, 10))
    control = build(name, CONFIG, IMAGE, 10)
    mlps = [block.mlp_channels if name == MIXER else block.mlp for block in control.blocks]
    # one hidden channel less in every MLP is too few: a row of weights, a column and a bias
    less = len(mlps) * (2 * CONFIG.dim + 1 + (2 * 49 + 1) * (name == MIXER))
    assert ours <= parameters(control) < ours + less
    assert len(mlps) == CONFIG.control_depth
    assert control(torch.zeros(2, *IMAGE)).shape == (2, 10)


def test_the_mixer_of_timm_is_the_one_in_the_gate():
    theirs = build(MIXER, CONFIG, IMAGE, 10).blocks[0].double()
    ours = MixerGating2d(CONFIG.dim, map_size=7, hidden=theirs.mlp_channels.fc1.out_features).double()
    pairs = {"token_norm": "norm1", "token_mlp": "mlp_tokens", "channel_norm": "norm2"}
    for mine, its in {**pairs, "channel_mlp": "mlp_channels"}.items():
        ours.get_submodule(mine).load_state_dict(theirs.get_submodule(its).state_dict())
    for norm in (ours.token_norm, ours.channel_norm):
        norm.eps = 1e-6
    x = torch.randn(2, 7, 7, CONFIG.dim, dtype=torch.float64)
    torch.testing.assert_close(ours.gate(x).flatten(1, 2), theirs(x.flatten(1, 2)), rtol=1e-10, atol=1e-10)


def test_multiply_adds_by_hand():
    config = NiNformerGateConfig(dim=16, hidden=24, depth=2, control_depth=3)
    ours = build(GATED, config, IMAGE, 10)
    assert total_macs(ours, (1, *IMAGE)) == 49 * 16 * 16 + 2 * 49 * 16 * (6 * 24 + 16) + 160
    vit = build(ATTENTION, config, IMAGE, 10)
    hidden = vit.blocks[0].mlp.fc1.out_features
    told = total_macs(vit, (1, *IMAGE)) + attention_macs(config, IMAGE)
    assert told == 49 * 16 * 16 + 3 * (50 * (4 * 256 + 32 * hidden) + 2 * 50 * 50 * 16) + 160


def test_the_rule():
    assert verdict(made_up(above=0.3)).word == "held"
    assert verdict(made_up(above=0.19)).word == "direction only"
    assert verdict(made_up(count=95_000)).word == "not seen"
    # above attention and below the MLP-Mixer
    assert verdict(made_up(above=-0.5)).word == "not seen"
    without = {case: {GATED: at[GATED], MIXER: at[MIXER]} for case, at in made_up().items()}
    assert "missing" in verdict(without).figures


def test_what_cannot_be_is_said():
    with pytest.raises(InvalidInput, match="control_depth must be at least 1"):
        NiNformerGateConfig(control_depth=0)
    with pytest.raises(InvalidInput, match="dim must be a multiple of 16"):
        NiNformerGateConfig(dim=20)
