"""MoH-ViT: logits and losses of the authors' code, their checkpoints, routers by their counts."""

import json
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna._core.with_losses import WithLosses
from qna.adapters.moh import head_use
from qna.analysis.cost import total_macs
from qna.models import MOH_VIT, TRANSNEXT
from qna.models.convert import convert
from qna.models.transnext.moh import moh_authors_name
from qna.parts.head_router import RoutedHeads
from tests.models.golden import rule
from tests.models.golden_state import drawn_state

GOLDEN = json.loads((Path(__file__).parent / "golden" / "moh.json").read_text())
LOGITS = [case for case in GOLDEN if case.startswith("moh")]
NANO = "moh_vit_nano_16"


def golden_state(case):
    """What the authors' file of a case would hold: of a wrong name other values are drawn."""
    golden = GOLDEN[case]
    with torch.device("meta"):
        network = timm.create_model(golden["model"], **golden["arguments"])
    shapes = {moh_authors_name(n, network): t.shape for n, t in network.state_dict().items()}
    return drawn_state(golden.get("shapes", shapes))


# what the authors' networks compute


@pytest.mark.parametrize(
    "case", [c if c == "moh" else pytest.param(c, marks=pytest.mark.long) for c in LOGITS]
)
def test_logits_of_the_authors_network(case, tmp_path):
    """Of one network for all sizes, where theirs is built for each; and their balance loss."""
    golden, state = GOLDEN[case], golden_state(case)
    torch.save(state, tmp_path / "theirs.pth")
    arguments = dict(golden["arguments"])
    classes = {"num_classes": arguments.pop("num_classes")} if "num_classes" in arguments else {}
    count = convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", golden["model"], arguments)
    assert count == len(state)
    file = {"checkpoint_path": str(tmp_path / "ours.safetensors")}
    model = timm.create_model(
        golden["model"], **file, **arguments, **classes, balance=1.0, drop_path_rate=0.0
    ).double()
    for output in golden["outputs"]:
        images = torch.from_numpy(rule.images(*output["size"])).double()
        expected = torch.tensor(output["logits"], dtype=torch.float64)
        with torch.no_grad():
            logits, trained = model.eval()(images), model.train()(images)
        assert (logits[:, : expected.shape[1]] - expected).abs().max().item() < 1e-9 * output["deviation"]
        assert logits.std().item() == pytest.approx(output["deviation"], rel=1e-9)
        torch.testing.assert_close(trained.output, logits, rtol=1e-9, atol=1e-9)
        # they average choices in float32
        assert trained.losses["balance"].item() == pytest.approx(output["balance"], rel=3e-7)


def test_names_of_the_authors():
    with torch.device("meta"):
        network = timm.create_model("moh_vit_small_80")
    for ours, expected in {
        "stages.0.0.mixer.head_gate.wg_1.weight": "block1.0.attn.wg_1.weight",
        "stages.2.1.mixer.head_gate.wg.weight": "block3.0.attn.wg.weight",
        "stages.3.2.mixer.head_gate.wg_0.weight": "block4.1.attn.wg_0.weight",
        "stages.3.2.mixer.qkv.weight": "block4.1.attn.qkv.weight",
        "head.fc.bias": "head.bias",
    }.items():
        assert moh_authors_name(ours, network) == expected
    assert len({moh_authors_name(n, network) for n in network.state_dict()}) == len(network.state_dict())


def test_checkpoints_are_read_whole_or_refused(tmp_path):
    arguments = {n: v for n, v in GOLDEN["moh"]["arguments"].items() if n != "num_classes"}
    state = golden_state("moh")
    torch.save({"model": state}, tmp_path / "theirs.pth")
    whole = tmp_path / "whole.safetensors"
    assert convert(tmp_path / "theirs.pth", whole, "moh_vit_small_80", arguments) == len(state)
    for change, told in (
        ({"block3.0.attn.wg.weight": None}, "block3.0.attn.wg.weight is missing"),
        (
            {"block3.0.attn.wg_0.weight": torch.zeros(3, 64)},
            r"wg_0.weight has shape \(3, 64\), not \(2, 64\)",
        ),
        ({"block1.0.attn.wg.weight": torch.zeros(2, 16)}, "it has block1.0.attn.wg.weight, which"),
    ):
        changed = {n: t for n, t in {**state, **change}.items() if t is not None}
        torch.save(changed, tmp_path / "theirs.pth")
        with pytest.raises(InvalidInput, match=told):
            convert(tmp_path / "theirs.pth", tmp_path / "none.safetensors", "moh_vit_small_80", arguments)
    # a file of the network without routers is another
    bare = {n: t for n, t in state.items() if ".wg" not in n}
    torch.save(bare, tmp_path / "theirs.pth")
    with pytest.raises(InvalidInput, match=r"wg.*is missing"):
        convert(tmp_path / "theirs.pth", tmp_path / "none.safetensors", "moh_vit_small_80", arguments)


# what the sizes say


