"""What every adapter is held to, on every kind of network that it suits: a clause a function."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import qna.models
from qna._core.errors import InvalidInput
from qna._core.with_losses import WithLosses
from qna.adapters import AdapterRow, adapter, added_names, applied, from_pretrained, save_pretrained
from tests.adapters.bases import BASES, TOKENS, inputs, output_shape

CLAUSES: dict[str, Callable[..., None]] = {}


def clause(function: Callable[..., None]) -> Callable[..., None]:
    CLAUSES[function.__name__] = function
    return function


def adapted(row: AdapterRow, base: str, *, seed: int = 0) -> nn.Module:
    """A network with the row's example in it, in evaluation mode, no parameter at zero."""
    torch.manual_seed(seed)
    network = adapter(row.name, **row.example).apply(BASES[base]())
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return network.eval()


def images(count: int = 2) -> Tensor:
    return inputs("vit", count)


def logits(output: Any) -> Tensor:
    """Of a network in training, which may return losses beside them; DeiT returns the mean of two heads."""
    output = output.output if isinstance(output, WithLosses) else output
    return output[0] if isinstance(output, tuple) else output


@clause
def computes_logits(row: AdapterRow, base: str, tmp_path: Path) -> None:
    network = adapted(row, base)
    assert network(inputs(base)).shape == output_shape(base)
    assert network(inputs(base)).isfinite().all()


@clause
def keeps_names(row: AdapterRow, base: str, tmp_path: Path) -> None:
    """What the bare network had is there by its name and shape, and what came is told."""
    bare = {name: t.shape for name, t in BASES[base]().state_dict().items()}
    network = adapted(row, base)
    found = {name: t.shape for name, t in network.state_dict().items()}
    assert {name: found.get(name) for name in bare} == bare
    assert added_names(network) == found.keys() - bare.keys()


@clause
def every_parameter_gets_a_gradient(row: AdapterRow, base: str, tmp_path: Path) -> None:
    network = adapted(row, base).train()
    output = network(inputs(base, 4))
    loss = logits(output).square().mean()
    if isinstance(output, WithLosses):
        loss = loss + sum(output.losses.values())
    loss.backward()
    bare = BASES[base]().train()
    logits(bare(inputs(base, 4))).square().mean().backward()
    unused = {name for name, p in bare.named_parameters() if p.grad is None}
    missing = {n for n, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert missing <= unused


@clause
def images_of_a_batch_do_not_meet(row: AdapterRow, base: str, tmp_path: Path) -> None:
    network, x = adapted(row, base).double(), inputs(base, 3)
    x = x.double() if x.is_floating_point() else x
    together = network(x)
    alone = torch.cat([network(image[None]) for image in x])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)


@clause
def can_be_copied(row: AdapterRow, base: str, tmp_path: Path) -> None:
    network = adapted(row, base).train()
    network(inputs(base))  # a call leaves nothing behind that cannot be copied
    expected = network.eval()(inputs(base))
    network.train()
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(again.eval()(inputs(base)), expected)
        assert applied(again) == applied(network)


@clause
def tangents_go_forward(row: AdapterRow, base: str, tmp_path: Path) -> None:
    """What forward-mode gives along a direction is what the gradient does."""
    if base in TOKENS:  # no direction leads from a token to another
        return
    network, x = adapted(row, base).double(), inputs(base).double()
    for module in network.modules():
        # timm's own has no tangents where it is fused
        if type(module).__module__.startswith("timm") and hasattr(module, "fused_attn"):
            module.fused_attn = False
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).double()
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(network(forward_ad.make_dual(x, direction))).tangent
    (gradient,) = torch.autograd.grad(network(x.requires_grad_()).sum(), x)
    torch.testing.assert_close(tangent.sum(), (gradient * direction).sum(), rtol=1e-8, atol=1e-8)


@clause
def takes_no_image_at_all(row: AdapterRow, base: str, tmp_path: Path) -> None:
    """As the last batch of some process may be."""
    network = adapted(row, base)
    with torch.no_grad():
        assert network(inputs(base, 0)).shape == output_shape(base, 0)
    assert network(inputs(base, 0)).shape == output_shape(base, 0)
    assert logits(network.train()(inputs(base, 0))).shape == output_shape(base, 0)


@clause
def its_configuration_is_json(row: AdapterRow, base: str, tmp_path: Path) -> None:
    chosen = adapter(row.name, **row.example)
    assert adapter(row.name, **json.loads(json.dumps(chosen.settings()))) == chosen


@clause
def is_kept_with_the_weights(row: AdapterRow, base: str, tmp_path: Path) -> None:
    network = adapted(row, base)
    if base in TOKENS:  # no network of timm's: a run keeps it, and its adapters in its configuration
        again = adapter(row.name, **row.example).apply(BASES[base]()).eval()
        again.load_state_dict(network.state_dict())
        assert torch.equal(again(inputs(base)), network(inputs(base)))
        return
    save_pretrained(network, tmp_path / "kept")
    again = from_pretrained(tmp_path / "kept")
    assert applied(again)[0].adapter == applied(network)[0].adapter
    assert torch.equal(again(images()), network(images()))
    assert from_pretrained(tmp_path / "kept", num_classes=7)(images()).shape == (2, 7)
    with pytest.raises(InvalidInput, match=r"holds adapters; qna.adapters.from_pretrained reads it"):
        qna.models.from_pretrained(tmp_path / "kept")


@clause
def autocast_is_finite(row: AdapterRow, base: str, tmp_path: Path) -> None:
    network = adapted(row, base).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(inputs(base))
    assert logits(output).isfinite().all()
    logits(output).float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@clause
def can_be_planned_on_meta(row: AdapterRow, base: str, tmp_path: Path) -> None:
    """As `from_pretrained` and resuming plan a network before anything is allocated."""
    with torch.device("meta"):
        network = adapter(row.name, **row.example).apply(BASES[base]())
    assert {p.device.type for p in network.parameters()} == {"meta"}
    assert {n: p.shape for n, p in network.state_dict().items()} == {
        n: p.shape for n, p in adapted(row, base).state_dict().items()
    }


@clause
def compiles_as_one_graph(row: AdapterRow, base: str, tmp_path: Path) -> None:
    torch._dynamo.reset()
    network = adapted(row, base)
    with torch.no_grad():
        found = torch.compile(network, fullgraph=True, backend="eager")(inputs(base))
        torch.testing.assert_close(found, network(inputs(base)))


@clause
def is_exported_for_any_number_of_images(row: AdapterRow, base: str, tmp_path: Path) -> None:
    network = adapted(row, base)
    open_batch = {0: torch.export.Dim("batch", min=1, max=9)}
    program = torch.export.export(network, (inputs(base, 3),), dynamic_shapes=(open_batch,)).module()
    for count in (1, 5):
        torch.testing.assert_close(program(inputs(base, count)), network(inputs(base, count)))


@clause
def says_what_it_is_not_for(row: AdapterRow, base: str, tmp_path: Path) -> None:
    """Other kinds of networks are refused in a sentence and left as they are."""
    for other in BASES.keys() - row.bases:
        network = BASES[other]()
        before = {name: t.clone() for name, t in network.state_dict().items()}
        with pytest.raises(InvalidInput) as refused:
            adapter(row.name, **row.example).apply(network)
        assert "\n" not in str(refused.value)
        assert not applied(network)
        after = network.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], t) for name, t in before.items())
