"""Checkpoints of adapters' authors: whole or refused by name, nothing half-written."""

import pytest
import timm
import torch
from safetensors.torch import load_file

from qna._core.errors import InvalidInput
from qna.adapters import TCPA, EViT, Sparsifiner, SwapMixer
from qna.adapters.convert import convert
from qna.cli import main
from tests.adapters.contract import images

MODEL = "vit_tiny_patch16_224"
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3}
WORDS = [f"{name}={value}" for name, value in SMALL.items()]


@pytest.fixture
def published(tmp_path):
    """As the authors of EViT save theirs."""
    network = timm.create_model(MODEL, num_classes=7, **SMALL).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    torch.save({"model": network.state_dict(), "epoch": 3}, tmp_path / "theirs.pth")
    return network


def test_the_command_converts_and_the_weights_load(published, tmp_path, capsys):
    target = tmp_path / "ours.safetensors"
    arguments = [
        "convert",
        str(tmp_path / "theirs.pth"),
        str(target),
        "--model",
        MODEL,
        "--model-kwargs",
        *WORDS,
    ]
    assert main([*arguments, "--adapter", "evit", "--adapter-args", "keep_rate=0.7", "layers=1,2"]) == 0
    assert f"{len(published.state_dict())} tensors of {MODEL}" in capsys.readouterr().out
    network = timm.create_model(MODEL, num_classes=7, checkpoint_path=str(target), **SMALL).eval()
    assert torch.equal(network(images()), published(images()))


def test_what_does_not_fit_is_said_and_nothing_is_written(published, tmp_path):
    source, target = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    with pytest.raises(InvalidInput, match=r"\.blocks\.3\.|blocks.3"):
        convert(source, target, MODEL, EViT(layers=(1,)), {**SMALL, "depth": 3})
    with pytest.raises(InvalidInput, match="of adapter swap_mixer no published checkpoint can be read"):
        convert(source, target, MODEL, SwapMixer("Identity2d", "attention"), SMALL)
    with pytest.raises(InvalidInput, match="of adapter tcpa no published checkpoint can be read"):
        convert(source, target, MODEL, TCPA(), SMALL)
    with pytest.raises(InvalidInput, match=r"must end in \.safetensors"):
        convert(source, tmp_path / "ours.pth", MODEL, EViT(layers=(1,)), SMALL)
    with pytest.raises(InvalidInput, match="there is no folder"):
        convert(source, tmp_path / "none" / "ours.safetensors", MODEL, EViT(layers=(1,)), SMALL)
    with pytest.raises(InvalidInput, match="layers must be different block numbers from 0 to 3"):
        convert(source, target, MODEL, EViT(), SMALL)
    source.write_bytes(source.read_bytes()[:1000])
    with pytest.raises(InvalidInput, match="is no PyTorch checkpoint, or a truncated one"):
        convert(source, target, MODEL, EViT(layers=(1,)), SMALL)
    assert not target.exists()


def test_predictors_are_called_as_the_authors_of_sparsifiner_call_them(tmp_path):
    """As their `save_model` writes: the state under "model", beside what is none of it."""
    adapter = Sparsifiner(keep_rate=0.3, reduce_tokens=3)
    theirs = adapter.apply(timm.create_model(MODEL, num_classes=7, **SMALL)).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.randn_like(p))
    state = {name: t.clone() for name, t in theirs.state_dict().items()}
    source, target = tmp_path / "checkpoint-best.pth", tmp_path / "ours.safetensors"
    torch.save({"model": state, "optimizer": {}, "epoch": 49, "scaler": {}}, source)
    words = ["convert", str(source), str(target), "--model", MODEL, "--model-kwargs", *WORDS]
    further = ["--adapter", "sparsifiner", "--adapter-args", "keep_rate=0.3", "reduce_tokens=3"]
    assert main([*words, *further]) == 0
    ours = adapter.apply(timm.create_model(MODEL, num_classes=7, **SMALL)).eval()
    ours.load_state_dict(load_file(target))
    assert torch.equal(ours(images()), theirs(images()))
    missing = "blocks.2.attn.mask_predictor.proj_back_n"
    torch.save({"model": {n: t for n, t in state.items() if n != missing}}, source)
    target.unlink()
    with pytest.raises(InvalidInput, match=missing):
        convert(source, target, MODEL, adapter, SMALL)
    # of images of another size
    torch.save({"model": state}, source)
    with pytest.raises(InvalidInput, match=r"pos_embed|proj_n"):
        convert(source, target, MODEL, adapter, {**SMALL, "img_size": 48})
    assert not target.exists()
