"""What `qna train` says and does, as a user meets it."""

import json
import subprocess
import sys

import pytest

from qna.cli import main
from qna.cli.train import parse
from qna.train import recipe


def test_every_option_overrides_the_recipe():
    config = parse(["--data", "digits", "--epochs", "3", "--lr=0.5", "--flip", "--out", "a/b"])
    expected = json.loads(recipe("digits").to_json())
    expected["optim"] |= {"epochs": 3, "lr": 0.5}
    expected["augment"]["flip"] = True
    expected["run"]["out"] = "a/b"
    assert json.loads(config.to_json()) == expected


def test_a_written_configuration_is_read_and_overridden(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(parse(["--epochs", "7", "--seed", "3"]).to_json())
    config = parse(["--config", str(path), "--seed", "4"])
    assert (config.optim.epochs, config.run.seed) == (7, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digit"], "unknown data 'digit'; did you mean 'digits'?"),
        (["--recipe", "digts"], "unknown recipe 'digts'; did you mean 'digits'?"),
        (["--recipe"], "--recipe needs a value"),
        (["--model", "test_vitt"], "unknown model 'test_vitt'; did you mean"),
        (["--config", "none.json"], "cannot read the configuration none.json: No such file or directory"),
        (["--resume", "none"], "no run to go on with in none: it needs config.json"),
        (
            ["--resume", "a", "--epochs", "3"],
            "--resume goes on with a run as it was begun, so it takes",
        ),
        (
            ["--precision", "fp16", "--device", "cpu"],
            "precision fp16 cannot be used on cpu",
        ),
        (
            ["--sharding", "fsdp"],
            "sharding fsdp spreads the network over processes and this is the only one; start it with",
        ),
        (["--freeze", "stm"], "unknown part to freeze 'stm'; did you mean 'stem'"),
        (["--weights", "none.pth"], "none.pth cannot be read as weights: FileNotFoundError"),
        (["--data", "cifar10"], "data 'cifar10' was not found: looked for"),
        (["--config", "a", "--recipe", "digits"], "--recipe and --config exclude each other"),
        (
            ["--batch-size", "4000"],
            "an update of 1 (processes) x 1 (batches) x 4000 examples needs more",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_input_ends_with_one_sentence_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"qna: {message}")
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epoch", "3"], ["Unrecognized options: --epoch", "Perhaps you meant", "--epochs"]),
        (["--epochs", "0"], ["epochs must be at least 1, got 0"]),
        (["--lr", "fast"], ["--lr", "fast"]),
        (["--precision", "fp8"], ["fp8", "--precision", "fp32", "bf16"]),
        (["--crop", "0.9", "0.1"], ["crop must be two numbers"]),
    ],
    ids=str,
)
def test_bad_options_are_explained(arguments, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert all(words in error for words in said)


def test_help_shows_the_recipes_values(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"(default: {recipe('digits').optim.epochs})" in text


@pytest.mark.parametrize("package", ["tyro", "accelerate", "safetensors", "matplotlib", "rich", "sklearn"])
def test_a_missing_package_is_named_with_its_extra(package, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # None in sys.modules is how Python marks a module that cannot be imported
    for name in [package, *(n for n in sys.modules if n.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["train", "--model", "test_vit", "--epochs", "1"]) == 2
    error = capsys.readouterr().err
    assert f"needs the package {package!r}: pip install 'qna[train]'" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_run_tells_where_everything_is(tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    arguments = ["train", "--model", "test_vit", "--epochs", "1", "--batch-size", "512", "--device", "cpu"]
    assert main([*arguments, "--out", str(out)]) == 0
    out_of_terminal = capsys.readouterr().out
    said = out_of_terminal.replace("\n", "")  # a terminal breaks long paths
    folder = tmp_path / "run-2"
    for name in ("report.md", "model.safetensors", "metrics.json", "config.json", "log.jsonl"):
        assert (folder / name).exists()
        assert name in said
    assert "is in use" in " ".join(out_of_terminal.split())
    report = (folder / "report.md").read_text()
    right = json.loads((folder / "metrics.json").read_text())["right"]
    assert f"| {right} of 360 (" in report
    for name in ("learning_curve.png", "confusion_matrix.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in report


def test_a_report_that_cannot_be_written_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    from qna.cli import _report

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    arguments = ["--model", "test_vit", "--image-size", "32", "--epochs", "1", "--batch-size", "512"]
    with monkeypatch.context() as patch:
        patch.setattr(_report, "plot_learning", full)
        assert main(["train", *arguments, "--device", "cpu", "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "the run is complete in" in error
    assert "No space left" in error
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.md").exists()


def test_one_epoch_of_the_demo_learns_and_shows_its_attention(run_folder):
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert metrics["model"].startswith("qna_vit")
    assert metrics["held_out"] == 360
    # a tenth is chance
    assert metrics["right"] > 0.2 * 360
    assert (run_folder / "attention_maps.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_the_demo_reads_97_percent_of_the_held_out_digits(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "qna", "train", "--data", "digits", "--out", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert metrics["held_out"] == 360
    assert metrics["model"].startswith("qna_vit")
    assert metrics["right"] >= 0.97 * 360
    assert (tmp_path / "demo" / "attention_maps.png").read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_before_the_first_update_is_one_sentence(tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("qna.train.tasks.classification.load_data", interrupted)
    arguments = ["train", "--model", "test_vit", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(arguments) == 130
    assert capsys.readouterr().err.startswith("qna: interrupted; ")


def test_a_changed_run_is_refused_unless_one_insists(tmp_path, capsys):
    folder = tmp_path / "run"
    options = ["--model", "test_vit", "--image-size", "32", "--epochs", "1", "--batch-size", "512"]
    assert main(["train", *options, "--device", "cpu", "--out", str(folder)]) == 0
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    capsys.readouterr()
    assert main(["train", "--resume", str(folder)]) == 2
    assert "seed was 0 and is 1" in capsys.readouterr().err
    assert main(["train", "--resume", str(folder), "--anyway"]) == 0
