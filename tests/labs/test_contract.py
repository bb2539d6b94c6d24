"""What every laboratory does: runs in seconds, goes on where it stopped, and can come out either way."""

import dataclasses
import json
import typing

import pytest

from qna.bench.measure.rows import read
from qna.bench.publish import pictures, tables
from qna.labs import LABS
from qna.labs.results import metrics_of, runs_in
from qna.labs.row import Word
from qna.labs.running import command, run_lab
from tests.labs.toy import TOY

ALL = {**LABS, TOY.name: TOY}


# laboratories that need a library of an extra -> which
NEEDS = {"sinklora-context": "peft"}


@pytest.fixture(scope="module", params=ALL, ids=str)
def lab(request):
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param], reason="an extra brings it")
    return ALL[request.param]


@pytest.fixture(scope="module")
def stopped(lab, tmp_path_factory):
    """A run that was interrupted when its last part began, and the parts that were done by then."""
    folder = tmp_path_factory.mktemp(lab.name) / "run"

    def interrupt(done, parts, what):
        if done == parts - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_lab(lab, lab.tiny, folder, interrupt)
    return folder, read(folder / "rows.csv")


@pytest.fixture(scope="module")
def resumed(lab, stopped):
    begun = []
    outcome = run_lab(lab, lab.tiny, stopped[0], lambda done, parts, what: begun.append(what))
    return outcome, begun


def test_a_run_goes_on_where_it_stopped(lab, stopped, resumed):
    (folder, before), (outcome, begun) = stopped, resumed
    assert len(begun) == 2  # the part that was interrupted, then the word that all is done
    assert outcome.rows[: len(before)] == before
    assert len(outcome.rows) > len(before)
    # complete: nothing is done again, and the figures in the file say the same
    again = run_lab(lab, lab.tiny, folder)
    assert again.metrics == outcome.metrics == metrics_of(read(folder / "rows.csv"))
    assert again.verdict == outcome.verdict
    assert json.loads((folder / "metrics.json").read_text())["verdict"] == outcome.verdict.word


def test_an_interruption_changes_no_figure_that_follows_from_the_seeds(lab, resumed, tmp_path):
    whole = run_lab(lab, lab.tiny, tmp_path / "whole").metrics
    assert _seeded(whole) == _seeded(resumed[0].metrics)


def _seeded(metrics):
    """The figures, those that are measured anew replaced by None."""
    return {
        case: {
            who: {name: None if name.endswith((" time", " memory")) else value for name, value in at.items()}
            for who, at in contenders.items()
        }
        for case, contenders in metrics.items()
    }


def test_a_control_runs_beside_it_in_every_case(resumed):
    assert all(len(contenders) > 1 for contenders in resumed[0].metrics.values())


def test_rows_are_one_run_and_no_table_or_picture_of_benchmarks_takes_them(stopped, resumed):
    (run,) = runs_in(stopped[0] / "rows.csv")
    assert list(run.rows) == resumed[0].rows
    assert pictures.pictures(run.rows) == []
    for kind in ("models", "cost", "maps window=3"):
        assert tables.block(kind, list(run.rows)) == "*Not measured yet.*"


def test_the_verdict_can_come_out_either_way(lab):
    assert set(lab.examples) == set(typing.get_args(Word))
    for word, metrics in lab.examples.items():
        found = lab.verdict(metrics)
        assert found.word == word
        assert any(character.isdigit() for character in found.figures)


def test_no_figures_make_no_claim_true(lab):
    assert lab.verdict({}).word == "not seen"


def test_the_configuration_is_data_with_a_budget(lab):
    plain = lab.config()
    assert isinstance(lab.tiny, lab.config)
    assert dataclasses.replace(plain, minutes=3.0, seed=5).minutes == 3.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        plain.seed = 1
    assert command(lab, plain) == f"qna lab run {lab.name}"


def test_the_picture_is_drawn(lab, tmp_path):
    if lab.picture is not None:
        lab.picture(tmp_path / "a.png", lab.examples["held"], "cpu A")
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
