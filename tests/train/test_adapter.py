"""Runs of adapted networks: options, weights to start from, files that come back, tasks that take none."""

import json
import os
import signal

import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput, UnknownName
from qna.adapters import added_names, applied, from_pretrained
from qna.cli import main
from qna.cli._progress import TerminalObserver
from qna.cli.train import parse
from qna.train import Observer, RunStopped, TrainConfig, fit, resume
from qna.train.checkpoint import load_tensors
from qna.train.config import NetworkOptions
from qna.train.folder import CONFIG
from qna.train.network import create_network, prepare_network
from qna.train.reload import load_classifier
from qna.train.sharding import shard
from qna.train.tasks.detection import DetectionOptions, build_detector
from qna.train.tasks.segmentation import SegmentationOptions, build_segmenter
from tests.train.test_interruption import Losses

MODEL = "vit_tiny_patch16_224"
SMALL = ("patch_size=8", "embed_dim=24", "depth=2", "num_heads=3")
SWAP = ("mixer=QnA2d", "of=attention", 'arguments={"kernel_size":3}')
OPTIONS = NetworkOptions(model=MODEL, model_kwargs=SMALL, adapter=("swap_mixer",), adapter_args=SWAP)
PROMPTS = ("tcpa", "pool=4,4", "top=2,2", "random_epochs=1", "gated", "per=head", "bias=2.0")


def built(**changes):
    options = NetworkOptions(**{**OPTIONS.__dict__, **changes})
    return prepare_network(create_network(options, classes=2, channels=1, image_size=32), options)


@pytest.fixture
def run(config, changed):
    return fit(
        changed(config, model=MODEL, model_kwargs=SMALL, adapter=("swap_mixer",), adapter_args=SWAP, epochs=1)
    )


def test_a_run_keeps_its_adapter_wherever_it_goes(run, tmp_path):
    again = TrainConfig.from_file(run.folder / CONFIG)
    assert (again.network.adapter, again.network.adapter_args) == (("swap_mixer",), SWAP)
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


def test_a_run_of_prompts_and_gates_trains_them_and_the_classifier(config, changed, tmp_path, capsys):
    start = built(adapter=None, adapter_args=()).state_dict()
    torch.save(start, tmp_path / "bare.pth")
    told = changed(
        config,
        model=MODEL,
        model_kwargs=SMALL,
        adapter=PROMPTS,
        weights=tmp_path / "bare.pth",
        weight_decay=0.5,
    )
    with TerminalObserver() as observer:
        outcome = fit(told, observer)
    network = outcome.network
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert f"{count:,} of them trained" in " ".join(capsys.readouterr().out.split())
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == added_names(network) | {"head.weight", "head.bias"}
    found = network.state_dict()
    assert all(torch.equal(found[name], start[name]) for name in start if not name.startswith("head."))
    fresh = built(adapter=PROMPTS, adapter_args=()).state_dict()
    assert not any(torch.equal(found[name], fresh[name]) for name in trained)
    (loss,) = {name for line in events(outcome.folder) for name in line if name.startswith("loss/")}
    assert loss == "loss/prompt_match"
    assert main(["share", str(outcome.folder), "--out", str(tmp_path / "shared")]) == 0
    x, shared = torch.randn(2, 1, 32, 32), from_pretrained(tmp_path / "shared")
    for again in (shared, load_classifier(str(outcome.folder)).network):
        assert [each.adapter.name for each in applied(again)] == ["tcpa", "gated"]
        assert torch.equal(again(x), network.eval()(x))
    resumed = resume(outcome.folder)
    assert all(torch.equal(resumed.network.state_dict()[name], t) for name, t in found.items())


