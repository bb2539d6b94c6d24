"""What `qna eval` says and does, as a user meets it."""

import csv
import json

import pytest

from qna.cli import main

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
