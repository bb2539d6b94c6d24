"""Names from outside go through training, report and card as what they are; any task leaves a report."""

import dataclasses
import json

import pytest

from qna.cli import main
from qna.data import DATA, DataSpec
from qna.train.tasks import TASKS, TaskRow
from tests.train.conftest import few
from tests.train.test_tasks import Brightness

NAME = "$$[red]x[/] | <b>"


def test_a_class_and_a_folder_of_any_name_go_through_everything(tmp_path, monkeypatch, capsys):
    given = dataclasses.replace(few(), name=NAME, classes=(NAME, "light"))
    monkeypatch.setitem(DATA, NAME, DataSpec("two classes", lambda *_, **__: given))
    run, out = tmp_path / "[bold]run", tmp_path / "[/bold]out"
    options = ["--model", "test_vit", "--image-size", "32", "--batch-size", "8", "--epochs", "1"]
    options += ["--workers", "0", "--device", "cpu", "--precision", "fp32", "--out", str(run)]
    assert main(["train", "--data", NAME, "--recipe", "digits", *options]) == 0
    assert f"{run}/report.md" in "".join(capsys.readouterr().out.split())
    title, *_ = (run / "report.md").read_text().splitlines()
    assert r"\$\$\[red\]x\[/\] \| \<b\>: " in title
    assert f"qna train --config '{run}/config.json'`" in (run / "report.md").read_text()
    assert json.loads((run / "metrics.json").read_text())["classes"] == [NAME, "light"]
    assert main(["share", str(run), "--out", str(out)]) == 0
    assert f"{out}: test_vit, " in capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert r"on \$\$\[red\]x\[/\] \| \<b\>" in card.partition("## Use")[0]
    # every cell of the table stays one
    lines = [line for line in card.splitlines() if line.startswith("| ")]
    assert all(line.replace(r"\|", "").count("|") == 3 for line in lines)


def test_a_task_without_classes_leaves_a_report_without_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TASKS, "brightness", TaskRow("brightness", "how bright", Brightness))
    options = ["--model", "test_vit", "--epochs", "2", "--batch-size", "4", "--device", "cpu"]
    run = tmp_path / "run"
    assert main(["train", "--task", "brightness", *options, "--out", str(run)]) == 0
    error = json.loads((run / "metrics.json").read_text())["error"]
    page = (run / "report.md").read_text()
    assert f"error {error:.1e} on 8 held-out examples" in page.splitlines()[0]
    assert f"| held out, error | {error:.6g} |" in page
    assert not list(run.glob("*.png"))
    assert f"error {error:.1e} on 8 held-out examples" in capsys.readouterr().out
    assert main(["share", str(run), "--out", str(tmp_path / "out")]) == 2
    assert "is not the folder of a complete run: metrics.json: it has no 'right'" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [60, 80])
def test_help_is_as_wide_as_the_terminal_and_its_types_can_be_read(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= columns
    assert "{None}" not in text
    assert "--data-dir PATH" in text
    assert "--crop FLOAT FLOAT" in text
