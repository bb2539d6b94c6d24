"""What `qna eval` says and does, as a user meets it."""

import csv
import json

import pytest
import torch
from torch import nn

from qna.cli import _classifiers, _eval_report, main
from qna.data import DATA, DataSpec, ImageData, TensorImages
from qna.eval import Classifier, ImageView

QUICK = ["--device", "cpu", "--threads", "1"]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_networks_side_by_side(run_folder, tmp_path, capsys):
    weights = run_folder / "model.safetensors"
    out = tmp_path / "judged"
    arguments = ["eval", str(run_folder), "qna_vit_nano_16", "--weights", str(weights), "--out", str(out)]
    assert main([*arguments, "--corruptions", "noise", "blur", "--severities", "2", "5", *QUICK]) == 0
    said = capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        "report.md", "scores.csv", "scores.json", "classes.csv", "calibration.png", "robustness.png",
    }  # fmt: skip
    found = rows(out / "scores.csv")
    assert len(found) == 2 * 5
    assert {row["images"] for row in found} == {"360"}
    first, second = found[:5], found[5:]
    # one network under two names: the same pixels, the same answers
    assert [{**row, "model": ""} for row in first] == [{**row, "model": ""} for row in second]
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert float(first[0]["top1"]) == metrics["top1"]
    assert float(first[0]["loss"]) == pytest.approx(metrics["loss"], rel=1e-5)
    about = json.loads((out / "scores.json").read_text())
    assert [model["right"] for model in about["models"]] == [metrics["right"]] * 2
    assert about["models"][0]["confusion"] == metrics["confusion"]
    assert about["corruptions"]["noise"]["levels"]["2"] == float(first[1]["level"])
    classes = rows(out / "classes.csv")
    assert len(classes) == 2 * 10
    assert sum(int(row["images"]) for row in classes[:10]) == 360
    assert sum(int(row["right"]) for row in classes[:10]) == metrics["right"]
    percent = f"{100 * metrics['top1']:.2f}"
    report = (out / "report.md").read_text()
    for text in (said, report):
        assert percent in text
        assert "ECE" in text
    for name in ("calibration.png", "robustness.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in report


def test_a_folder_in_use_is_left_alone_and_none_means_no_corruption(run_folder, tmp_path, capsys):
    out = tmp_path / "judged"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    assert main(["eval", str(run_folder), "--corruptions", "none", "--out", str(out), *QUICK]) == 0
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert len(rows(tmp_path / "judged-2" / "scores.csv")) == 1
    assert not (tmp_path / "judged-2" / "robustness.png").exists()
    assert "corruption" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test_vit"], "timm's names do not say which images they are for: give --data"),
        (["test_vit", "--data", "digits"], "test_vit has no weights: give --pretrained for timm's"),
        (["test_vitt", "--data", "digits"], "unknown model 'test_vitt'; did you mean"),
        (["RUN", "--data", "digit"], "unknown data 'digit'; did you mean 'digits'?"),
        (["RUN", "--corruptions", "blurr"], "unknown corruption 'blurr'; did you mean 'blur'?"),
        (["RUN", "--severities", "7"], "severities are 1 to 5, got 7"),
        (["RUN", "--batch-size", "0"], "batch_size must be at least 1, got 0"),
        (["RUN", "RUN"], "RUN is named twice"),
        (["RUN", "--pretrained"], "--pretrained belongs to timm's names, and none is given"),
        (
            ["RUN", "--weights", "a.pth"],
            "--weights belongs to a timm's name, once for each: got 1 for 0",
        ),
        (["no/such"], "there is no run or weights file no/such"),
    ],
    ids=str,
)
def test_bad_input_ends_with_one_sentence_and_status_2(arguments, message, run_folder, capsys, tmp_path):
    arguments = [*arguments, "--out", str(tmp_path / "judged")]
    named = [str(run_folder) if a == "RUN" else a for a in arguments]
    assert main(["eval", *named]) == 2
    error = capsys.readouterr().err
    assert error.replace(str(run_folder), "RUN").startswith(f"qna: {message}")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


class Sees(nn.Module):
    """The logits are how bright an image is, and an answer to darkness."""

    def __init__(self, dark):
        super().__init__()
        self.dark = dark

    def forward(self, x):
        mean = x.mean((1, 2, 3))
        return torch.stack([torch.full_like(mean, self.dark), mean], 1)


# what rich, Markdown, a terminal and matplotlib would each make something else of
NAME, DARK, LIGHT = "runs/[bold]a[/bold]|_b_", "[/red]$$<b>*", "li\x1b[31mght`:cat:"


@pytest.fixture
def given(monkeypatch):
    """Make the command judge networks that give a number for darkness, on eight images."""

    def give(**dark):
        pixels = torch.tensor([0, 250] * 4, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 1, 8, 8)
        images = TensorImages(pixels.contiguous(), torch.tensor([0, 1] * 4))
        data = ImageData("few", (DARK, LIGHT), images, images, (0.5,), (0.5,), "drawn by a test")
        monkeypatch.setitem(DATA, "few", DataSpec("two", lambda *_, **__: data))
        view = ImageView(8, (0.0,), (1.0,))
        found = [Classifier(name, Sees(answer), data.classes, view) for name, answer in dark.items()]
        monkeypatch.setattr(_classifiers, "load", lambda *_, **__: found)

    return give


