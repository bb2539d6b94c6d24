"""The laboratory of shifted windows: networks that differ in one thing, its rule, what is refused."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.seeds import seeded
from qna.analysis.cost import total_macs
from qna.labs.swin_shift.config import SwinShiftConfig
from qna.labs.swin_shift.networks import CONTENDERS, SHIFTED, UNSHIFTED, WHOLE, build
from qna.labs.swin_shift.verdict import ABLATION

CONFIG = SwinShiftConfig(dim=16, blocks=2)


def made(name):
    with seeded(0):
        return build(name, CONFIG, torch.Size((1, 28, 28)), 10)


def test_shifts_change_neither_parameters_nor_multiply_adds():
    networks = {name: made(name) for name in CONTENDERS}
    states = {name: network.state_dict() for name, network in networks.items()}
    assert states[SHIFTED].keys() == states[UNSHIFTED].keys()
    assert all(torch.equal(states[SHIFTED][key], states[UNSHIFTED][key]) for key in states[SHIFTED])
    macs = {name: total_macs(network, (1, 1, 28, 28)) for name, network in networks.items()}
    assert macs[SHIFTED] == macs[UNSHIFTED] < macs[WHOLE]


def test_shifts_alone_connect_windows():
    """Which of 14 x 14 positions one is made of: its window of 4 x 4; the four of its shifted one; all."""
    seen = {}
    for name in CONTENDERS:
        network, x = made(name).double(), torch.randn(1, 1, 28, 28).double().requires_grad_()
        # zeros of tables would not hide a position, equal weights of a norm would
        (grad,) = torch.autograd.grad(network.forward_features(x)[0, 7, 7].square().sum(), x)
        seen[name] = (grad.reshape(14, 2, 14, 2).abs().amax((1, 3)) > 0).sum().item()
    assert seen == {UNSHIFTED: 16, SHIFTED: 64, WHOLE: 196}


def test_a_gain_that_is_paid_for_does_not_count():
    assert ABLATION.verdict(ABLATION.made_up(1.0)).word == "held"
    assert ABLATION.verdict(ABLATION.made_up(1.0, macs=3.1)).word == "not seen"


def test_the_verdict_tells_all_three():
    told = ABLATION.verdict(ABLATION.made_up(1.0, beside_macs=9.0)).figures
    assert "shifted 81.00 %, 3.00 million multiply-adds; unshifted 80.00 %" in told
    assert "(difference +1.00, standard error 0.10, 2 seeds); whole-map 81.00 %, 9.00 million" in told


def test_one_seed_is_no_figure():
    one = {case: at for case, at in ABLATION.made_up(1.0).items() if "seed0" in case}
    assert ABLATION.verdict(one).word == "not seen"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"dim": 24}, "dim must be a multiple of 16, got 24"),
        ({"blocks": 1}, "nothing to shift in blocks=1 of window=4"),
        ({"window": 1}, "nothing to shift in blocks=4 of window=1"),
        ({"rates": (1e-3, 1e-3)}, "rates must be positive and differ"),
        ({"minutes": 0.0}, "minutes must be above 0, got 0"),
    ],
)
def test_what_cannot_be_tried_is_refused(options, says):
    with pytest.raises(InvalidInput, match=says):
        SwinShiftConfig(**options)
