"""Damaged and crafted files: each is refused in one sentence or read as what it says, and nothing else."""

import json
import random
import resource
import struct
import zipfile

import pytest
import timm
import torch

from qna._core.errors import InvalidInput
from qna.cli.share import _read_metrics
from qna.data import DATA, DataSpec
from qna.models.sharing import read_config, save_pretrained
from qna.train import TrainConfig, fit
from qna.train.checkpoint import load_checkpoint, load_tensors
from qna.train.config import ImageOptions, NetworkOptions, OptimOptions, RunOptions
from qna.train.folder import cut_log
from qna.train.reload import load_classifier
from qna.train.weights import read_weights
from tests.train.conftest import few

# far above what reading these files takes, far below what their headers can be made to ask for
ROOM = 400 * 2**20
FEW, MANY = 60, 1500


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of the smallest kind."""
    options = TrainConfig(
        images=ImageOptions(data="few", image_size=32),
        network=NetworkOptions(model="test_vit"),
        optim=OptimOptions(epochs=1, batch_size=8, warmup_epochs=0),
        run=RunOptions(out=tmp_path_factory.mktemp("damage") / "run", device="cpu"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATA, "few", DataSpec("two classes of light", few))
        return fit(options)


def mutations(content, count, first=0, last=None):
    """`content` with flipped bits between `first` and `last`, cut short, or with a stretch of it doubled."""
    draw = random.Random(0)
    last = len(content) if last is None else last
    for number in range(count):
        at = draw.randrange(first, last)
        if number % 8 == 6:
            yield content[:at]
        elif number % 8 == 7:
            yield content[:at] + content[at : at + draw.randrange(1, 64)] + content[at:]
        else:
            changed = bytearray(content)
            for _ in range(draw.choice((1, 1, 1, 8))):
                changed[draw.randrange(first, last)] ^= 1 << draw.randrange(8)
            yield bytes(changed)


def refusals(path, contents, read):
    """How many of `contents`, written to `path`, `read` refuses; anything but one sentence is an error."""
    before, said = {p.name for p in path.parent.iterdir()}, []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in contents:
        path.write_bytes(content)
        try:
            read(path)
        except InvalidInput as error:
            said.append(str(error))
        assert path.read_bytes() == content
    assert {p.name for p in path.parent.iterdir()} == before | {path.name}
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) < ROOM
    assert not [text for text in said if "\n" in text or len(text) > 2000]
    return len(said)


def header_end(content):
    return 8 + struct.unpack("<Q", content[:8])[0]


def tiers(few=FEW):
    return pytest.mark.parametrize("count", [few, pytest.param(MANY, marks=pytest.mark.long)])


@tiers()
def test_weights_of_a_run(count, run, tmp_path):
    content = (run.folder / "model.safetensors").read_bytes()

    def read(path):
        classifier = load_classifier(str(path))
        assert classifier.network(torch.zeros(1, 1, *2 * (classifier.view.size,))).shape == (1, 2)

    found = mutations(content, count, last=header_end(content))
    assert refusals(tmp_path / "w.safetensors", found, read) > count / 2


@tiers()
def test_a_checkpoint(count, run, tmp_path):
    content = (run.folder / "checkpoint.safetensors").read_bytes()
    own = load_tensors(run.folder / "checkpoint.safetensors")[0]

    def read(path):
        network = timm.create_model("test_vit", num_classes=2, in_chans=1, img_size=32)
        parameters = list(network.parameters())
        optimizer = torch.optim.AdamW(parameters)
        load_checkpoint(path, network=network, average=None, optimizer=optimizer)
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()

    assert own
    found = mutations(content, count, last=header_end(content))
    assert refusals(tmp_path / "c.safetensors", found, read) > count / 2


@tiers()
@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file(legacy, count, run, tmp_path):
    torch.save(run.network.state_dict(), tmp_path / "whole.pth", _use_new_zipfile_serialization=not legacy)
    content = (tmp_path / "whole.pth").read_bytes()
    start = 0 if legacy else max(0, len(content) - 20_000)  # where the archive's list of parts is
    refusals(tmp_path / "w.pth", mutations(content, count // 2, first=start), read_weights)
    refusals(tmp_path / "w.pth", mutations(content, count // 2, last=3000), read_weights)


@tiers(200)
def test_text_files(count, run, tmp_path):
    configuration = (run.folder / "config.json").read_bytes()
    assert refusals(tmp_path / "a", mutations(configuration, count), TrainConfig.from_file) > count / 2
    metrics = (run.folder / "metrics.json").read_bytes()
    assert refusals(tmp_path / "a", mutations(metrics, count), lambda p: _read_metrics(p.parent, "a"))
    log = (run.folder / "log.jsonl").read_bytes()
    for content in mutations(log, count):
        (tmp_path / "log").write_bytes(content)
        assert all(isinstance(event["event"], str) for event in cut_log(tmp_path / "log", 10, 10))


@tiers(200)
def test_a_shared_folder(count, run, tmp_path):
    save_pretrained(run.network, tmp_path / "m", class_names=("above", "below"))
    path = tmp_path / "m" / "config.json"
    content = path.read_bytes()
    assert refusals(path, mutations(content, count), lambda p: read_config(p.parent)) > count / 3
    named = f"local-dir:{tmp_path / 'm'}"
    refusals(path, mutations(content, count // 10), lambda p: load_classifier(named))
    path.write_bytes(content)
    weights = tmp_path / "m" / "model.safetensors"
    whole = weights.read_bytes()
    found = mutations(whole, count // 10, last=header_end(whole))
    assert refusals(weights, found, lambda p: load_classifier(named))


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
CRAFTED = {
    "length": struct.pack("<Q", 2**62) + b"{}",
    "long": struct.pack("<Q", 90 * 2**20) + b" " * 90 * 2**20,
    "many": safetensors({f"{i}": EMPTY for i in range(70_000)}),
    "deep": safetensors(b'{"a":' * 100_000),
    "text": safetensors({"__metadata__": {"qna": "[" * 100_000}}),
    "list": safetensors({"__metadata__": {"qna": "[]"}}),
    "numbers": safetensors({"a": {"dtype": "F32", "shape": [2**63], "data_offsets": [0, 0]}}),
    "negative": safetensors({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}),
    "overflow": safetensors({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 0]}}),
    "empty": b"",
}


@pytest.mark.parametrize("kind", CRAFTED)
def test_crafted_headers(kind, tmp_path):
    path = tmp_path / "w.safetensors"
    for read in (load_tensors, lambda p: load_classifier(str(p))):
        assert refusals(path, [CRAFTED[kind]], read) == 1
    assert refusals(path, [CRAFTED[kind]], lambda p: load_classifier("test_vit", weights=p)) == 1


@pytest.mark.parametrize(
    ("group", "change"),
    [
        ("images", {"image_size": 60_000}),
        ("network", {"model_kwargs": ["embed_dim=1048576"]}),
        ("network", {"model": "vit_giant_patch14_dinov2"}),
    ],
)
def test_a_header_that_names_a_giant_is_refused_before_it_is_built(group, change, run, tmp_path):
    content = (run.folder / "model.safetensors").read_bytes()
    end = header_end(content)
    header = json.loads(content[8:end])
    about = json.loads(header["__metadata__"]["qna"])
    about["config"][group] |= change
    header["__metadata__"]["qna"] = json.dumps(about)
    crafted = safetensors(header, content[end:])
    assert refusals(tmp_path / "w.safetensors", [crafted], lambda p: load_classifier(str(p))) == 1


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("bomb/data.pkl", bytes(2**28))
    content = (tmp_path / "bomb").read_bytes()
    assert refusals(tmp_path / "w.pth", [content], read_weights) == 1


def test_a_run_named_as_a_folder_of_timm_says_what_to_do(run):
    with pytest.raises(
        InvalidInput, match=r"names no architecture; .* is a run of `qna train`, which `qna share`"
    ):
        load_classifier(f"local-dir:{run.folder}")
