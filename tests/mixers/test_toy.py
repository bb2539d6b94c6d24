"""A new mixer costs one class and one row, and is found everywhere."""

import pytest

import qna
from qna.cli import list as listing
from qna.cli import main
from qna.mixers import MIXERS
from tests.mixers import contract, toy


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(MIXERS, toy.ROW.name, toy.ROW)


@pytest.mark.parametrize("clause", contract.clauses_of(toy.ROW))
def test_it_meets_the_contract(clause):
    contract.hold(toy.ROW, clause)


def test_it_is_created_listed_and_documented(registered, capsys):
    assert isinstance(qna.create_mixer("Shift1d", 4, steps=2), toy.Shift1d)
    assert main(["list", "mixers"]) == 0
    assert "Shift1d" in capsys.readouterr().out
    assert "| `Shift1d` | A toy (Nobody; nowhere) | after | nothing |  |" in listing.page()
