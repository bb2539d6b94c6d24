"""A new mixer costs one class and one row, and is found everywhere."""

import pytest
import torch

import qna
from qna.bench.measure.contender import BACKWARD, Setting
from qna.bench.measure.gate import verify
from qna.bench.subjects.peers import registered as peers
from qna.cli import list as listing
from qna.cli import main
from qna.mixers import MIXERS
from qna.models import create
from tests.mixers import contract, toy


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(MIXERS, toy.ROW.name, toy.ROW)


@pytest.mark.parametrize("clause", contract.clauses_of(toy.ROW))
def test_it_meets_the_contract(clause):
    contract.hold(toy.ROW, clause)


def test_it_is_created_listed_and_documented(registered, capsys):
    assert isinstance(qna.create_mixer("Shift2d", 4, steps=2), toy.Shift2d)
    assert main(["list", "mixers"]) == 0
    assert "Shift2d" in capsys.readouterr().out
    assert "| `Shift2d` | A toy (Nobody; nowhere) | after | nothing |  |" in listing.page()


def test_it_is_measured_beside_the_others(registered):
    setting = Setting(batch=1, height=5, width=6, dim=8, window=3, heads=2)
    peer = peers.peer_of("Shift2d")
    assert peer.declines(setting, "layer", BACKWARD) is None
    verify(peer.build(setting, "layer"), BACKWARD)


def test_a_backbone_is_made_of_it(registered):
    network = create("qna_vit_nano_16", mixers="Shift2d", num_classes=3)
    assert sum(isinstance(module, toy.Shift2d) for module in network.modules()) == 4
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 3)