def valid(path):
    """What strict JSON says."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_a_network_that_answers_with_nan_is_an_error_beside_the_others(given, tmp_path, capsys):
    given(good=0.5, bad=torch.nan)
    out = tmp_path / "judged"
    assert main(["eval", "x", "--data", "few", "--corruptions", "none", "--out", str(out), *QUICK]) == 1
    error = "bad answers 8 of a batch of 8 images with NaN or infinity"
    assert f"Not judged: {error}." in capsys.readouterr().out
    good, bad = rows(out / "scores.csv")
    assert (good["model"], good["top1"], good["error"]) == ("good", "1.0", "")
    assert (bad["model"], bad["top1"], bad["error"]) == ("bad", "", error)
    models = valid(out / "scores.json")["models"]
    assert [model.get("error") for model in models] == [None, error]
    assert f"Not judged: {error}." in (out / "report.md").read_text()


def test_networks_of_which_none_can_be_judged(given, tmp_path, capsys):
    given(bad=torch.inf)
    out = tmp_path / "judged"
    assert main(["eval", "x", "--data", "few", "--out", str(out), *QUICK]) == 1
    assert sorted(path.name for path in out.iterdir()) == ["report.md", "scores.csv", "scores.json"]
    assert valid(out / "scores.json")["models"][0]["model"] == "bad"


def test_a_loss_without_bound_is_null(given, tmp_path):
    given(sure=-torch.inf)  # darkness has no probability at all, and half of the images are dark
    out = tmp_path / "judged"
    assert main(["eval", "x", "--data", "few", "--corruptions", "none", "--out", str(out), *QUICK]) == 0
    model = valid(out / "scores.json")["models"][0]
    assert (model["top1"], model["loss"]) == (0.5, None)


def test_names_are_markup_nowhere(given, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    given(**{NAME: 0.5})
    out = tmp_path / "judged"
    arguments = ["eval", "[b]`x`", "--data", "few", "--corruptions", "none", "--out", str(out), *QUICK]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    for text in (NAME, DARK, r"li\x1b[31mght`:cat:"):
        assert text in said
    assert "\x1b" not in said
    page = (out / "report.md").read_text()
    assert "\x1b" not in page
    assert r"| \[/red\]\$\$\<b\>\* |" in page
    assert r"| li\\x1b\[31mght\`\:cat: |" in page
    assert r"# runs/\[bold\]a\[/bold\]\|\_b\_ on few" in page
    assert "``qna eval '[b]`x`' --data few" in page
    assert {row["class"] for row in rows(out / "classes.csv")} == {DARK, LIGHT}


def test_a_full_disk_is_told_after_the_tables(given, tmp_path, capsys, monkeypatch):
    given(good=0.5)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_eval_report, "write_text", full)
    out = tmp_path / "judged"
    assert main(["eval", "x", "--data", "few", "--corruptions", "none", "--out", str(out), *QUICK]) == 1
    captured = capsys.readouterr()
    assert "100.00" in captured.out
    assert captured.err == f"qna: cannot write the report to {out}: [Errno 28] No space left on device\n"


def test_other_classes_are_refused(run_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from PIL import Image

    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / part / name / "a.png")
    assert main(["eval", str(run_folder), "--data", "."]) == 2
    assert "tells 10 classes apart, but . has 2" in capsys.readouterr().err


def test_data_that_a_run_was_trained_on_and_that_is_gone_is_named(run_folder, tmp_path, capsys, monkeypatch):
    from qna.train.checkpoint import load_tensors, save_tensors

    monkeypatch.chdir(tmp_path)
    tensors, about = load_tensors(run_folder / "model.safetensors")
    about["config"]["images"]["data"] = "gone/photos"
    save_tensors(tmp_path / "a.safetensors", tensors, about)
    assert main(["eval", "a.safetensors"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "qna: a.safetensors was trained on 'gone/photos', which cannot be had: unknown data"
    )
    assert error.endswith("; --data names other images\n")


def test_of_many_classes_those_that_fare_worst_are_shown(capsys):
    import torch

    from qna.cli._eval_report import print_report
    from qna.eval import CLEAN, Calibration, Classifier, ImageView, Judgement, Result, Speed, Tally

    names = tuple(f"class{i}" for i in range(30))
    tally, calibration = Tally(30), Calibration()
    labels = torch.arange(29).repeat(2)  # the last class has no image
    logits = torch.nn.functional.one_hot(labels, 30).float()
    logits[7] = torch.eye(30)[3]  # one of two of class 7 is taken for class 3
    tally.add(logits, labels)
    calibration.add(logits, labels)
    result = Result(tally.scores(), calibration.error, calibration.bins())
    classifier = Classifier("it", torch.nn.Identity(), names, ImageView(8, (0.0,), (1.0,)))
    print_report([Judgement(classifier, "lights", names, {CLEAN: result}, (), Speed(1.0, 2, 5, 1, "cpu"))])
    said = capsys.readouterr().out
    shown = [line.split() for line in said.splitlines() if line.startswith("class") and " " in line][1:]
    assert len(shown) == 20
    assert shown[0] == ["class7", "2", "50.00", "class3"]
    assert shown[1] == ["class0", "2", "100.00"]
    assert "class29" not in said
