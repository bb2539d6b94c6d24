"""Files of weights from elsewhere: what is taken of them, and what is refused rather than guessed."""

import argparse
import logging

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from qna._core.errors import InvalidInput
from qna.train.reload import load_classifier
from qna.train.weights import load_start, read_weights


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=5)


@pytest.fixture
def state(network):
    """Its tensors, which a test may change."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_same(found, state):
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def without_bias(state):
    del state["head.bias"]


def misshapen_bias(state):
    state["head.bias"] = torch.zeros(4)


def misshapen_kernel(state):
    state["head.weight"] = torch.zeros(5, 3)


def endless_kernel(state):
    state["head.weight"] = torch.zeros(10**13, 0)


def extra(state):
    state["head.more"] = torch.zeros(1)


def nan(state):
    state["blocks.0.mlp.fc1.weight"][1, 2] = torch.nan


def int8(state):
    state["head.weight"] = state["head.weight"].to(torch.int8)


def complex_numbers(state):
    state["norm.bias"] = state["norm.bias"].to(torch.complex64)


SPOILED = {
    without_bias: "has no tensor 'head.bias'",
    misshapen_bias: r"the shape of 'head.bias' is \(4,\), the network's is \(5,\)",
    misshapen_kernel: r"the shape of 'head.weight' is \(5, 3\), the network's is \(1000, 64\)",
    endless_kernel: r"the shape of 'head.weight' is \(10000000000000, 0\)",
    extra: "has a tensor 'head.more' that the network does not have",
    nan: "'blocks.0.mlp.fc1.weight' holds NaN",
    int8: "the numbers of 'head.weight' are int8, the network's are float32",
    complex_numbers: "the numbers of 'norm.bias' are complex64, the network's are float32",
}


@pytest.mark.parametrize("form", ["pth", "safetensors"])
@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_what_a_trained_network_lacks_is_never_made_up(spoil, form, state, tmp_path):
    spoil(state)
    path = tmp_path / f"w.{form}"
    (torch.save if form == "pth" else save_file)(state, path)
    with pytest.raises(InvalidInput, match=SPOILED[spoil]) as refused:
        load_classifier("test_vit", weights=path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("spoil", [without_bias, nan, int8, complex_numbers], ids=lambda s: s.__name__)
def test_a_start_is_refused_for_the_same_reasons(spoil, state, network, tmp_path):
    spoil(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InvalidInput, match=SPOILED[spoil].split(", the")[0]):
        load_start(timm.create_model("test_vit", num_classes=5), tmp_path / "w.pth")


@pytest.mark.parametrize("classes", [3, 0])
def test_only_a_start_takes_another_number_of_classes(classes, state, tmp_path):
    torch.save(timm.create_model("test_vit", num_classes=classes).state_dict(), tmp_path / "w.pth")
    start = timm.create_model("test_vit", num_classes=5)
    fresh = start.head.weight.clone()
    load_start(start, tmp_path / "w.pth")
    assert torch.equal(start.head.weight, fresh)
    assert torch.equal(start.cls_token, torch.load(tmp_path / "w.pth")["cls_token"])


WRAPPED = {
    "plain": lambda own: own,
    "model": lambda own: {"model": own, "epoch": 3},
    "state_dict": lambda own: {"state_dict": own, "arch": "test_vit"},
    "parallel": lambda own: {f"module.{name}": tensor for name, tensor in own.items()},
    "compiled": lambda own: {"state_dict": {f"_orig_mod.{name}": tensor for name, tensor in own.items()}},
    "both": lambda own: {"model": {f"_orig_mod.module.{name}": tensor for name, tensor in own.items()}},
    "both, the other way": lambda own: {f"module._orig_mod.{name}": tensor for name, tensor in own.items()},
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_weights_are_found_where_others_keep_them(wrapped, state, tmp_path, caplog):
    torch.save(WRAPPED[wrapped](state), tmp_path / "w.pth")
    assert_same(read_weights(tmp_path / "w.pth"), state)
    # timm, which takes fewer wrappers at once, reads what it reads alike
    assert_same(timm.models.load_state_dict(str(tmp_path / "w.pth")), state) if "way" not in wrapped else None
    assert not caplog.records


def trained_by_timm(network, folder):
    """A checkpoint as timm's train.py writes it: (path, weights, their average)."""
    from timm.utils import CheckpointSaver, ModelEmaV3

    average = ModelEmaV3(network, decay=0.5)
    with torch.no_grad():
        average.module.norm.bias += 1
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.zeros(1, 3, 160, 160)).sum().backward()
    optimizer.step()
    args = argparse.Namespace(model="test_vit", lr=1e-3, mean=None, aug_splits=0, opt_betas=[0.9, 0.99])
    saver = CheckpointSaver(network, optimizer, args=args, model_ema=average, checkpoint_dir=str(folder))
    saver.save_checkpoint(1, metric=0.5)
    return folder / "last.pth.tar", network.state_dict(), average.module.state_dict()


def test_a_checkpoint_of_timm_gives_its_average_and_says_so(tmp_path, caplog):
    path, weights, average = trained_by_timm(timm.create_model("test_vit", num_classes=5), tmp_path)
    with caplog.at_level(logging.WARNING, logger="qna"):
        found = read_weights(path)
    assert_same(found, average)
    assert not torch.equal(weights["norm.bias"], average["norm.bias"])
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == f"of the weights in {path} the running average is taken: state_dict_ema, not state_dict"
    assert_same(timm.models.load_state_dict(str(path), weights_only=False), average)
    assert load_classifier("test_vit", weights=path).classes == tuple("01234")


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("harm", [Evil(), nn.Linear(1, 1)], ids=["code", "a module"])
def test_nothing_else_is_unpickled(harm, state, tmp_path):
    torch.save({"state_dict": state, "args": harm}, tmp_path / "w.pth")
    with pytest.raises(InvalidInput, match=r"cannot be read as weights: UnpicklingError") as refused:
        read_weights(tmp_path / "w.pth")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state_dict": {"a": 3}}, "must hold tensors by name, got int as 'a'"),
        ({1: torch.zeros(1)}, "must hold tensors by name, got Tensor as 1"),
        ([torch.zeros(1)], "must hold tensors by name, got list"),
        ({"a": torch.zeros(1).expand(10**12)}, "'a' is not a plain tensor"),
        ({"a": torch.eye(3).to_sparse()}, "'a' is not a plain tensor"),
    ],
)
def test_what_is_no_state_dict_is_said(content, said, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InvalidInput, match=said):
        read_weights(tmp_path / "w.pth")
