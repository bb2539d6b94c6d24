"""What every registered mixer must do, whatever its mechanism."""

import pytest
import torch

from qna.mixers import MIXERS

pytestmark = pytest.mark.parametrize("name", MIXERS)

# sizes of one axis that a mixer must take; the other axes keep the example's
ODD_SIZES = (1, 2, 7, 15)


def build(name, seed=0):
    torch.manual_seed(seed)
    example = MIXERS[name]
    mixer = example.build(example.dim, **example.arguments)
    randomise(mixer, seed)
    return mixer


def randomise(module, seed=0):
    """Give every parameter random values: tables and biases start at zero and would hide errors."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) / max(1, parameter.shape[-1]) ** 0.5)


def example_map(name, batch=2, seed=1):
    example = MIXERS[name]
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *example.space, example.dim, generator=g)


def test_shape(name):
    example, mixer, x = MIXERS[name], build(name), example_map(name)
    out_space = example.space if example.out_space is None else example.out_space
    assert mixer(x).shape == (len(x), *out_space, mixer.out_dim)


def test_an_image_does_not_depend_on_its_batch(name):
    mixer, x = build(name).double(), example_map(name, batch=3).double()
    with torch.no_grad():
        alone = torch.cat([mixer(x[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(mixer(x), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", ODD_SIZES)
def test_any_size_on_every_axis(name, size):
    example, mixer = MIXERS[name], build(name)
    for axis in range(len(example.space)):
        space = list(example.space)
        space[axis] = size
        y = mixer(torch.randn(1, *space, example.dim))
        assert y.isfinite().all()
        if example.out_space is None:
            assert y.shape[1:-1] == tuple(space)


def test_the_order_of_positions_counts(name):
    """A map turned over (transposed, or reversed on one axis) gives another answer than the answer turned."""
    mixer, x = build(name), example_map(name)

    def turn(m):
        return m.flip(1) if x.ndim == 3 else m.transpose(1, 2)

    y, other = mixer(x), mixer(turn(x))
    if y.ndim == x.ndim:
        other = turn(other)
    assert y.shape == other.shape
    assert not torch.allclose(y, other, atol=1e-3)


def test_meta_construction(name):
    example = MIXERS[name]
    with torch.device("meta"):
        mixer = example.build(example.dim, **example.arguments)
        y = mixer(torch.empty(2, *example.space, example.dim))
    assert {t.device.type for t in [y, *mixer.parameters(), *mixer.buffers()]} == {"meta"}
    full = build(name)
    full.load_state_dict(mixer.to_empty(device="cpu").state_dict())  # same names and shapes


def test_state_dict_round_trip(name):
    first, second, x = build(name, seed=0), build(name, seed=5), example_map(name)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


def test_every_parameter_gets_a_gradient(name):
    mixer, x = build(name), example_map(name).requires_grad_()
    y = mixer(x)
    y.backward(torch.randn_like(y))
    without = [n for n, p in mixer.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    assert x.grad is not None
    assert x.grad.any()


def test_compiles_without_graph_breaks(name):
    mixer, x = build(name), example_map(name)
    torch._dynamo.reset()
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), mixer(x))


@pytest.mark.slow
# torch's own compiler imports a module that uses it
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_compiles_with_inductor_and_dynamic_sizes(name):
    mixer, example = build(name), MIXERS[name]
    torch._dynamo.reset()
    compiled = torch.compile(mixer, fullgraph=True, dynamic=True)
    for more in (0, 3):
        x = torch.randn(2 + more, *[n + more for n in example.space], example.dim, requires_grad=True)
        y, expected = compiled(x), mixer(x)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
        (grad,) = torch.autograd.grad(y.square().sum(), x)
        (expected_grad,) = torch.autograd.grad(expected.square().sum(), x)
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-4)


def test_exports_with_a_dynamic_batch(name):
    mixer, x = build(name), example_map(name)
    exported = torch.export.export(mixer, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    larger = example_map(name, batch=5)
    torch.testing.assert_close(exported.module()(larger), mixer(larger))


def test_no_weight_decay_names_are_parameters(name):
    mixer = build(name)
    assert mixer.no_weight_decay() <= {n for n, _ in mixer.named_parameters()}


@pytest.mark.parametrize("fault", ["rank", "channels"])
def test_wrong_maps_are_named(name, fault):
    mixer, x = build(name), example_map(name)
    wrong = x[0] if fault == "rank" else x[..., :3]
    with pytest.raises(ValueError, match=r"input must be \(B, .*C\) with C = 8, got") as raised:
        mixer(wrong)
    assert str(tuple(wrong.shape)) in str(raised.value)


def test_heads_must_divide(name):
    example = MIXERS[name]
    with pytest.raises(ValueError, match=r"num_heads must divide dim, got num_heads=3 and dim=8; try 2 or 4"):
        example.build(8, **{**example.arguments, "num_heads": 3})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_dtype(name, dtype):
    mixer, x = build(name), example_map(name)
    expected = mixer(x)
    y = mixer.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    # a few tens of products in the dtype, fp32 at best
    error = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) * 16
    assert (y.float() - expected).abs().max() <= error * expected.abs().max()


def test_an_empty_batch(name):
    mixer, x = build(name), example_map(name)
    assert mixer(x[:0]).shape == (0, *mixer(x).shape[1:])


def test_bfloat16_autocast(name):
    mixer, x = build(name), example_map(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = mixer(x)
    y.float().sum().backward()
    # two GEMMs in bf16 (8 bits), sums of some tens of terms
    torch.testing.assert_close(y.float(), mixer(x), rtol=0.1, atol=0.1)
