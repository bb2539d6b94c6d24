"""What the authors' own code of TCPA, VPT and VFPT computes: logits, losses, choices and gradients."""

import json
from pathlib import Path

import pytest
import timm
import torch

from qna._core.with_losses import WithLosses
from qna.adapters import (
    adapter,
)
from tests.adapters.contract import logits
from tests.models.golden import rule

GOLDEN = json.loads((Path(__file__).parent / "golden" / "prompts.json").read_text())


def drawn(name, *shape):
    return torch.from_numpy(rule.torch_tensor(name, shape)).double()


def of_tcpa(name, tensor, depth):
    """Our tensor as the authors of TCPA name and stack it."""
    if ".prompts." not in name:
        return drawn(f"backbone.{name}", *tensor.shape)
    block, pool, part = name.removeprefix("blocks.").split(".")[0], *name.split(".")[-2:]
    called = {"class_pool": "Pool_cls", "image_pool": "Pool_image"}[pool]
    return drawn(f"Pool.{called}.{part}", depth, *tensor.shape)[int(block)]


def of_vpt(name, tensor, depth):
    """Our tensor as the authors of VPT, whose code VFPT's is made of, name it."""
    if name.endswith("prompts.tokens"):
        block, start = int(name.split(".")[1]), "transformer."
        if block == 0:
            return drawn(f"{start}prompt_embeddings", 1, *tensor.shape)[0]
        return drawn(f"{start}deep_prompt_embeddings", depth - 1, *tensor.shape)[block - 1]
    if ".qkv." in name:
        parts = [
            drawn(their_name(name.replace("qkv", part)), len(tensor) // 3, *tensor.shape[1:])
            for part in ("query", "key", "value")
        ]
        return torch.cat(parts)
    return drawn(their_name(name), *tensor.shape)


def their_name(name):
    pairs = {
        "blocks.": "transformer.encoder.layer.",
        "norm1": "attention_norm",
        "norm2": "ffn_norm",
        "mlp": "ffn",
        "attn.proj": "attn.out",
        "patch_embed.proj": "transformer.embeddings.patch_embeddings",
        "pos_embed": "transformer.embeddings.position_embeddings",
        "cls_token": "transformer.embeddings.cls_token",
    }
    for old, new in pairs.items():
        name = name.replace(old, new)
    return f"transformer.encoder.encoder_{name}" if name.startswith("norm.") else name


def golden_network(case):
    golden = GOLDEN[case]
    bare = timm.create_model("vit_tiny_patch16_224", num_classes=10, **golden["sizes"])
    network = adapter(golden["adapter"], **golden["arguments"]).apply(bare).double()
    of = of_tcpa if golden["adapter"] == "tcpa" else of_vpt
    state = network.state_dict()
    network.load_state_dict({n: of(n, t, golden["sizes"]["depth"]) for n, t in state.items()})
    return golden, network


@pytest.mark.parametrize(
    "case", [c if c != "tcpa_base" else pytest.param(c, marks=pytest.mark.long) for c in GOLDEN]
)
def test_what_the_authors_network_computes(case):
    golden, network = golden_network(case)
    x = torch.from_numpy(rule.images(*golden["sizes"]["img_size"])).double()
    seen = []
    for block in network.blocks:
        if golden["seen"]:
            block.register_forward_pre_hook(lambda m, given: seen.append(m.prompts.opened(given[0])))
    output = network.eval()(x)
    expected = torch.tensor(golden["logits"], dtype=torch.float64)
    assert (output[:, : expected.shape[1]] - expected).abs().max() < 1e-9 * golden["deviation"]
    assert output.std().item() == pytest.approx(golden["deviation"], rel=1e-9)
    if golden["seen"]:
        times = 2 // seen[0].shape[0]
        found = [times * opened.sum((0, 1)).int() for opened in seen][: len(golden["seen"])]
        assert [each.tolist() for each in found] == golden["seen"]
    output = network.train()(x)
    goal = (logits(output) * drawn("direction", *logits(output).shape)).sum()
    if golden["distance"] is not None:
        (loss,) = output.losses.values()
        weight = golden["arguments"].get("match_weight", 0.01)
        assert loss.item() == pytest.approx(weight * golden["distance"], rel=1e-10)
        goal = goal + loss
    assert isinstance(output, WithLosses) == (golden["distance"] is not None)
    goal.backward()
    gradients = {}
    for name, parameter in network.named_parameters():
        if ".prompts." in name:
            gradients.setdefault(their_gradient(name), []).append(parameter.grad)
    assert gradients.keys() == golden["gradients"].keys()
    for name, parts in gradients.items():
        norm, *first = golden["gradients"][name]
        found = torch.stack(parts).flatten()
        assert found.norm().item() == pytest.approx(norm, rel=1e-9)
        assert found[:2].tolist() == pytest.approx(first, abs=1e-9 * norm)


def their_gradient(name):
    if name.endswith(".tokens"):
        return f"transformer.{'' if name.startswith('blocks.0.') else 'deep_'}prompt_embeddings"
    pool, part = name.split(".")[-2:]
    return f"Pool.{'Pool_cls' if pool == 'class_pool' else 'Pool_image'}.{part}"
