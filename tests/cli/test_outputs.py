"""Whatever a command cannot write to ends in one sentence and stays what it is."""

import pytest
from PIL import Image

from qna.cli import main


def one_sentence(capsys, start):
    error = capsys.readouterr().err
    assert error.startswith(f"qna: {start}")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_a_full_device_behind_a_link(command, run_folder, tmp_path, capsys):
    Image.new("L", (16, 16)).save(tmp_path / "a.png")
    out = tmp_path / "out.png"
    out.symlink_to("/dev/full")
    photo, model = str(tmp_path / "a.png"), str(run_folder)
    named = [model, photo] if command == "predict" else [photo, "--model", model]
    assert main([command, *named, "--out", str(out)]) == 2
    assert "No space left on device" in one_sentence(capsys, f"cannot write {out}: ")
    assert out.is_symlink()
    assert out.is_char_device()


def test_a_model_is_not_shared_on_a_full_disk(run_folder, tmp_path, capsys, monkeypatch):
    import timm
    from safetensors import SafetensorError

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(timm.models, "save_for_hf", full)
    assert main(["share", str(run_folder), "--out", str(tmp_path / "m")]) == 2
    assert "No space left" in one_sentence(capsys, f"cannot write {tmp_path}/m: ")
    assert not list(tmp_path.iterdir())


def test_pictures_cannot_go_to_a_file(tmp_path, capsys, monkeypatch):
    from types import SimpleNamespace

    from qna.bench.measure import rows
    from qna.bench.publish import pictures

    monkeypatch.setattr(rows, "read", lambda *_: [])
    monkeypatch.setattr(pictures, "pictures", lambda _: [SimpleNamespace(name="a", kind="lines")])
    (tmp_path / "file").write_text("precious")
    assert main(["plot", "bench", "any.csv", "--out", str(tmp_path / "file")]) == 2
    one_sentence(capsys, f"cannot make the folder {tmp_path}/file: File exists")
    assert (tmp_path / "file").read_text() == "precious"
