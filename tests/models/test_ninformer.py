"""NiNformer: logits of the authors' code, their state dicts, exact sizes, and what is refused."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.analysis.cost import total_macs
from qna.models import NINFORMER, NiNformer, create
from qna.models.convert import convert
from qna.models.ninformer.authors import authors_name
from tests.mixers.gating.test_mixer_gating import by_rule
from tests.models import contract

SMALL = {"img_size": 8, "patch_size": 2, "dim": 6, "hidden": 10, "depth": 2}
# of the authors' network of that size, its tensors by the rule
GOLDEN = [
    [-2.6195737066370723, 2.5015015775017364, -0.5688939121257464],
    [-2.6144619306504726, 2.497375256687019, -0.5681111096579523],
]


def theirs():
    names = [n for n, _ in create("ninformer_cifar", num_classes=3, **SMALL).named_parameters()]
    model = create("ninformer_cifar", num_classes=3, **SMALL)
    return {
        authors_name(n): by_rule(model.get_parameter(n).shape, phase) * 0.5 for phase, n in enumerate(names)
    }


@torch.no_grad()
def test_logits_of_the_authors_network(tmp_path):
    from safetensors.torch import load_file

    torch.save(theirs(), tmp_path / "theirs.pth")
    convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", "ninformer_cifar", SMALL)
    model = create("ninformer_cifar", num_classes=3, **SMALL).double().eval()
    model.load_state_dict(load_file(tmp_path / "ours.safetensors"))
    expected = torch.tensor(GOLDEN, dtype=torch.float64)
    logits = model(by_rule((2, 3, 8, 8), 0.5))
    assert (logits - expected).abs().max() < 1e-9 * expected.std()


def test_a_tensor_that_is_missing_is_named(tmp_path):
    state = theirs()
    del state["model.1.mgu.proj.bias"]
    torch.save(state, tmp_path / "theirs.pth")
    with pytest.raises(InvalidInput, match=r"model\.1\.mgu\.proj\.bias is missing"):
        convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", "ninformer_cifar", SMALL)


def test_names_of_the_authors():
    """Told one by one, where the file above is written by the table that is tested."""
    found = {authors_name(n) for n, _ in create("ninformer_nano_16", device="meta").named_parameters()}
    inside = ("mgu.Mixer.token_mix.0", "mgu.Mixer.token_mix.2.net.0", "mgu.Mixer.token_mix.2.net.3")
    inside += ("mgu.Mixer.channel_mix.0", "mgu.Mixer.channel_mix.1.net.0", "mgu.Mixer.channel_mix.1.net.3")
    inside += ("norm", "mgu.proj", "ffn.net.0", "ffn.net.3")
    layers = ["patcher", "classifier", *(f"model.{i}.{layer}" for i in range(3) for layer in inside)]
    assert found == {f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")}
    assert authors_name("stages.1.0.mixer.token_mlp.fc2.bias") == "model.1.mgu.Mixer.token_mix.2.net.3.bias"
    assert authors_name("stages.0.0.mlp.fc1.weight") == "model.0.ffn.net.0.weight"


def test_rates_of_dropout_and_stochastic_depth():
    assert NINFORMER["ninformer_cifar"].mlp_drop == 0.5
    blocks = [stage[0] for stage in create("ninformer_nano_16", mlp_drop=0.25, drop_path_rate=0.2).stages]
    for block in blocks:
        assert {m.drop for m in (block.mlp, block.mixer.token_mlp, block.mixer.channel_mlp)} == {0.25}
    for kind in ("drop_path1", "drop_path2"):
        assert [getattr(block, kind).rate for block in blocks] == pytest.approx([0.0, 0.1, 0.2])


def test_linear_maps_begin_as_torch_makes_them():
    torch.manual_seed(0)
    model = create("ninformer_nano_16", num_classes=50)
    for layer in (model.head.fc, model.stages[0][0].mlp.fc1, model.stages[0][0].mlp.fc2):
        bound = layer.in_features**-0.5
        for tensor in (layer.weight, layer.bias):
            assert 0.9 * bound < tensor.abs().max() <= bound


@pytest.mark.parametrize(("classes", "count"), [(10, 2_652_170), (100, 2_675_300), (1000, 2_906_600)])
def test_published_sizes(classes, count):
    model = create("ninformer_cifar", num_classes=classes, device="meta")
    assert sum(p.numel() for p in model.parameters()) == count
    assert sum(p.numel() for p in model.stages[0].parameters()) == 659_264
    assert NINFORMER["ninformer_cifar"].parameters == 2_906_600


def test_multiply_adds():
    model = create("ninformer_cifar", num_classes=10)
    assert total_macs(model, (1, 3, 32, 32)) == 218_892_800


def test_both_norms_of_a_block_are_one():
    block = create("ninformer_nano_16").stages[0][0]
    calls = []
    block.norm.register_forward_hook(lambda *_: calls.append(1))
    block(torch.randn(1, 8, 8, 32))
    assert len(calls) == 2
    assert [n for n, _ in block.named_parameters() if n.startswith("norm")] == ["norm.weight", "norm.bias"]


def test_other_sizes():
    with pytest.raises(InvalidInput, match=r"32 x 32 pixels .* got 32 x 48; .*img_size=\(32, 48\)"):
        create("ninformer_cifar")(torch.zeros(1, 3, 32, 48))
    assert create("ninformer_cifar", img_size=(32, 48), num_classes=5)(torch.zeros(1, 3, 32, 48)).shape == (
        1,
        5,
    )
    with pytest.raises(InvalidInput, match=r"patch_size must divide .* try img_size=\(36, 36\)"):
        create("ninformer_cifar", img_size=33)


@pytest.mark.parametrize("size", [8, (8, 12), [8, 12]])
def test_the_class_itself_takes_a_size(size):
    model = NiNformer(NINFORMER["ninformer_nano_16"], img_size=size, num_classes=5)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    assert model.stages[0][0].mixer.map_size == (sides[0] // 2, sides[1] // 2)
    assert model(torch.zeros(1, 3, *sides)).shape == (1, 5)
    with pytest.raises(InvalidInput, match="takes no other size, got 16 x 16"):
        model(torch.zeros(1, 3, 16, 16))


def test_sizes_that_are_none():
    for size in (2.5, "a", (8, 8, 8)):
        with pytest.raises(InvalidInput, match="img_size must be an integer of at least 1, or one for each"):
            NiNformer(NINFORMER["ninformer_nano_16"], img_size=size)


@pytest.mark.parametrize("clause", ["grad_checkpointing_changes_no_gradient", "torch_fx"])
def test_the_clauses_that_dropout_breaks_hold_without_it(clause, monkeypatch):
    """The family is exempt from both as published."""
    plain = contract.build
    monkeypatch.setattr(contract, "build", lambda name, **arguments: plain(name, mlp_drop=0.0, **arguments))
    getattr(contract, clause)("ninformer_nano_16")
