"""SpectFormer: logits of the authors' code, their layout of checkpoints, counts, the second head."""

import importlib.util
import json
from pathlib import Path

import pytest
import timm
import torch

from qna._core.errors import InvalidInput
from qna._core.with_losses import WithLosses
from qna.models.convert import convert
from qna.models.spectformer import SPECTFORMER, SPECTFORMER_H

GOLDEN = json.loads((Path(__file__).parent / "golden" / "spectformer.json").read_text())
NANO = "spectformer_h_nano_32"

_spec = importlib.util.spec_from_file_location("golden_rule", Path(__file__).parent / "golden" / "rule.py")
rule = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rule)


def authors_file(case, path):
    """A file as the authors' code would write it."""
    shapes = {n: tuple(shape) for n, shape in GOLDEN[case]["shapes"].items()}
    counters = {n for n in shapes if n.endswith("num_batches_tracked")}
    state = {n: torch.from_numpy(rule.torch_tensor(n, s)) for n, s in shapes.items() if n not in counters}
    state |= {n: torch.zeros((), dtype=torch.int64) for n in counters}
    torch.save(state, path)
    return state


@pytest.mark.parametrize("case", GOLDEN)
def test_logits_of_the_authors_network(case, tmp_path):
    golden = GOLDEN[case]
    authors_file(case, tmp_path / "theirs.pth")
    arguments = dict(golden["arguments"])
    classes = arguments.pop("num_classes")
    convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", golden["model"], arguments)
    model = timm.create_model(
        golden["model"],
        checkpoint_path=str(tmp_path / "ours.safetensors"),
        num_classes=classes,
        **arguments,
    )
    model = model.double().eval()
    for output in golden["outputs"]:
        with torch.no_grad():
            logits = model(torch.from_numpy(rule.images(*output["size"])).double())
        expected = torch.tensor(output["logits"], dtype=torch.float64)
        assert (logits - expected).abs().max().item() < 1e-9 * output["deviation"]


@pytest.mark.parametrize("name", ["q.weight", "kv.bias"])
def test_a_file_without_queries_or_keys_is_refused(name, tmp_path):
    state = authors_file("stages", tmp_path / "theirs.pth")
    del state[f"block3.0.attn.{name}"]
    torch.save(state, tmp_path / "theirs.pth")
    arguments = {k: v for k, v in GOLDEN["stages"]["arguments"].items() if k != "num_classes"}
    with pytest.raises(InvalidInput, match=r"block3\.0\.attn"):
        convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", "spectformer_h_s", arguments)
    assert not (tmp_path / "ours.safetensors").exists()


@pytest.mark.parametrize("name", [*SPECTFORMER, *SPECTFORMER_H])
def test_counts(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    variant = {**SPECTFORMER, **SPECTFORMER_H}[name]
    assert sum(p.numel() for p in model.parameters()) == variant.parameters


@pytest.mark.parametrize(
    ("name", "count"),
    [("spectformer_h_s", 22_226_928), ("spectformer_h_b", 33_052_880), ("spectformer_h_l", 54_675_792)],
)
def test_published_counts_hold_the_second_head(name, count):
    with torch.device("meta"):
        model = timm.create_model(name, aux_weight=0.5)
    assert sum(p.numel() for p in model.parameters()) == count


def test_the_second_head_is_supervised_in_training():
    model = timm.create_model(NANO, num_classes=5, aux_weight=0.5).train()
    found = model(torch.randn(2, 3, 40, 24))
    assert isinstance(found, WithLosses)
    assert found.output.shape == found.supervised["positions"].output.shape == (2, 5)
    assert found.supervised["positions"].weight == 0.5
    (found.output.sum() + found.supervised["positions"].output.sum()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_position_logits_need_the_second_head():
    with pytest.raises(InvalidInput, match="aux_weight"):
        timm.create_model(NANO).position_logits(torch.zeros(1, 2, 2, 64))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("spectformer_xs", {"spectral": 13}, "at most all are spectral, got 13"),
        ("spectformer_h_s", {"spectral": 5}, "at most all are spectral, got 5"),
        ("spectformer_h_s", {"depths": (1, 2)}, "one number per stage"),
        ("spectformer_h_s", {"depths": (1, 2, 0, 1)}, "positive integers"),
        ("spectformer_h_s", {"dims": 64}, "one number per stage"),
        ("spectformer_h_s", {"aux_weight": -1.0}, "aux_weight"),
    ],
)
def test_refuses(name, arguments, message):
    variant = {**SPECTFORMER, **SPECTFORMER_H}[name]
    with pytest.raises(InvalidInput, match=message):
        variant.varied(arguments)


def test_the_example_of_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "spectformer.md").read_text()
    exec(page.split("```python\n")[1].split("```")[0], {})
