"""`qna lab` as a user meets it."""

import json
from dataclasses import replace

import pytest

from qna.bench.measure.rows import read
from qna.cli import main
from qna.cli.lab import parse
from qna.labs import LABS


def test_a_new_lab_is_listed_run_and_told(toy, tmp_path, capsys):
    assert main(["lab", "list"]) == 0
    listed = capsys.readouterr().out
    assert "toy-dice: On Dice (Toys 2001), 1 CPU minutes\n  More sides win." in listed
    assert "qna-cost: Learned Queries" in listed
    folder, csv = tmp_path / "run", tmp_path / "labs.csv"
    arguments = ["lab", "run", "toy-dice", "--sides", "6", "6", "--seed", "4", "--out", str(folder)]
    assert main([*arguments, "--csv", str(csv)]) == 0
    said = capsys.readouterr().out
    assert "2 of 3 parts: roll 2" in said
    assert "6 rows added" in said
    metrics = json.loads((folder / "metrics.json").read_text())
    assert f"{metrics['verdict']}: {metrics['figures']}\n" in said
    assert json.loads((folder / "config.json").read_text())["sides"] == [6, 6]
    # once more adds nothing and says the same
    assert main([*arguments, "--csv", str(csv)]) == 0
    assert f"{metrics['verdict']}: {metrics['figures']}\n" in capsys.readouterr().out
    assert read(csv) == read(folder / "rows.csv")


def test_a_stopped_run_says_how_to_go_on(toy, tmp_path, capsys, monkeypatch):
    def interrupt(config, folder):
        raise KeyboardInterrupt

    monkeypatch.setitem(LABS, toy.name, replace(toy, run=interrupt))
    assert main(["lab", "run", "toy-dice", "--out", str(tmp_path / "run")]) == 130
    assert "the same command goes on in" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said_before_the_work(toy, tmp_path, capsys, monkeypatch):
    file = tmp_path / "note.csv"
    file.write_text("mine")
    assert main(["lab", "run", "toy-dice", "--out", str(file / "run")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    monkeypatch.setitem(LABS, toy.name, replace(toy, run=lambda config, folder: pytest.fail("it ran")))
    assert main(["lab", "run", "toy-dice", "--out", str(tmp_path / "run"), "--csv", str(file)]) == 2
    assert "note.csv, line 1: it has columns 'mine'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "qna-segmentatoin"], "unknown lab 'qna-segmentatoin'; did you mean 'qna-segmentation'"),
        (["runn"], "unknown verb of qna lab 'runn'; did you mean 'run'?"),
        (["list", "all"], "`qna lab list` takes no arguments, got all"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(arguments, says, capsys):
    assert main(["lab", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_options_are_those_of_the_configuration(capsys):
    config, out, csv = parse(LABS["qna-cost"], ["--windows", "3", "7", "--data", "cifar10", "--minutes=3"])
    assert (config.windows, config.data, config.minutes) == ((3, 7), "cifar10", 3.0)
    assert (out, csv) == (None, None)
    with pytest.raises(SystemExit) as ended:
        main(["lab", "run", "qna-cost", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--windows" in shown
    assert "--out" in shown
    with pytest.raises(SystemExit) as ended:
        main(["lab", "run", "qna-cost", "--windows", "4"])
    assert ended.value.code == 2
    assert "windows must be odd and ascending" in capsys.readouterr().err
    for odd in (["--minutes", "nan"], ["--rates", "nan"], ["--seconds", "inf"]):
        with pytest.raises(SystemExit):
            main(["lab", "run", "qna-cost", *odd])
    for nothing in ([], ["--help"], ["run"]):
        assert main(["lab", *nothing]) == 0
        assert "qna lab run NAME" in capsys.readouterr().out
