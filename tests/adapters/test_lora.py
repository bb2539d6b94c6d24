"""LoRA: its formula, what is trained, every causal mixer, merging, other mixers after it, and refusals."""

import pytest
import torch

from qna._core.errors import InvalidInput, MissingExtra, UnknownName
from qna.adapters import LoRA, adapter, added_names, applied, merged
from qna.mixers import MIXERS
from qna.models.decoder import create_decoder
from tests.adapters.bases import BASES, inputs

# with it peft, which imports transformers, can be imported beside any torchvision
pytest.importorskip("timm")


@pytest.fixture(autouse=True)
def _peft():
    pytest.importorskip("peft", reason="qna[language] brings it")


def drawn(network, seed=0):
    """No update at 0, as all are when they begin."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return network.double().eval()


def small(mixers="CausalAttention1d", **more):
    torch.manual_seed(0)
    sizes = {"dim": 16, "depth": 2, "num_heads": 4, "kv_heads": 2, "hidden": 24, **more}
    return create_decoder("decoder_pico", vocabulary=7, mixers=mixers, **sizes)


def tokens(n=9):
    return torch.randint(7, (2, n), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("base", ["decoder", "vit"])
def test_it_changes_nothing_at_first(base):
    network = BASES[base]().double().eval()
    x = inputs(base)
    x = x.double() if base == "vit" else x
    expected = network(x)
    torch.testing.assert_close(LoRA().apply(network)(x), expected, rtol=0, atol=0)


def test_it_is_its_formula():
    network = drawn(LoRA(rank=3, alpha=7.0).apply(small()))
    bare = small().double().eval()
    state = network.state_dict()
    for name in bare.state_dict():
        path, _, last = name.rpartition(".")
        if f"{path}.base_layer.{last}" in state:
            a, b = (state[f"{path}.lora_{which}.default.weight"] for which in "AB")
            assert (a.shape[0], b.shape[1]) == (3, 3)
            bare.get_parameter(name).data = state[f"{path}.base_layer.{last}"] + 7.0 / 3 * b @ a
        else:
            bare.get_parameter(name).data = state[name]
    torch.testing.assert_close(network(tokens()), bare(tokens()), rtol=1e-12, atol=1e-12)


def test_what_is_trained():
    """Maps of attention by their updates; embedding and norms whole; the tied head with the embedding."""
    network = LoRA(rank=2).apply(small(tied=False))
    learned = {name for name, p in network.named_parameters() if p.requires_grad}
    norms = {"norm.weight", *(f"blocks.{i}.norm{j}.weight" for i in (0, 1) for j in (1, 2))}
    maps = {
        f"blocks.{i}.mixer.{m}" for i in (0, 1) for m in ("heads.query", "heads.key", "heads.value", "out")
    }
    updates = {f"{m}.lora_{which}.default.weight" for m in maps for which in "AB"}
    assert learned == {"embed.weight", *norms, *updates}
    assert added_names(network) >= updates
    # 16 to 16 twice, 16 to 8 twice; embedding of 7 and norms of 16 channels
    count = 2 * 2 * (2 * 32 + 2 * 24) + 7 * 16 + 5 * 16
    assert (
        f"8 linear maps have updates of rank 2; {count:,} numbers are trained" in applied(network)[0].told[0]
    )
    bare = LoRA(rank=2, trained=()).apply(small())
    assert all("lora_" in name for name, p in bare.named_parameters() if p.requires_grad)
    some = LoRA(targets=("query", "up")).apply(small())
    assert {n.split(".lora")[0].rpartition(".")[2] for n, p in some.named_parameters() if "lora" in n} == {
        "query",
        "up",
    }
    vit = LoRA().apply(BASES["vit"]())
    learned = {name for name, p in vit.named_parameters() if p.requires_grad}
    assert {"head.weight", "pos_embed", "norm.bias", "blocks.0.attn.qkv.lora_A.default.weight"} <= learned
    assert "blocks.0.mlp.fc1.weight" not in learned
    assert "blocks.0.attn.qkv.base_layer.weight" not in learned


# an MLP in attention's place has none of its maps
NO_ATTENTION = "PositionwiseMlp1d"


def test_what_has_no_attention_is_refused():
    with pytest.raises(InvalidInput, match=r"no linear map called query .* name others with targets"):
        LoRA().apply(small((NO_ATTENTION, {})))


@pytest.mark.parametrize(
    "name", [name for name, row in MIXERS.items() if row.traits.causal and name != NO_ATTENTION]
)
def test_every_causal_mixer_takes_it(name):
    """None reads a map's weights past peft: what is trained gets a gradient; merging changes nothing."""
    example = {k: v for k, v in MIXERS[name].example.arguments.items() if k not in ("num_heads", "kv_heads")}
    network = drawn(LoRA(rank=2).apply(small((name, example)))).train()
    network(tokens()).square().sum().backward()
    without = [
        n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert not without
    network.eval()
    expected = network(tokens())
    bare = small((name, example)).double()
    again = merged(network)
    torch.testing.assert_close(again(tokens()), expected, rtol=1e-10, atol=1e-10)
    assert again.state_dict().keys() == bare.state_dict().keys()
    assert all(p.requires_grad for p in again.parameters())
    assert not applied(again)
    bare.load_state_dict(again.state_dict())
    torch.testing.assert_close(bare.eval()(tokens()), expected, rtol=1e-10, atol=1e-10)


def test_other_attention_has_the_same_weights():
    """Full attention, trained; then groups with positions interpolated, adapted; then full again."""
    base = small()
    arguments = {"group": 4, "rope_scale": 2.0}
    groups = small(("ShiftedSparseAttention1d", arguments))
    groups.load_state_dict(base.state_dict())
    network = drawn(LoRA(rank=2).apply(groups))
    stretched = small(("CausalAttention1d", {"rope_scale": 2.0})).double().eval()
    stretched.load_state_dict(merged(network).state_dict())
    torch.testing.assert_close(network(tokens()), stretched(tokens()), rtol=1e-12, atol=1e-12)
    assert (network.train()(tokens()) - stretched(tokens())).abs().max() > 1e-3


def test_steps_are_those_of_the_whole():
    network = drawn(LoRA().apply(small()))
    with torch.no_grad():
        first, state = network.step(tokens()[:, :6], network.init_state(2))
        rest, _ = network.step(tokens()[:, 6:], state)
        torch.testing.assert_close(torch.cat([first, rest], 1), network(tokens()), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"rank": 0}, "lora: rank must be an integer of at least 1, got 0"),
        ({"alpha": 0.0}, "lora: alpha must be above 0 and finite, got 0.0"),
        ({"dropout": 1.0}, "dropout must be .* got 1.0"),
        ({"targets": ()}, "targets are empty; leave them out"),
        ({"trained": ("embedding",)}, "Decoder has no parameter with 'embedding' in its name"),
    ],
)
def test_what_is_refused(arguments, told):
    network = small()
    with pytest.raises(InvalidInput, match=told):
        adapter("lora", **arguments).apply(network)
    assert not applied(network)
    assert all(p.requires_grad for p in network.parameters())


def test_names_are_looked_up():
    with pytest.raises(UnknownName, match="unknown linear map of the network 'querry'; did you mean 'query'"):
        LoRA(targets=("querry",)).apply(small())
    with pytest.raises(InvalidInput, match="has no linear map called head in its blocks; name others"):
        LoRA(targets=("head",)).apply(small(tied=False))
    with pytest.raises(InvalidInput, match=r"works on decoders and on timm's plain .*, not on ConvNeXt"):
        LoRA().apply(BASES["convnext"]())


def test_what_cannot_be_merged():
    with pytest.raises(InvalidInput, match="Decoder holds no lora that could be merged"):
        merged(small())
    network = drawn(LoRA().apply(small()))
    with torch.no_grad():
        network.get_parameter("blocks.1.mixer.out.lora_B.default.weight").fill_(torch.inf)
    with pytest.raises(InvalidInput, match=r"the update of blocks\.1\.mixer\.out cannot be merged"):
        merged(network)
    with pytest.raises(InvalidInput, match="lora has no meaning in a network that holds lora"):
        LoRA().apply(network)


def test_without_the_library(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"LoRA needs .*qna\[language\]"):
        LoRA().apply(small())
