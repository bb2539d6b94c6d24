"""What `qna predict` says and does, as a user meets it."""

import csv
import io
import json
import os

import pytest
import torch
from PIL import Image
from torch import nn

from qna.cli import _classifiers, main
from qna.data import load_data
from qna.eval import Classifier, ImageView


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Twelve held-out digits, some in a folder of their own, and a file that is cut short."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    digits = load_data("digits").held_out
    for number in range(12):
        image, label = digits.open(number)
        image.save(folder / ("more" if number % 3 == 0 else ".") / f"{number:02}_{label}.png")
    (folder / "broken.png").write_bytes((folder / "more" / "00_1.png").read_bytes()[:60])
    return folder


def test_csv_of_a_folder_with_a_broken_file(run_folder, pictures, capsys):
    assert main(["predict", str(run_folder), str(pictures), "--top-k", "3", "--batch-size", "5"]) == 1
    captured = capsys.readouterr()
    found = list(csv.DictReader(io.StringIO(captured.out)))
    assert list(found[0]) == [
        "path", "label_1", "probability_1", "label_2", "probability_2", "label_3", "probability_3", "error",
    ]  # fmt: skip
    assert len(found) == 13
    (broken,) = [row for row in found if row["error"]]
    assert broken["path"].endswith("broken.png")
    assert broken["label_1"] == ""
    assert captured.err == "qna: 1 of 13 have no answer\n"
    for row in found:
        if not row["error"]:
            p = [float(row[f"probability_{rank}"]) for rank in (1, 2, 3)]
            assert 1 >= p[0] >= p[1] >= p[2] >= 0


def test_the_answers_are_those_of_the_evaluation(run_folder, pictures, tmp_path, monkeypatch):
    """Files of held-out digits give the logits that evaluation counts, but for the rounding of pixels."""
    from qna.train.reload import load_classifier

    out = tmp_path / "answers.json"
    paths = sorted(p for p in pictures.rglob("*.png") if p.name != "broken.png")
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{path}\n" for path in paths)))
    assert main(["predict", str(run_folder), "-", "--out", str(out), "--top-k", "10"]) == 0
    found = json.loads(out.read_text())
    assert [row["path"] for row in found] == list(map(str, paths))
    classifier, images = load_classifier(str(run_folder)), load_data("digits").held_out
    for row in found:
        number = int(row["path"].rsplit("/", maxsplit=1)[-1][:2])
        batch = classifier.view.pixels(images)(images, [number])
        logits = classifier.network(classifier.view.standardise(batch.images))
        expected = logits.softmax(1)[0].tolist()
        actual = {guess["index"]: guess["probability"] for guess in row["classes"]}
        # pixels rounded to 1/255 once more
        assert [actual[i] for i in range(10)] == pytest.approx(expected, abs=0.01)
        assert all(guess["label"] == str(guess["index"]) for guess in row["classes"])


class Partly(nn.Module):
    """Answers dark images with NaN."""

    def forward(self, x):
        logits = torch.stack([x.mean((1, 2, 3)), -x.mean((1, 2, 3))], 1)
        return torch.where(logits[:, :1] > 0.5, logits, torch.nan)


@pytest.fixture
def partly(monkeypatch):
    """A network that the commands are given, whatever is named."""
    classifier = Classifier("partly", Partly(), ("light", "dark"), ImageView(8, (0.0,), (1.0,)))
    monkeypatch.setattr(_classifiers, "load", lambda *_, **__: [classifier])


def valid(text):
    """What strict JSON says."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_an_answer_of_nan_is_an_error_and_the_json_valid(partly, tmp_path, capsys):
    for name, level in (("a", 250), ("b", 3), ("c", 200)):
        Image.new("L", (8, 8), level).save(tmp_path / f"{name}.png")
    arguments = ["predict", "MODEL", str(tmp_path), "--device", "cpu"]
    assert main([*arguments, "--format", "json"]) == 1
    captured = capsys.readouterr()
    light, dark, other = valid(captured.out)
    assert dark["classes"] == []
    assert dark["error"] == "the network answers with NaN or infinity"
    assert [row["classes"][0]["label"] for row in (light, other)] == ["light", "light"]
    assert captured.err == "qna: 1 of 3 have no answer\n"
    assert main(arguments) == 1
    assert f"{tmp_path}/b.png,,,,,the network answers with NaN or infinity\n" in capsys.readouterr().out


def test_folders_are_searched_as_people_have_them(partly, tmp_path, capsys, monkeypatch):
    (tmp_path / "photos" / ".ipynb_checkpoints").mkdir(parents=True)
    (tmp_path / "more").mkdir()
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "back").symlink_to(tmp_path / "photos")
    for name in ("photos/a.png", "photos/._a.png", "photos/.ipynb_checkpoints/a.png", "more/b.png"):
        Image.new("L", (8, 8), 250).save(tmp_path / name)
    (tmp_path / "photos" / "private").mkdir()
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("private"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "MODEL", "photos", "--device", "cpu"]) == 1
    found = {row["path"]: row["error"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert found == {
        "photos/a.png": "",
        "photos/more/b.png": "",
        "photos/private": "the folder cannot be searched: Permission denied",
    }


def test_a_full_disk_leaves_what_was_there(partly, tmp_path, capsys, monkeypatch):
    Image.new("L", (8, 8), 250).save(tmp_path / "a.png")
    out = tmp_path / "a.csv"
    out.write_text("precious")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert main(["predict", "MODEL", str(tmp_path / "a.png"), "--out", str(out), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error == f"qna: cannot write {out}: [Errno 28] No space left on device\n"
    assert out.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.png"]


def test_what_was_in_the_file_stays_if_the_new_rows_cannot_be_had(run_folder, pictures, tmp_path, capsys):
    out = tmp_path / "none" / "a.csv"
    assert main(["predict", str(run_folder), str(pictures), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"cannot write {out}: " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "a.png", "--top-k", "0"], "top_k must be at least 1, got 0"),
        (
            ["RUN", "a.png", "--mean", "nan"],
            "mean and std need one finite number per channel, std above 0, got",
        ),
        (
            ["RUN", "a.png", "--std", "inf"],
            "mean and std need one finite number per channel, std above 0, got",
        ),
        (["RUN", "a.png", "--crop-pct", "nan"], "a view needs a size from 1 to 4,096 and crop_pct in (0, 1]"),
        (["test_vit", "a.png"], "test_vit has no weights"),
        (["no/such", "a.png"], "there is no run or weights file no/such"),
    ],
    ids=str,
)
def test_bad_input_ends_with_one_sentence_and_status_2(arguments, message, run_folder, capsys):
    assert main(["predict", *(str(run_folder) if a == "RUN" else a for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"qna: {message}")
    assert error.count("\n") == 1
