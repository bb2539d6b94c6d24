"""The folder of a run: parts, budget, and what is refused."""

from dataclasses import replace

import pytest

from qna._core.errors import InvalidInput
from qna.bench.measure.rows import read
from qna.labs import running
from qna.labs.running import command, run_lab
from tests.labs.toy import TOY, ToyConfig


def test_the_budget_stops_between_parts_and_more_of_it_goes_on(tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 40))  # each part takes 40 seconds
    monkeypatch.setattr(running, "_cpu_seconds", lambda: next(clock))
    with pytest.raises(
        InvalidInput, match=r"1 CPU minutes is spent after 2 of 3 parts; .* --minutes 2 --out"
    ):
        run_lab(TOY, ToyConfig(), tmp_path / "a")
    assert len(read(tmp_path / "a" / "rows.csv")) == 4
    outcome = run_lab(TOY, ToyConfig(minutes=2.0), tmp_path / "a")
    assert len(outcome.rows) == 6
    assert outcome.rows[-1].extra["command"] == "qna lab run toy-dice --minutes 2"
    assert len({row.extra["begun"] for row in outcome.rows}) == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    run_lab(TOY, ToyConfig(), tmp_path / "a")
    with pytest.raises(InvalidInput, match="a holds a run with seed 0 and not 1; name another folder"):
        run_lab(TOY, ToyConfig(seed=1), tmp_path / "a")
    with pytest.raises(InvalidInput, match="a holds a run with lab toy-dice and not other"):
        run_lab(replace(TOY, name="other"), ToyConfig(), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "note.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="b holds something that is no run"):
        run_lab(TOY, ToyConfig(), tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["note.txt"]


@pytest.mark.parametrize("text", ["{", "[1]", '{"data": "digits"}'])
def test_a_configuration_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidInput, match="name another folder with --out"):
        run_lab(TOY, ToyConfig(), tmp_path)
    assert (tmp_path / "config.json").read_text() == text


def test_a_part_that_fails_leaves_those_before_it(tmp_path):
    def fails():
        raise RuntimeError("no luck")

    lab = replace(TOY, run=lambda config, folder: folder.measured({"good": _one, "bad": fails}))
    with pytest.raises(RuntimeError, match="no luck"):
        run_lab(lab, ToyConfig(), tmp_path / "a")
    assert [row.extra["part"] for row in read(tmp_path / "a" / "rows.csv")] == ["good"]
    lab = replace(TOY, run=lambda config, folder: folder.measured({"empty": list}))
    with pytest.raises(InvalidInput, match="part 'empty' of lab toy-dice gave no figure"):
        run_lab(lab, ToyConfig(), tmp_path / "b")


def _one():
    from qna.labs.row import Figure

    return [Figure("roll-0", "ours", "none", "eyes", "1", 1 / 3)]


def test_figures_are_those_that_the_file_keeps(tmp_path):
    lab = replace(
        TOY,
        run=lambda config, folder: folder.measured({"good": _one}),
        verdict=lambda metrics: TOY.verdict(TOY.examples["held"]),
    )
    assert run_lab(lab, ToyConfig(), tmp_path / "a").metrics["roll-0"]["ours"]["none eyes"] == 0.333333


def test_the_command_repeats_the_configuration():
    config = ToyConfig(rolls=4, sides=(6, 8), loaded=True, seed=2)
    assert command(TOY, config) == "qna lab run toy-dice --rolls 4 --sides 6 8 --loaded --seed 2"