def events(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_weights_of_a_network_that_holds_the_first_adapter(tmp_path):
    first = built(adapter=("tcpa",), adapter_args=("pool=4,4", "top=2,2"))
    torch.save(first.state_dict(), tmp_path / "first.pth")
    both = built(
        adapter=("tcpa", "pool=4,4", "top=2,2", "gated"), adapter_args=(), weights=tmp_path / "first.pth"
    )
    found = both.state_dict()
    assert all(torch.equal(found[name], t) for name, t in first.state_dict().items())
    assert added_names(both) > added_names(first)


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


SPARSE = ("keep_rate=0.4", "reduce_tokens=3", "reconstruction_epochs=1")


def weights_in(folder):
    return load_tensors(folder / "model.safetensors")[0]


def test_parts_that_rest_are_not_compiled(config, changed):
    """Compiled, their gradients are zeros and not none, and an optimizer's decay moves them."""
    options = {"model": MODEL, "model_kwargs": SMALL, "adapter": ("sparsifiner",), "adapter_args": SPARSE}
    with pytest.raises(InvalidInput, match=r"weight decay moves parts that rest .*; leave --compile out"):
        fit(changed(config, compile=True, **options))


def test_a_run_in_phases_goes_on_bit_for_bit(config, changed, tmp_path):
    """Of three epochs of two updates the first fits predictors; after it a teacher is kept with the run."""
    options = {"model": MODEL, "model_kwargs": SMALL, "adapter": ("sparsifiner",), "adapter_args": SPARSE}
    wanted = changed(config, epochs=3, save_every=1, **options)
    whole = fit(changed(wanted, out=tmp_path / "whole"))
    theirs = weights_in(whole.folder)
    assert not any("beside" in name or "teacher" in name for name in theirs)

    class Stopping(Observer):
        def update(self, step, epoch, loss):
            if step in (1, 3):
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunStopped):
        fit(changed(wanted, out=tmp_path / "broken"), Stopping())
    with pytest.raises(RunStopped):
        resume(tmp_path / "broken", Stopping())
    ours = weights_in(resume(tmp_path / "broken").folder)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], t) for name, t in theirs.items())
    parts = [json.loads(line) for line in (whole.folder / "log.jsonl").read_text().splitlines()]
    told = [{n for n in line if n.startswith("loss/")} for line in parts if line["event"] == "update"]
    assert told[:2] == [{"loss/attention_reconstruction"}] * 2
    assert told[2:] == [{"loss/logits_distillation", "loss/token_distillation"}] * 4


def test_parts_that_rest_are_not_sharded():
    network = built(adapter=("sparsifiner",), adapter_args=SPARSE)
    with pytest.raises(InvalidInput, match="whose teacher is a whole copy of it; leave --sharding out"):
        shard(network, torch.device("cpu"))


def test_words_of_the_command_line():
    words = ["--adapter", "swap_mixer", "--adapter-args", *SWAP]
    config = parse(["--data", "digits", *words])
    arguments = {"mixer": "QnA2d", "of": "attention", "arguments": {"kernel_size": 3}}
    assert config.network.adapters() == [("swap_mixer", arguments)]
    config = parse(["--data", "digits", "--adapter", "evit", "keep_rate=0.7", "gated", "per=head"])
    assert config.network.adapters() == [("evit", {"keep_rate": 0.7}), ("gated", {"per": "head"})]
    assert TrainConfig.from_json(config.to_json()) == config
    # as earlier files have it
    earlier = {"adapter": "evit", "adapter_args": ["keep_rate=0.5"]}
    again = TrainConfig.from_json(json.dumps({"network": earlier}))
    assert again.network.adapters() == [("evit", {"keep_rate": 0.5})]
    with pytest.raises(UnknownName, match="unknown adapter 'swapmixer'; did you mean 'swap_mixer'"):
        built(adapter=("swapmixer",))
    with pytest.raises(InvalidInput, match=r"arguments of swap_mixer must be NAME=VALUE, .* got 'QnA2d'"):
        NetworkOptions(adapter=("swap_mixer",), adapter_args=("QnA2d",))
    with pytest.raises(InvalidInput, match="adapter begins with the name of one, got 'per=head'"):
        NetworkOptions(adapter=("per=head", "gated"))
    with pytest.raises(InvalidInput, match="adapter_args are of one adapter, and evit and gated are named"):
        NetworkOptions(adapter=("evit", "gated"), adapter_args=("per=head",))
    with pytest.raises(InvalidInput, match="tcpa has no meaning in a network that holds evit; apply it to"):
        built(adapter=("evit", "layers=1,", "tcpa"), adapter_args=())
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
    "minimal": ("qk=symmetric", "value=collapsed"),
    "vfpt": ("tokens=4", "dropout=0.2", "deep=False"),
}


@pytest.mark.parametrize("adapter", AROUND)
def test_an_interrupted_run_of_an_adapted_network_goes_on_bit_for_bit(adapter, config, changed):
    """In the midst of the second of three epochs, with what moves by epochs and what norms remember."""
    told = changed(
        config, model=MODEL, model_kwargs=SMALL, adapter=(adapter,), adapter_args=AROUND[adapter], epochs=3
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
    run = fit(changed(config, model=MODEL, model_kwargs=SMALL, adapter=("moh",), adapter_args=moh, epochs=1))
    network = load_classifier(str(run.folder)).network
    (one,) = applied(network)
    assert one.adapter.settings() == {
        "shared_heads": 1,
        "routed_heads": 1,
        "balance": 0.05,
        "router": "learned",
        "layers": None,
    }
    fresh = built(adapter=("moh",), adapter_args=moh).state_dict()
    learned = network.state_dict()
    for name in one.added:
        assert learned[name].isfinite().all()
        assert learned[name].abs().sum() > 0
        assert not torch.equal(learned[name], fresh[name])
