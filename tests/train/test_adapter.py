"""Runs of adapted networks: options, weights to start from, files that come back, tasks that take none."""

import os
import signal

import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput, UnknownName
from qna.adapters import applied, from_pretrained
from qna.cli import main
from qna.cli.train import parse
from qna.train import RunStopped, TrainConfig, fit, resume
from qna.train.checkpoint import load_tensors
from qna.train.config import NetworkOptions
from qna.train.folder import CONFIG
from qna.train.network import create_network, prepare_network
from qna.train.reload import load_classifier
from qna.train.tasks.detection import DetectionOptions, build_detector
from qna.train.tasks.segmentation import SegmentationOptions, build_segmenter
from tests.train.test_interruption import Losses

MODEL = "vit_tiny_patch16_224"
SMALL = ("patch_size=8", "embed_dim=24", "depth=2", "num_heads=3")
SWAP = ("mixer=QnA2d", "of=attention", 'arguments={"kernel_size":3}')
OPTIONS = NetworkOptions(model=MODEL, model_kwargs=SMALL, adapter="swap_mixer", adapter_args=SWAP)


def built(**changes):
    options = NetworkOptions(**{**OPTIONS.__dict__, **changes})
    return prepare_network(create_network(options, classes=2, channels=1, image_size=32), options)


@pytest.fixture
def run(config, changed):
    return fit(
        changed(config, model=MODEL, model_kwargs=SMALL, adapter="swap_mixer", adapter_args=SWAP, epochs=1)
    )


def test_a_run_keeps_its_adapter_wherever_it_goes(run, tmp_path):
    again = TrainConfig.from_file(run.folder / CONFIG)
    assert (again.network.adapter, again.network.adapter_args) == ("swap_mixer", SWAP)
    path = run.folder / "model.safetensors"
    classifiers = [load_classifier(str(run.folder)), load_classifier(MODEL, weights=path)]
    assert main(["share", str(run.folder), "--out", str(tmp_path / "shared")]) == 0
    shared = from_pretrained(tmp_path / "shared")
    classifiers.append(load_classifier(f"local-dir:{tmp_path / 'shared'}"))
    x = torch.randn(2, 1, 32, 32)
    for network in (shared, *(classifier.network for classifier in classifiers)):
        assert [each.adapter.mixer for each in applied(network)] == ["QnA2d"]
        assert torch.equal(network(x), classifiers[0].network(x))


def test_weights_of_the_bare_network_are_there_before_the_adapter(tmp_path):
    bare = built(adapter=None, adapter_args=())
    path = tmp_path / "bare.pth"
    torch.save(bare.state_dict(), path)
    network = built(weights=path)
    old, new = bare.blocks[0].attn, network.blocks[0].attn
    assert torch.equal(new.mixer.project.value.weight, old.qkv.weight.chunk(3)[2])
    assert torch.equal(new.prefix.qkv.weight, old.qkv.weight)
    assert torch.equal(network.blocks[1].mlp.fc1.weight, bare.blocks[1].mlp.fc1.weight)


def test_weights_of_the_adapted_network_fill_all_of_it(tmp_path):
    first = built()
    with torch.no_grad():
        for p in first.parameters():
            p.add_(torch.randn_like(p))
    path = tmp_path / "adapted.pth"
    torch.save(first.state_dict(), path)
    again = built(weights=path).state_dict()
    assert all(torch.equal(again[name], t) for name, t in first.state_dict().items())
    torch.save({n: t for n, t in first.state_dict().items() if "project" not in n}, path)
    with pytest.raises(InvalidInput, match=r"blocks.0.attn.mixer.project"):
        built(weights=path)


class Counting(nn.Module):
    """Keeps what it is told of epochs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def begin_epoch(self, epoch, epochs):
        self.seen.append((epoch, epochs))


def test_modules_are_told_of_epochs(config, monkeypatch):
    counting = Counting()

    def with_counting(*arguments, **options):
        network = create_network(*arguments, **options)
        network.add_module("counting", counting)
        return network

    monkeypatch.setattr("qna.train.tasks.classification.create_network", with_counting)
    fit(config)
    assert counting.seen == [(0, 2), (1, 2)]


def test_words_of_the_command_line():
    words = ["--adapter", "swap_mixer", "--adapter-args", *SWAP]
    config = parse(["--data", "digits", *words])
    assert config.network.adapter_arguments() == {
        "mixer": "QnA2d",
        "of": "attention",
        "arguments": {"kernel_size": 3},
    }
    with pytest.raises(UnknownName, match="unknown adapter 'swapmixer'; did you mean 'swap_mixer'"):
        built(adapter="swapmixer")
    with pytest.raises(InvalidInput, match=r"adapter_args must be NAME=VALUE, .* got 'QnA2d'"):
        NetworkOptions(adapter="swap_mixer", adapter_args=("QnA2d",))
    with pytest.raises(InvalidInput, match="adapter_args are of an adapter, and none is named"):
        NetworkOptions(adapter_args=("mixer=QnA2d",))


def test_tasks_that_take_no_adapter_say_so():
    with pytest.raises(InvalidInput, match="is put around classifiers, and this is segm"):
        build_segmenter(OPTIONS, SegmentationOptions(), classes=2, channels=1)
    with pytest.raises(InvalidInput, match="is put around classifiers, and this is detec"):
        build_detector(OPTIONS, DetectionOptions(), ("a",), 64)


AROUND = {
    "evit": ("keep_rate=0.5", "layers=(1,)", "start_epochs=1", "shrink_epochs=1"),
    "gated": ("bias=1.0",),
    "tap_adl": ("scales=3", "threshold=0.5"),
    "swap_mixer": SWAP,
    "moh": ("shared_heads=1", "routed_heads=1"),
}


@pytest.mark.parametrize("adapter", AROUND)
def test_an_interrupted_run_of_an_adapted_network_goes_on_bit_for_bit(adapter, config, changed):
    """In the midst of the second of three epochs, with what moves by epochs and what norms remember."""
    told = changed(
        config, model=MODEL, model_kwargs=SMALL, adapter=adapter, adapter_args=AROUND[adapter], epochs=3
    )
    expected = fit(told, whole := Losses())
    with pytest.raises(RunStopped):
        fit(told, first := Losses(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    outcome = resume(expected.folder.with_name("run-2"), rest := Losses())
    assert {**first.losses, **rest.losses} == whole.losses
    assert len(first.losses) == 3 < len(whole.losses)
    for name in ("model.safetensors", "checkpoint.safetensors"):
        ours, theirs = (load_tensors(run.folder / name)[0] for run in (outcome, expected))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_learns_its_routers_of_heads(config, changed):
    moh = ("shared_heads=1", "routed_heads=1", "balance=0.05")
    run = fit(changed(config, model=MODEL, model_kwargs=SMALL, adapter="moh", adapter_args=moh, epochs=1))
    network = load_classifier(str(run.folder)).network
    (one,) = applied(network)
    assert one.adapter.settings() == {
        "shared_heads": 1,
        "routed_heads": 1,
        "balance": 0.05,
        "router": "learned",
        "layers": None,
    }
    fresh = built(adapter="moh", adapter_args=moh).state_dict()
    learned = network.state_dict()
    for name in one.added:
        assert learned[name].isfinite().all()
        assert learned[name].abs().sum() > 0
        assert not torch.equal(learned[name], fresh[name])
