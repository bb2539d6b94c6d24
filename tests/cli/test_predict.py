"""What `qna predict` says and does, as a user meets it."""

import csv
import io
import json

import pytest

from qna.cli import main
from qna.data import load_data


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
    assert captured.err == "qna: 1 of 13 could not be read\n"
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
