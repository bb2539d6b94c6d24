"""What every registered mixer must do, whatever its mechanism: one function per clause, called with its row.

A clause applies where the row's traits say so.
"""

import pickle
from copy import deepcopy
from itertools import islice

import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna.parts.protocols import CountsMacs, HoldsMaps
from tests.clauses import Contract
from tests.tiling.probe import seen_by_outputs

CONTRACT = Contract()
clause = CONTRACT.clause
hold = CONTRACT.hold
hold_exemptions = CONTRACT.hold_exemptions
clauses_of = CONTRACT.names


def build(row, seed=0):
    torch.manual_seed(seed)
    # a batch norm in training couples images, and refuses one position
    mixer = row.create(row.example.dim, **row.example.arguments).eval()
    randomise(mixer, seed)
    return mixer


def randomise(module, seed=0):
    """Give every parameter random values: tables and biases start at zero and would hide errors."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) / max(1, parameter.shape[-1]) ** 0.5)


def a_map(row, batch=2, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *row.example.space, row.example.dim, generator=g)


def compiled(row, mixer, sizes=(0,), **options):
    """The values and the gradients of the compiled mixer are the mixer's, on maps larger by `sizes`."""
    torch._dynamo.reset()
    twin = torch.compile(mixer, fullgraph=True, **options)
    for more in sizes:
        space = [n + more for n in row.example.space]
        x = torch.randn(2 + more, *space, row.example.dim, requires_grad=True)
        y, expected = twin(x), mixer(x)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
        (grad,) = torch.autograd.grad(y.square().sum(), x)
        (expected_grad,) = torch.autograd.grad(expected.square().sum(), x)
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-4)


@clause()
def shape_and_attributes(row):
    example, mixer, x = row.example, build(row), a_map(row)
    out_space = example.space if example.out_space is None else example.out_space
    assert mixer.dim == example.dim
    assert mixer(x).shape == (len(x), *out_space, mixer.out_dim)
    assert row.traits.axes == len(example.space)


