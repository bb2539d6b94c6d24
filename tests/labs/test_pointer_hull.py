"""The laboratory of convex hulls: controls, training that goes on, and its verdict."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.labs.pointer_hull import LAB, FixedVocabulary
from qna.labs.pointer_hull.config import PointerHullConfig
from qna.labs.pointer_hull.training import (
    ATTENDED,
    CONTENDERS,
    FIXED,
    POINTER,
    TRANSFORMER,
    HullLearner,
    build,
    contenders,
    judge,
    stage,
    stages,
)
from qna.labs.pointer_hull.verdict import made_up, split_sizes, verdict
from qna.models.pointer import PointerNetwork

TINY = LAB.tiny


@pytest.mark.parametrize("attends", [False, True])
def test_a_fixed_vocabulary_names_positions(attends):
    torch.manual_seed(0)
    head = FixedVocabulary(6, 4, attends=attends).double()
    query = torch.randn(2, 3, 6, dtype=torch.float64)
    for inputs in (3, 4, 6):
        candidates = torch.randn(2, inputs + 1, 6, dtype=torch.float64)
        mask = torch.ones(2, 1, inputs + 1, dtype=torch.bool)
        mask[1, 0, 2] = False
        logits = head.pointed(query, head.prepare(candidates), mask)
        assert logits.shape == (2, 3, inputs + 1)
        states = query
        if attends:
            scores = head.scores(query, candidates[:, :inputs], mask[:, 0, :inputs])
            states = torch.cat([query, scores.softmax(-1) @ candidates[:, :inputs]], -1)
        names = states @ head.names.weight.T
        named = min(inputs, 4)
        torch.testing.assert_close(logits[0, :, :named], names[0, :, :named])
        torch.testing.assert_close(logits[0, :, -1], names[0, :, -1])
        assert logits[..., named:inputs].isinf().all()
        assert logits[1, :, 2].isinf().all()


def test_contenders_share_encoder_and_decoder():
    sizes = {}
    for name in (POINTER, FIXED, ATTENDED):
        network = build(TINY, name)
        assert isinstance(network, PointerNetwork)
        sizes[name] = sum(
            p.numel() for layer in (network.encoder, network.decoder) for p in layer.parameters()
        )
    assert len(set(sizes.values())) == 1
    assert contenders(TINY) == list(CONTENDERS)
    assert ATTENDED not in contenders(PointerHullConfig())


@pytest.mark.parametrize("name", CONTENDERS)
def test_training_goes_on_as_if_it_had_not_stopped(name, tmp_path):
    whole = HullLearner(TINY, name, tmp_path)
    whole.train_to(3)
    apart = tmp_path / "apart"
    apart.mkdir()
    for end in (1, 3):
        stopped = HullLearner(TINY, name, apart)
        stopped.train_to(end)
    assert stopped.step == 3
    for a, b in zip(whole.network.parameters(), stopped.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_kept_network_that_is_gone_is_trained_again(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    ends = stages(TINY, POINTER)
    for end in ends:
        figures = stage(TINY, POINTER, end, folder)
    (kept,) = folder.iterdir()
    kept.unlink()
    assert [f.p50 for f in stage(TINY, POINTER, ends[-1], folder)][1:] == [f.p50 for f in figures][1:]
    with pytest.raises(InvalidInput, match="ahead of the figures"):
        stage(TINY, POINTER, ends[0], folder)


def test_figures_of_judging(tmp_path):
    figures = {(f.provider, f.metric): f.p50 for f in judge(TINY, 4, tmp_path)}
    assert figures["exact hull", "exact"] == figures["exact hull", "simple"] == 100
    assert figures["exact hull", "coverage"] == pytest.approx(100)
    assert {name for name, metric in figures if metric == "exact"} == {*CONTENDERS, "exact hull"}
    assert 0 <= figures["exact hull", "x-0-3"] < 1


def test_sizes_of_training_are_those_before_a_gap():
    assert split_sizes({5: {}, 6: {}, 7: {}, 20: {}, 50: {}}) == ([5, 6, 7], [20, 50])
    assert split_sizes({}) == ([], [])


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "held"),
        ({"exact": 85.0}, "held"),
        ({"exact": 84.9}, "direction only"),
        ({"simple": 99.0}, "held"),
        ({"simple": 98.9}, "direction only"),
        ({"covered": 99.0}, "direction only"),
        ({"fixed": 84.0}, "held"),
        ({"fixed": 86.0}, "not seen"),
        ({"far": 0.0}, "not seen"),
    ],
)
def test_the_rule(changed, word):
    assert verdict(made_up(**changed)).word == word


def test_a_transformer_does_not_count():
    metrics = made_up(exact=50.0)
    for case, found in metrics.items():
        if case.startswith("points"):
            found[TRANSFORMER] = {"none exact": 99.0, "none simple": 100.0, "none coverage": 99.9}
    found = verdict(metrics)
    assert found.word == "direction only"
    assert "Transformer that points 99.0 % at 5" in found.figures


@pytest.mark.parametrize(
    "build",
    [
        lambda: PointerHullConfig(least=2),
        lambda: PointerHullConfig(least=6, most=5),
        lambda: PointerHullConfig(unseen=(10,)),
        lambda: PointerHullConfig(unseen=()),
        lambda: PointerHullConfig(unseen=(50, 20)),
        lambda: PointerHullConfig(steps=6000, stages=7000),
        lambda: PointerHullConfig(transformer_rate=0.0),
        lambda: FixedVocabulary(0, 3),
    ],
)
def test_bad_input(build):
    with pytest.raises(InvalidInput):
        build()