@pytest.mark.parametrize(
    ("name", "routers", "active"),
    [
        ("moh_vit_base_75", 299_136, 441 / 588),
        ("moh_vit_base_50", 302_016, 294 / 588),
        ("moh_vit_small_80", 168_984, 343 / 429),
        ("moh_vit_small_75", 168_984, 323 / 429),
    ],
)
def test_parameters_of_routers_and_the_part_of_heads_that_speaks(name, routers, active):
    with torch.device("meta"):
        model = timm.create_model(name)
    gates = [m for m in model.modules() if isinstance(m, RoutedHeads)]
    assert sum(p.numel() for m in gates for p in m.parameters()) == routers
    assert sum(p.numel() for p in model.parameters()) == MOH_VIT[name].parameters
    bare = "transnext_small" if "small" in name else "transnext_base"
    assert MOH_VIT[name].parameters == TRANSNEXT[bare].parameters + routers
    assert sum(m.shared + m.routed for m in gates) / sum(m.heads for m in gates) == active
    assert MOH_VIT[name].active() == pytest.approx(active)
    assert len(gates) == sum(MOH_VIT[name].depths)


def test_published_counts_of_heads():
    """By stage: all heads, shared, routed."""
    for name, expected in {
        "moh_vit_base_75": ((4, 8, 16, 32), (4, 8, 4, 5), (0, 0, 8, 16)),
        "moh_vit_base_50": ((4, 8, 16, 32), (2, 2, 2, 4), (2, 4, 6, 8)),
        "moh_vit_small_80": ((3, 6, 12, 24), (3, 6, 3, 8), (0, 0, 6, 12)),
        "moh_vit_small_75": ((3, 6, 12, 24), (3, 6, 3, 4), (0, 0, 6, 12)),
    }.items():
        variant = MOH_VIT[name]
        assert (variant.heads(), variant.shared_heads, variant.routed_heads) == expected


def test_routers_cost_their_products():
    """Of a block C (E + 2 + hs) a position, or C hs where all heads are shared."""
    blocks = {"depths": (1, 1, 1, 1), "device": "meta"}
    model, bare = (timm.create_model(name, **blocks) for name in ("moh_vit_small_80", "transnext_small"))
    size = (1, 3, 64, 64)
    places, dims = (16**2, 8**2, 4**2, 2**2), (72, 144, 288, 576)
    outputs = (3, 6, 9 + 2 + 3, 16 + 2 + 8)
    expected = sum(n * c * o for n, c, o in zip(places, dims, outputs, strict=True))
    assert total_macs(model, size) - total_macs(bare, size) == expected


# training


def test_the_balance_loss_is_returned_in_training_alone():
    torch.manual_seed(0)
    model, x = timm.create_model(NANO, balance=0.5, num_classes=3), torch.randn(4, 3, 16, 16)
    assert isinstance(model.eval()(x), torch.Tensor)
    returned = model.train()(x)
    assert isinstance(returned, WithLosses)
    assert set(returned.losses) == {"balance"}
    # near its value where all heads are used evenly, which is hr = 2
    assert returned.losses["balance"].item() == pytest.approx(0.5 * 2, rel=0.2)
    returned.losses["balance"].backward()
    grads = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {n for n, _ in model.named_parameters() if n.endswith("wg.weight")} <= grads
    assert not [n for n in grads if n.startswith("head.")]
    assert isinstance(timm.create_model(NANO).train()(x), torch.Tensor)


def test_which_heads_speak_can_be_asked():
    torch.manual_seed(0)
    use = head_use(timm.create_model(NANO).eval(), torch.randn(2, 3, 16, 24))
    assert list(use) == [f"stages.{s}.{b}.mixer.head_gate" for s, b in ((0, 0), (0, 1), (1, 1), (1, 2))]
    for share, speaking in zip(use.values(), (2, 2, 3, 3), strict=True):
        assert share.sum().item() == pytest.approx(speaking)


def test_checkpointed_blocks_leave_no_loss_for_the_next_call():
    torch.manual_seed(0)
    model, x = timm.create_model(NANO, balance=1.0), torch.randn(2, 3, 16, 16)
    model.train()
    first = model(x).losses["balance"]
    model.set_grad_checkpointing()
    again = model(x)
    torch.testing.assert_close(again.losses["balance"], first)
    (again.output.sum() + again.losses["balance"]).backward()
    torch.testing.assert_close(model(x).losses["balance"], first)


def test_routers_begin_as_linear_maps_of_the_network_do():
    torch.manual_seed(0)
    model = timm.create_model("moh_vit_small_80", depths=(1, 1, 1, 1))
    for module in model.modules():
        if isinstance(module, RoutedHeads):
            for layer in module.children():
                assert isinstance(layer, nn.Linear)
                assert layer.bias is None
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.25)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"shared_heads": (2,)}, r"shared_heads must be one number per stage of 2, got \(2,\)"),
        ({"routed_heads": (1, 2)}, "stage 1: of 2 heads, 2 shared and 1 routed cannot be active"),
        ({"routed_heads": (0, 0)}, "stage 2: of 4 heads 1 are shared, and nobody could choose the others"),
        ({"balance": -1.0}, "balance must be at least 0, got -1.0"),
    ],
)
def test_counts_that_are_none(arguments, told):
    with pytest.raises(InvalidInput, match=told):
        timm.create_model(NANO, **arguments)
