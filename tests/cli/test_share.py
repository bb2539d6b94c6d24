"""What `qna share` says and does, as a user meets it."""

import json
from itertools import product

import pytest
import torch
from PIL import Image

from qna.cli import main
from qna.data import evaluation_batches, load_data
from qna.eval import evaluate
from qna.models import from_pretrained
from qna.train import TrainConfig
from qna.train.checkpoint import load_tensors
from qna.train.config import NetworkOptions
from qna.train.network import create_network
from qna.train.reload import load_classifier


def test_a_run_is_shared_with_what_it_measured(run_folder, tmp_path, capsys):
    out = tmp_path / "shared"
    assert main(["share", str(run_folder), "--out", str(out)]) == 0
    metrics = json.loads((run_folder / "metrics.json").read_text())
    said = capsys.readouterr().out
    assert f"{metrics['top1']:.2%} of 360 held-out images right" in said
    assert f'timm.create_model("local-dir:{out}", pretrained=True)' in said
    card = (out / "README.md").read_text()
    assert f"{metrics['right']} of 360 held-out images right" in card
    # the recipe can be run again, and tells nothing of the machine
    config = TrainConfig.from_json(card.partition("```json\n")[2].partition("```")[0])
    assert config.run.out is None
    assert str(run_folder) not in card
    assert config.optim.epochs == 1
    # the weights, and through them the scores, are the run's
    weights = load_tensors(run_folder / "model.safetensors")[0]
    state = from_pretrained(out).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())
    shared = load_classifier(str(out))
    data = load_data("digits")
    assert shared.classes == data.classes
    assert (shared.view.mean, shared.view.std, shared.view.size) == (data.mean, data.std, 16)
    batches = (
        batch._replace(images=shared.view.standardise(batch.images))
        for batch in evaluation_batches(data.held_out, shared.view.pixels(data.held_out), 64)
    )
    assert evaluate(shared.network, batches, 10).right == metrics["right"]


def test_a_model_with_arguments_of_its_own_comes_back(tmp_path):
    words = ["--model-kwargs", "dim=16", "window_head_dim=16", "qna_blocks=1,1,0", "kernel_size=5"]
    options = ["--epochs", "1", "--batch-size", "512", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(["train", "--data", "digits", *words, *options]) == 0
    assert main(["share", str(tmp_path / "run"), "--out", str(tmp_path / "shared")]) == 0
    weights = load_tensors(tmp_path / "run" / "model.safetensors")[0]
    for model in (from_pretrained(tmp_path / "shared"), load_classifier(str(tmp_path / "shared")).network):
        assert model.stages[0][0].mixer.kernel_size == (5, 5)
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights.items())


def test_a_shared_model_starts_a_run(run_folder, tmp_path):
    assert main(["share", str(run_folder), "--out", str(tmp_path / "m")]) == 0
    options = ["--epochs", "1", "--batch-size", "512", "--device", "cpu", "--out", str(tmp_path / "tuned")]
    model = ["--model", f"local-dir:{tmp_path / 'm'}", "--pretrained"]
    assert main(["train", "--data", "digits", *model, "--lr", "0", *options]) == 0
    before, after = (json.loads((f / "metrics.json").read_text()) for f in (run_folder, tmp_path / "tuned"))
    assert after["right"] == before["right"]


def test_a_card_tells_no_places(tmp_path):
    for part, name, colour in product(("train", "val"), ("dark", "light"), (20, 220)):
        (tmp_path / "pets" / part / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 32), (colour,) * 3).save(tmp_path / "pets" / part / name / f"{colour}.png")
    start, run, out = (tmp_path / name for name in ("w.pth", "run", "out"))
    torch.save(create_network(NetworkOptions(model="test_convnext"), classes=2).state_dict(), start)
    options = [
        "--image-size",
        "32",
        "--batch-size",
        "2",
        "--epochs",
        "1",
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    model = ["--model", "test_convnext", "--weights", str(start), "--precision", "fp32"]
    assert main(["train", "--data", str(tmp_path / "pets"), *options, *model, "--out", str(run)]) == 0
    assert main(["share", str(run), "--out", str(out)]) == 0
    texts = [(out / name).read_text() for name in ("README.md", "config.json")]
    assert not [text for text in texts if str(tmp_path) in text]
    assert "# test_convnext on pets" in texts[0]
    assert '"data": "pets"' in texts[0]
    assert '"weights": "w.pth"' in texts[0]
    assert from_pretrained(out).pretrained_cfg["label_names"] == ["dark", "light"]


@pytest.mark.parametrize(
    "case",
    [
        ("none", "new", "none is not the folder of a complete run: metrics.json: No such file"),
        ("RUN", "used", "used is in use; a model is shared in a folder of its own"),
    ],
)
def test_bad_input_ends_with_one_sentence(case, run_folder, tmp_path, monkeypatch, capsys):
    run, out, said = case
    monkeypatch.chdir(tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("precious")
    assert main(["share", run.replace("RUN", str(run_folder)), "--out", out]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"qna: {said}")
    assert error.count("\n") == 1
    assert {path.name for path in tmp_path.rglob("*")} == {"used", "mine.txt"}
