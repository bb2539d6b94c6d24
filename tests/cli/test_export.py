"""What `qna export` writes and says, as a user meets it."""

import errno
import json
import os

import pytest
import torch

import qna.export
from qna.cli import main
from qna.models import create, save_pretrained

runtime = pytest.importorskip("onnxruntime", reason="qna[export] brings it")
pytest.importorskip("onnxscript", reason="qna[export] brings it")

SMALL = {"dim": 16, "window_blocks": (0,), "qna_blocks": (1,), "window_sizes": (4,)}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A network of one block in a folder that timm reads, in two classes."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("shared") / "network"
    prepared = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "input_size": (3, 20, 20)}
    network = create("qna_vit_nano_16", num_classes=2, **SMALL)
    save_pretrained(network, folder, class_names=["cat", "dog"], data_config=prepared)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
def test_onnx_of_a_shared_network(shared, int8, tmp_path, capsys):
    path = tmp_path / "model.onnx"
    assert main(["export", str(shared), "--to", str(path), *(["--int8"] if int8 else [])]) == 0
    out, err = capsys.readouterr()
    assert ("in 8 bits" in out) == int8
    assert "tried with batch x height x width = 1x20x20, 3x37x53, 1x64x41" in out
    assert err.split("\n")[:3] == ["recording the graph", "writing its nodes", "trying it in ONNX Runtime"]
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    told = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    assert told["classes"] == ["cat", "dog"]
    assert (told["mean"], told["std"], told["image_size"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], 20)
    assert told["model"] == "qna_vit_nano_16"
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    network = create(f"local-dir:{shared}", pretrained=True).eval()
    x = torch.randn(2, 3, 30, 19)
    with torch.no_grad():
        expected = network(x)
    (logits,) = session.run(["logits"], {"images": x.numpy()})
    torch.testing.assert_close(
        torch.from_numpy(logits), expected, rtol=0, atol=(0.2 if int8 else 1e-4) * expected.std().item()
    )


@pytest.mark.slow
def test_an_archive_of_a_shared_network(shared, tmp_path, capsys):
    path = tmp_path / "model.pt2"
    assert main(["export", str(shared), "--to", str(path), "--sizes", "17x33", "24x24"]) == 0
    assert "torch.export" in capsys.readouterr().out
    extra = {"metadata/classes": ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra["metadata/classes"]) == ["cat", "dog"]
    network = create(f"local-dir:{shared}", pretrained=True).eval()
    x = torch.randn(4, 3, 40, 18)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_network_of_one_size_is_exported_with_its_batch_open(tmp_path, capsys):
    torch.manual_seed(0)
    folder, path = tmp_path / "vit", tmp_path / "vit.onnx"
    network = create(
        "vit_tiny_patch16_224", num_classes=2, img_size=32, patch_size=8, depth=1, embed_dim=24, num_heads=2
    )
    save_pretrained(network, folder)
    words = ["export", str(folder), "--to", str(path), "--image-size", "32"]
    assert main(words) == 2
    assert capsys.readouterr().err.strip().endswith("name fewer sizes in its shape")
    assert not path.exists()
    assert main([*words, "--fixed-size"]) == 0
    assert "tried with batch = 1, 3" in capsys.readouterr().out


def test_a_full_disk_is_named_once(shared, tmp_path, capsys, monkeypatch):
    def full(network, path, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{path}.tmp")

    monkeypatch.setattr(qna.export, "export_onnx", full)
    assert main(["export", str(shared), "--to", str(tmp_path / "m.onnx")]) == 2
    assert capsys.readouterr().err == f"qna: cannot write {tmp_path / 'm.onnx'}: No space left on device\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--to", "m.txt"], "--to must end in .onnx or .pt2, which says what is written, got m.txt"),
        (["--to", "m.pt2", "--int8"], "--int8 belongs to ONNX: name a file that ends in .onnx, got m.pt2"),
        (["--to", "m.onnx", "--sizes", "32"], "--sizes are heights and widths as 160x320, got '32'"),
        (["--to", "m.onnx", "--sizes", "0x3"], "--sizes are heights and widths as 160x320, got '0x3'"),
        (["--to", "m.onnx", "--sizes", "3x3", "--fixed-size"], "--fixed-size leaves them one"),
        (["--to", "no/m.onnx"], "there is no folder no to write m.onnx to"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "runs/digits", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert told in said
    assert not list(tmp_path.iterdir())


def test_a_name_without_weights_is_refused(tmp_path, capsys):
    assert main(["export", "qna_vit_nano_16", "--to", str(tmp_path / "m.onnx")]) == 2
    assert "has no weights: give --pretrained for timm's, or --weights FILE" in capsys.readouterr().err
