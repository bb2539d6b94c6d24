"""The laboratory of blocks with a halo: layers that differ in two sizes, its rule, what is refused."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.seeds import seeded
from qna.labs.halo_blocks.config import HaloBlocksConfig
from qna.labs.halo_blocks.layers import CASE
from qna.labs.halo_blocks.networks import CENTRED, CONTENDERS, HALO, NARROW, WIDE, attention, build
from qna.labs.halo_blocks.verdict import made_up, verdict

CONFIG = HaloBlocksConfig(width=8, blocks=1)


def made(name):
    with seeded(0):
        return build(name, CONFIG, torch.Size((1, 28, 28)), 10)


def test_networks_differ_in_the_rows_of_embeddings_alone():
    states = {name: made(name).state_dict() for name in CONTENDERS}
    for name in (CENTRED, WIDE, NARROW):
        assert states[name].keys() == states[HALO].keys()
        differ = {key for key, t in states[name].items() if t.shape != states[HALO][key].shape}
        assert all(key.endswith("embedding") for key in differ)


def test_halo_and_wide_blocks_have_as_many_keys_and_a_centred_window_one_more_per_axis():
    windows = {name: attention(name, 8, 4).window for name in CONTENDERS}
    assert windows == {HALO: 8, CENTRED: 9, WIDE: 8, NARROW: 4}
    assert attention(HALO, 8, 4).block_size == attention(NARROW, 8, 4).block_size


def test_what_a_position_sees():
    """Of a map of 16 x 16: what a query in a block's corner attends."""
    seen = {}
    for name in CONTENDERS:
        layer, x = attention(name, 8, 4).double(), torch.randn(1, 16, 16, 8).double().requires_grad_()
        (grad,) = torch.autograd.grad(layer(x)[0, 8, 8].square().sum(), x)
        rows = grad.abs().amax((0, 2, 3)).nonzero().flatten()
        seen[name] = (rows.min().item(), rows.max().item())
    assert seen == {HALO: (6, 13), CENTRED: (4, 12), WIDE: (8, 15), NARROW: (8, 11)}


@pytest.mark.parametrize(
    ("above", "word"),
    [
        ({"centred": 0.3, "none": 0.3}, "held"),
        ({"centred": 0.1, "none": 0.3}, "direction only"),
        ({"centred": 0.3, "none": 0.1}, "direction only"),
        ({"centred": -0.3, "none": 0.3}, "not seen"),
        ({"centred": 0.3, "none": -0.1}, "not seen"),
        ({"centred": 0.3, "none": 0.3, "cost": 0.9}, "not seen"),
    ],
)
def test_the_rule(above, word):
    assert verdict(made_up(**above)).word == word


def test_of_those_without_a_halo_the_better_counts():
    metrics = dict(made_up())
    for case, at in metrics.items():
        if case != CASE:
            at[NARROW]["train top1"] = 85.0
    assert verdict(metrics).word == "not seen"


def test_without_costs_or_seeds_nothing_is_seen():
    metrics = made_up()
    assert verdict({case: at for case, at in metrics.items() if case != CASE}).word == "not seen"
    assert verdict({case: at for case, at in metrics.items() if "seed0" not in case}).word == "not seen"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"width": 12}, "width must be a multiple of 8, got 12"),
        ({"block_size": 3}, "block_size must be even, of at least 2, got 3"),
        ({"seconds": 0.0}, "seconds must be above 0, got 0"),
        ({"rates": (1e-3, 1e-3)}, "rates must be positive and differ"),
        ({"minutes": 0.0}, "minutes must be above 0, got 0"),
    ],
)
def test_what_cannot_be_tried_is_refused(options, says):
    with pytest.raises(InvalidInput, match=says):
        HaloBlocksConfig(**options)