@clause(lambda row: not row.traits.batch_coupled)
def an_image_does_not_depend_on_its_batch(row):
    mixer, x = build(row).double(), a_map(row, batch=3).double()
    with torch.no_grad():
        alone = torch.cat([mixer(x[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(mixer(x), alone, rtol=0, atol=1e-12)


@clause(lambda row: row.traits.batch_coupled)
def an_image_depends_on_its_batch(row):
    mixer, x = build(row), a_map(row, batch=2)
    assert not torch.allclose(mixer(x)[:1], mixer(x[:1]), atol=1e-3)


@clause(lambda row: row.traits.any_size)
def any_size(row):
    mixer = build(row)
    # one position, two long and thin maps; every axis is once 1, once even and once odd
    for sizes in ((1, 1, 1), (2, 7, 1), (15, 2, 3)):
        space = tuple(islice(sizes, row.traits.axes))
        y = mixer(torch.randn(1, *space, row.example.dim))
        assert y.isfinite().all()
        if row.example.out_space is None:
            assert y.shape[1:-1] == space


@clause(lambda row: row.traits.strided)
def strides_round_up(row):
    mixer = row.create(row.example.dim, **{**row.example.arguments, "stride": 2})
    y = mixer(a_map(row))
    assert y.shape == (2, *[-(-n // 2) for n in row.example.space], mixer.out_dim)


@clause()
def the_order_of_positions_counts(row):
    """A map turned over (transposed, or reversed on one axis) gives another answer than the answer turned."""
    mixer, x = build(row), a_map(row)

    def turn(m):
        return m.flip(1) if x.ndim == 3 else m.transpose(1, 2)

    y, other = mixer(x), mixer(turn(x))
    if y.ndim == x.ndim:
        other = turn(other)
    # axes that grow by factors of their own give another shape as well
    assert y.shape != other.shape or not torch.allclose(y, other, atol=1e-3)


@clause()
def meta_construction(row):
    with torch.device("meta"):
        mixer = row.create(row.example.dim, **row.example.arguments)
        y = mixer(torch.empty(2, *row.example.space, row.example.dim))
    assert {t.device.type for t in [y, *mixer.parameters(), *mixer.buffers()]} == {"meta"}
    build(row).load_state_dict(mixer.to_empty(device="cpu").state_dict())  # same names and shapes


@clause()
def state_dict_round_trip(row):
    first, second, x = build(row, seed=0), build(row, seed=5), a_map(row)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


@clause()
def copies(row):
    mixer, x = build(row), a_map(row)
    expected = mixer(x)
    for twin in (deepcopy(mixer), pickle.loads(pickle.dumps(mixer))):
        assert torch.equal(twin(x), expected)


@clause()
def every_parameter_gets_a_gradient(row):
    mixer, x = build(row), a_map(row).requires_grad_()
    y = mixer(x)
    y.backward(torch.randn_like(y))
    without = [n for n, p in mixer.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    assert x.grad is not None
    assert x.grad.any()


@clause()
def hooks_fire_on_every_module(row):
    mixer = build(row)
    # lists are never called themselves
    called = {name: m for name, m in mixer.named_modules() if not isinstance(m, nn.ModuleList)}
    silent = set(called)
    for name, module in called.items():
        module.register_forward_hook(lambda *_, name=name: silent.discard(name))
    mixer(a_map(row))
    assert not silent


@clause()
def compiles_without_graph_breaks(row):
    compiled(row, build(row), backend="aot_eager")


# asked of one row of each family
@clause(costly=True)
def compiles_with_inductor_and_dynamic_sizes(row):
    compiled(row, build(row), sizes=(0, 3), dynamic=True)


@clause()
def exports_with_a_dynamic_batch(row):
    mixer, x = build(row), a_map(row)
    exported = torch.export.export(mixer, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    larger = a_map(row, batch=5)
    torch.testing.assert_close(exported.module()(larger), mixer(larger))


@clause()
def costs_are_told(row):
    """Multiply-adds and elements held by formula: what an image adds is the same for each."""
    mixer = build(row)
    assert isinstance(mixer, CountsMacs)
    assert isinstance(mixer, HoldsMaps)
    sizes = [(batch, *row.example.space, row.example.dim) for batch in (1, 2, 3)]
    macs = [mixer.macs(size) for size in sizes]
    assert macs[0] > 0
    assert macs[2] - macs[1] == macs[1] - macs[0] > 0
    held = [mixer.held(size) for size in sizes]
    assert held[2] - held[1] == held[1] - held[0]
    assert held[0] >= mixer(a_map(row, batch=1)).numel()


@clause(lambda row: hasattr(row.build, "no_weight_decay"))
def no_weight_decay_names_are_parameters(row):
    mixer = build(row)
    assert mixer.no_weight_decay() <= {n for n, _ in mixer.named_parameters()}


@clause(lambda row: hasattr(row.build, "reach"))
def reach_is_what_a_nan_shows(row):
    """No position of the input is left out, and none is said to be seen that is not."""
    for strided in ({}, {"stride": 2}) if row.traits.strided else ({},):
        mixer = row.create(row.example.dim, **row.example.arguments, **strided).eval()
        randomise(mixer)
        mixer.double()
        for axis in range(row.traits.axes):
            space = list(row.example.space)
            space[axis] = 13
            shape = (2, *space, row.example.dim)
            axes = tuple(range(-1 - row.traits.axes, -1))
            seen = seen_by_outputs(mixer, shape, axes, axis)
            reach = mixer.reach(shape)[axis]
            for i, found in enumerate(seen):
                low, high = reach.sources(i, i)
                assert found == (max(low, 0), min(high, 12))


@clause()
def wrong_maps_are_named(row):
    mixer, x = build(row), a_map(row)
    for wrong in (x[0], x[..., :3]):
        told = rf"input must be \(B, .*C\) with C = {row.example.dim}, got"
        with pytest.raises(InvalidInput, match=told) as raised:
            mixer(wrong)
        assert str(tuple(wrong.shape)) in str(raised.value)


@clause(lambda row: row.traits.heads)
def heads_must_divide(row):
    with pytest.raises(
        InvalidInput, match=r"num_heads must divide dim, got num_heads=3 and dim=8; try 2 or 4"
    ):
        row.create(8, **{**row.example.arguments, "num_heads": 3})


@clause()
def every_floating_dtype(row):
    x = a_map(row)
    expected = build(row)(x)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        y = build(row).to(dtype)(x.to(dtype))
        assert y.dtype == dtype
        # a few tens of products in the dtype, fp32 at best
        error = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) * 16
        assert (y.float() - expected).abs().max() <= error * expected.abs().max()


@clause()
def an_empty_batch(row):
    mixer, x = build(row), a_map(row)
    assert mixer(x[:0]).shape == (0, *mixer(x).shape[1:])


@clause()
def bfloat16_autocast(row):
    mixer, x = build(row), a_map(row)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = mixer(x)
    y.float().sum().backward()
    # two GEMMs in bf16 (8 bits), sums of some tens of terms
    torch.testing.assert_close(y.float(), mixer(x), rtol=0.1, atol=0.1)
