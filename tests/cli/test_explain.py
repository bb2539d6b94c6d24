"""What `qna explain` says and does, as a user meets it."""

import struct

import pytest

from qna.cli import main
from qna.data import load_data


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "digit.png"
    image, _ = load_data("digits").held_out.open(0)
    image.save(path)
    return path


def size_of(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


def test_a_run_explains_a_digit(run_folder, digit, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", str(digit), "--model", str(run_folder), "--device", "cpu"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "digit-explained.png"
    # five answers, most probable first
    shares = [float(line.split()[0]) for line in said[:5]]
    assert shares == sorted(shares, reverse=True)
    assert not any(line.startswith("No ") for line in said)
    width, height = size_of(tmp_path / "digit-explained.png")
    assert width > height > 800  # two rows of four


@pytest.mark.parametrize(
    ("model", "missing"),
    [
        ("test_vit", []),
        ("test_convnext", ["No attention rollout: a rollout follows", "No attention maps: no layer shows"]),
    ],
)
def test_what_a_timm_network_does_not_have_is_said(model, missing, digit, tmp_path, capsys):
    out = tmp_path / "a.png"
    options = ["--out", str(out), "--field", "noise", "--device", "cpu"]
    assert main(["explain", str(digit), "--model", model, *options]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("The weights are those before training")
    told = [line for line in said if line.startswith("No ")]
    assert len(told) == len(missing)
    assert all(line.startswith(start) for line, start in zip(told, missing, strict=True))
    assert any("on noise" in line for line in said)
    assert size_of(out)[0] > 800


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png", "--model", "RUN"], "the photo cannot be read: none.png: "),
        (["PHOTO", "--model", "test_vitt"], "unknown model 'test_vitt'; did you mean 'test_vit'"),
        (["PHOTO", "--model", "RUN", "--out", "a.jpg"], "the picture is a PNG, so --out must end in .png"),
        (["PHOTO", "--model", "RUN", "--out", "no/a.png"], "there is no folder no to write a.png to"),
    ],
    ids=str,
)
def test_bad_input_ends_with_one_sentence_and_status_2(arguments, message, run_folder, digit, capsys):
    named = {"RUN": str(run_folder), "PHOTO": str(digit)}
    assert main(["explain", *(named.get(a, a) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"qna: {message}")
    assert error.count("\n") == 1
