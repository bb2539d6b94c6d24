import math

import pytest
import torch
from torch import nn

from qna.mixers import QnA2d
from qna.train.config import OptimOptions
from qna.train.optimizer import build_optimizer, decay_groups, learning_rate


class Small(nn.Module):
    """A mixer, a norm, and a parameter that is exempt by its last part."""

    def __init__(self):
        super().__init__()
        self.mixer = QnA2d(8, num_heads=2, kernel_size=3, bias=True)
        self.norm = nn.LayerNorm(8)
        self.deep = nn.ParameterDict({"pos_embed": nn.Parameter(torch.zeros(3))})
        self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)

    def no_weight_decay(self):
        return {"mixer.position.table"} | {f"mixer.{n}" for n in self.mixer.no_weight_decay()} | {"pos_embed"}


def test_tables_are_exempt_and_all_else_decays():
    network = Small()
    names = {id(p): n for n, p in network.named_parameters()}
    decayed, exempt = decay_groups(network, 0.05)
    assert decayed["weight_decay"] == 0.05
    assert exempt["weight_decay"] == 0
    assert {names[id(p)] for p in exempt["params"]} == {
        "mixer.project.position.table",
        "mixer.project.query_weight.table",
        "deep.pos_embed",
    }
    # queries, biases and norm scales decay, as in the paper's training
    assert {names[id(p)] for p in decayed["params"]} == {
        "mixer.project.query",
        "mixer.project.key",
        "mixer.project.value.weight",
        "mixer.project.value.bias",
        "mixer.out.weight",
        "mixer.out.bias",
        "norm.weight",
        "norm.bias",
    }


def test_a_network_that_exempts_nothing_has_one_group():
    (group,) = decay_groups(nn.Linear(2, 2), 0.1)
    assert len(group["params"]) == 2


def test_decay_acts_on_the_decayed_alone():
    network = Small()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    optimizer = build_optimizer(network, OptimOptions(weight_decay=0.5))
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    table = network.mixer.project.position.table
    assert torch.equal(table, torch.ones_like(table))
    torch.testing.assert_close(network.norm.weight, torch.full((8,), 1 - 0.1 * 0.5))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (5, 1.0),
        (10, 2.0),
        (60, 1.0),
        (35, 1 + math.cos(math.pi / 4)),
        (110, 0.0),
        (999, 0.0),
    ],
)
def test_rate_rises_linearly_and_falls_as_a_cosine(step, expected):
    assert learning_rate(step, peak=2.0, warmup=10, total=110) == pytest.approx(expected, abs=1e-12)


def test_rate_without_warm_up_starts_at_the_peak():
    assert learning_rate(0, peak=2.0, warmup=0, total=10) == 2.0
