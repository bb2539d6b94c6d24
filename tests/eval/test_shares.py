"""Shares of answers: each made once, in order, whoever makes it; what has changed is made anew."""

import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from qna.eval import Guess, ImageView, Prediction, Shares, key_of


@pytest.fixture
def asked():
    return []


@pytest.fixture
def shares(tmp_path, asked):
    def answer(entries):
        for entry in entries:
            asked.append(entry.path)
            yield replace(entry, guesses=(Guess(1, "é", 0.1 + 0.2), Guess(0, "\udcff", 1e-300)))

    return Shares(tmp_path / "kept", 3, "key", answer, Prediction)


@pytest.fixture
def found(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for path in paths:
        path.write_bytes(b"picture")
    return [
        *(Prediction(str(path)) for path in paths),
        Prediction("gone\udcff.png"),
        Prediction("x", error="why"),
    ]


def test_what_is_kept_comes_back_as_it_was(shares, found, asked):
    first = list(shares.all(found))
    assert [p.path for p in first] == [p.path for p in found]
    assert len(asked) == 12
    assert list(shares.all(iter(found))) == first
    assert len(asked) == 12
    assert len(list(shares.folder.iterdir())) == 4


def test_processes_take_turns_and_leave_nothing_to_do(shares, found, asked):
    assert list(shares.work(found, rank=1, count=3)) == [3]
    assert asked == [p.path for p in found[3:6]]
    assert list(shares.work(found, rank=0, count=3)) == [3, 3]
    assert list(shares.work(found, rank=2, count=3)) == [3]
    assert sorted(asked) == sorted(p.path for p in found)
    asked.clear()
    assert [p.path for p in shares.all(found)] == [p.path for p in found]
    assert not asked


def test_what_has_changed_is_asked_again(shares, found, asked):
    before = list(shares.all(found))
    asked.clear()
    os.utime(found[4].path, (1, 1))
    assert list(shares.all(found)) == before
    assert asked == [p.path for p in found[3:6]]
    asked.clear()
    # another network
    list(replace(shares, key="other").all(found))
    assert len(asked) == 12
    asked.clear()
    # a new image moves all that follow
    list(shares.all([*found[:3], Prediction("new"), *found[3:]]))
    assert asked == ["new", *(p.path for p in found[3:])]


def test_a_damaged_file_is_made_again(shares, found, asked):
    before = list(shares.all(found))
    asked.clear()
    for path, content in zip(shares.folder.iterdir(), (b"", b"[" * 10**5, b'[{"path": 1}]'), strict=False):
        path.write_bytes(content)
    assert list(shares.all(found)) == before
    assert len(asked) == 9
    asked.clear()
    # of other kinds, of another share, numbers that are none
    kept = [path.read_text() for path in sorted(shares.folder.iterdir())]
    spoiled = (
        kept[0].replace("0.30000000000000004", '"0.3"'),
        kept[2],
        kept[1],
        kept[3].replace("1e-300", "NaN"),
    )
    for path, content in zip(sorted(shares.folder.iterdir()), spoiled, strict=True):
        path.write_text(content)
    assert list(shares.all(found)) == before
    assert len(asked) == 12
    shares.remove()
    assert not shares.folder.exists()


def test_an_answer_that_no_longer_stands_is_asked_again(shares, found, asked):
    before = list(shares.all(found))
    asked.clear()
    watched = replace(shares, stands=lambda answer: answer.path != found[4].path)
    assert list(watched.all(found)) == before
    assert asked == [p.path for p in found[3:6]]


def test_the_key_tells_networks_and_facts_apart():
    def network(seed=0):
        torch.manual_seed(seed)
        return nn.Conv2d(1, 2, 1).bfloat16()

    view = ImageView(8, (0.0,), (1.0,))
    assert key_of(network(), view, ("a", "b"), 2) == key_of(network(), view, ("a", "b"), 2)
    keys = [
        key_of(network(), view, ("a", "b"), 2),
        key_of(network(), view, ("a", "b"), 1),
        key_of(network(), view, ("a", "c"), 2),
        key_of(network(), replace(view, mean=(0.5,)), ("a", "b"), 2),
        key_of(network(1), view, ("a", "b"), 2),
        key_of(network(1).float(), view, ("a", "b"), 2),
    ]
    assert len(set(keys)) == len(keys)
