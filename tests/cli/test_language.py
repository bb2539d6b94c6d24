"""Language at the command line: a run, its page, going on with a text, and judging side by side."""

import io
import json
import sys

import pytest

from qna._core.outside import as_line
from qna.cli import main


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for number in range(4):
        (folder / f"{number}.txt").write_text("abcdefgh\n" * 60)
    return folder


def train(folder, data, *more):
    options = ("--model", "decoder_pico", "--model-kwargs", "dim=32", "--context", "16", "--batch-size", "8")
    words = ("train", "--task", "language", "--data", data, "--out", folder, "--no-tensorboard", *options)
    assert main([*map(str, (*words, *more))]) == 0
    return folder


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "text"
    return train(folder, text, "--epochs", "5", "--lr", "0.4", "--lengths", "32")


@pytest.fixture(scope="module")
def recall(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "recall"
    return train(folder, "recall:pairs=2", "--sequences", "64", "--epochs", "1")


def test_a_page(run, recall):
    page = (run / "report.md").read_text()
    assert "bits per byte on" in page
    assert "| held out, 32 tokens |" in page
    assert "bytes per token at 16 tokens |" in page
    assert "tokens per second, with judging |" in page
    assert (run / "learning_curve.png").stat().st_size > 1000
    assert "of the answers right on 8 held-out sequences of 16 tokens" in (recall / "report.md").read_text()


def generated(capsys, run, *options):
    capsys.readouterr()
    assert main(["generate", str(run), *options]) == 0
    return capsys.readouterr().out


def test_a_text_goes_on(run, capsys, monkeypatch):
    greedy = ("--tokens", "40", "--temperature", "0")
    out = generated(capsys, run, "--prompt", "abcd", *greedy)
    assert out.startswith("efgh\nabcdefgh\n")
    # lines are lines
    assert "\n" in out.rstrip("\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abcd")))
    assert generated(capsys, run, *greedy) == out
    assert generated(capsys, run, "--prompt", "abcd", *greedy, "--cache", "window:window=99") == out
    heavy = "heavy:heavy=50,recent=50"
    assert generated(capsys, run, "--prompt", "abcd", *greedy, "--cache", heavy) == out
    drawn = [generated(capsys, run, "--prompt", "x", "--temperature", "3", "--seed", s) for s in "112"]
    assert drawn[0] == drawn[1] != drawn[2]
    assert generated(capsys, run, "--prompt", "abcd", *greedy, "--cache-dtype", "bf16") == out


def test_what_is_made_is_shown_as_text(run, capsys):
    out = generated(capsys, run, "--prompt", "", "--temperature", "60", "--tokens", "300")
    shown = out.replace("\n", "").replace("\t", "")
    assert as_line(shown) == shown
    assert "\\x" in out


def refused(capsys, *words):
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    return capsys.readouterr().err


def test_what_is_refused(run, recall, capsys):
    assert "tokens must be at least 1, got 0" in refused(capsys, "generate", run, "--tokens", "0")
    told = refused(capsys, "generate", run, "--cache", "windows:window=3")
    assert "unknown cache policy 'windows'; did you mean 'window'?" in told
    assert "lacks an option" in refused(capsys, "generate", run, "--cache", "window")
    assert "which is no text to go on with" in refused(capsys, "generate", recall, "--prompt", "x")
    assert "is not a run that can be used" in refused(capsys, "generate", run.parent)
    told = refused(capsys, "eval", run, "--data", "recall:pairs=2", "--lengths", "20")
    assert "knows 257 tokens of" in told
    assert "and recall:pairs=2 has 72 of its own; give --data that fits" in told
    told = refused(capsys, "eval", run, "--corruptions", "noise")
    assert "--corruptions means nothing to a network that tells the next token" in told
    assert "of which `qna predict` makes nothing" in refused(capsys, "predict", run, "x.png")


def test_judged_side_by_side(run, recall, tmp_path, capsys):
    capsys.readouterr()
    words = ["eval", str(run), "--lengths", "24", "48", "--batch-size", "4", "--out", str(tmp_path / "a")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "bits/byte" in out
    assert "bytes/token" in out
    told = json.loads((tmp_path / "a" / "scores.json").read_text())
    (model,) = told["models"]
    assert [n["length"] for n in model["lengths"]] == [16, 24, 48]
    metrics = json.loads((run / "metrics.json").read_text())
    # in other batches, which round otherwise
    assert model["lengths"][0] == pytest.approx(metrics["lengths"][0], rel=1e-5)
    assert [s["state"] for s in model["speeds"]] == [2 * 2 * 2 * 8 * 4] * 3
    assert all(s["read"] > 0 < s["made"] for s in model["speeds"])
    assert main(["eval", str(recall), "--out", str(tmp_path / "b")]) == 0
    assert "|" in (tmp_path / "b" / "report.md").read_text()
