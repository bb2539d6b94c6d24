"""Runs become rows: the order, what is not run twice, multiply-adds, and runs that fail."""

import json
from functools import cache

import pytest
import torch

import qna.models  # noqa: F401 - before timm, whose import needs a repair
from qna._core.errors import InvalidInput, UnknownName
from qna.analysis.cost import total_macs
from qna.bench.measure.machine import Stamp
from qna.bench.subjects import accuracy
from qna.bench.subjects.accuracy import ENTRANTS, RECIPES, Run, planned, row_of, without_measured
from qna.cli.train import parse
from qna.train.tasks.classification import build_classifier

STAMP = Stamp("cpu A", "2.13.0", "abc", "2026-11-20T08:00:00+00:00")


def test_peers_come_before_ablations_and_first_seeds_before_second():
    runs = planned(["cifar10", "fashion-mnist"], ["window-7", "qna"], [0, 1])
    places = [(run.seed, run.entrant, run.data) for run in runs[:4]]
    assert places == [
        (0, "qna", "cifar10"), (0, "qna", "fashion-mnist"), (0, "window-7", "cifar10"),
        (0, "window-7", "fashion-mnist"),
    ]  # fmt: skip
    assert [run.seed for run in runs] == [0] * 4 + [1] * 4
    with pytest.raises(UnknownName, match="unknown entrant 'convnet'; did you mean 'convnext'"):
        planned(["cifar10"], ["convnet"], [0])
    with pytest.raises(UnknownName, match="unknown data 'cifar'"):
        planned(["cifar"], ["qna"], [0])


@pytest.mark.parametrize("data", RECIPES)
@pytest.mark.parametrize("name", ENTRANTS)
def test_entrants_can_be_built_and_have_the_size_of_ours(name, data):
    ours, theirs = counted(data, "qna"), counted(data, name)
    assert all(abs(b / a - 1) < 0.25 for a, b in zip(ours, theirs, strict=True)), (ours, theirs)


@cache
def counted(data, name):
    """Parameters and multiply-adds."""
    (run,) = planned([data], [name], [0])
    config = parse(run.arguments[1:])
    assert config.images.data == data
    channels, size = accuracy.CHANNELS[data], config.images.image_size
    network = build_classifier(config.network, classes=10, channels=channels, image_size=size)
    return sum(p.numel() for p in network.parameters()), accuracy.macs(network, (1, channels, size, size))


def test_multiply_adds_by_hand():
    import timm

    model = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=8, depth=1, num_heads=2)
    n, dim = 5, 8
    block = n * dim * (3 * dim + dim + 4 * dim + 4 * dim) + 2 * n * n * dim
    assert accuracy.macs(model, (1, 3, 32, 32)) == 4 * 3 * 256 * dim + block + dim * 1000
    ours = timm.create_model("qna_vit_nano_16", num_classes=10)
    assert accuracy.macs(ours, (1, 3, 16, 16)) == total_macs(ours, (1, 3, 16, 16))


@pytest.fixture
def finished(tmp_path):
    """What a run of the laptop's recipe leaves, with few figures."""
    config = parse(Run("fashion-mnist", "qna", 3).arguments[1:])
    metrics = {
        "top1": 0.8125, "right": 13, "held_out": 16, "trained_on": 60, "loss": 0.5, "parameters": 268_000,
        "classes": list("abcdefghij"),
    }  # fmt: skip
    (tmp_path / "config.json").write_text(config.to_json())
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    return tmp_path


def test_a_run_becomes_a_row_with_the_command_that_repeats_it(finished):
    run = Run("fashion-mnist", "qna", 3)
    row = row_of(run, finished, STAMP, cpu_seconds=61.23, seconds=75.0)
    assert (row.case, row.provider, row.metric, row.unit, row.p50) == (
        "accuracy-fashion-mnist", "qna", "top1", "%", 81.25,
    )  # fmt: skip
    assert row.extra["command"] == "qna train --recipe fashion-mnist-laptop --seed 3"
    assert (row.extra["seed"], row.extra["cpu_seconds"], row.threads) == (3, 61.2, 1)
    again = [run, Run("fashion-mnist", "qna", 4)]
    assert without_measured(again, [row]) == again[1:]


def test_a_run_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "arguments", ["trian"])
    with pytest.raises(
        InvalidInput, match="ended with 2: qna: unknown command 'trian'; did you mean 'train'"
    ):
        list(accuracy.measure([Run("cifar10", "qna", 0)], tmp_path, {}))
    assert (tmp_path / "cifar10-qna-seed0.log").exists()


@pytest.mark.long
@pytest.mark.slow
def test_a_run_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "digits", "digits")
    monkeypatch.setitem(accuracy.CHANNELS, "digits", 1)
    monkeypatch.setitem(ENTRANTS, "short", accuracy.Entrant("--epochs 1"))
    runs = planned(["digits"], ["short"], [0, 0])
    first, second = accuracy.measure(runs, tmp_path, {})
    assert first.p50 == second.p50 > 20
    assert first.extra["cpu_seconds"] > 0.5
    assert first.extra["held_out"] == 360
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {
        "digits-short-seed0",
        "digits-short-seed0-2",
    }
    assert torch.__version__ == first.torch
