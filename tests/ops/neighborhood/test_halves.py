"""The kernels of the halves: every layout, dtype, border and instruction set against the reference."""

import math
from dataclasses import replace

import pytest
import torch

from qna.ops import neighborhood_av, neighborhood_qk
from qna.ops.neighborhood import cpu, halves
from qna.ops.neighborhood.cases import BY_NAME, CASES, NeighborhoodCase
from qna.ops.neighborhood.geometry import window_axes
from tests.ops.equality import leaf
from tests.ops.neighborhood import drawn
from tests.ops.neighborhood.equality import D, as_
from tests.ops.neighborhood.test_cpu import LAID_OUT, WIDE, instruction_set
from tests.ops.tolerance import assert_close_to_oracle, tolerance

__all__ = ["instruction_set"]  # a fixture
pytestmark = pytest.mark.skipif(bool(cpu.missing()), reason="; ".join(cpu.missing()) or "there")
CHUNK = 100


def qk(tensors, window, backend):
    return neighborhood_qk(**tensors, **window, backend=backend)


def av(tensors, window, backend):
    return neighborhood_av(**tensors, **window, backend=backend)


HALVES = {"qk": qk, "av": av}
halves_ = pytest.mark.parametrize("half", HALVES)


def tensors_of(half, case, *, seed=0):
    """fp64, holding what fp32 can; weights of all taps, attended or not."""
    made = {name: as_(t, D) for name, t in case.make(seed=seed).items()}
    if half == "qk":
        return {name: made[name] for name in ("q", "k", "bias", "key_mask") if name in made}
    shape = (*made["v"].shape[:-1], math.prod(case.kernel))
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return {"weights": weights.double(), "v": made["v"]}


def in_dtype(tensors, dtype):
    return {name: as_(t, dtype) for name, t in tensors.items()}


def results(half, tensors, case, backend, upstream=None):
    """Output and all gradients, of a random upstream gradient that is NaN where nothing is attended."""
    leaves = {name: leaf(t) for name, t in tensors.items()}
    out = HALVES[half](leaves, case.window, backend)
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    g = g.to(upstream or out.dtype).to(out.dtype)
    out.backward(g.masked_fill(out.detach() == -math.inf, math.nan))
    return {"out": out.detach(), **{n: t.grad for n, t in leaves.items() if t.requires_grad}}


def terms_of(case, name):
    queries = case.batch * math.prod(case.space)
    return case.terms * (queries if name == "bias" else 1)


def assert_equal(half, case, dtype, *, seed=0):
    tensors = tensors_of(half, case, seed=seed)
    actual = results(half, in_dtype(tensors, dtype), case, "cpu")
    expected = results(half, tensors, case, "reference", upstream=torch.float32)
    for name, e in expected.items():
        a, hidden = actual[name], e == -math.inf
        assert torch.equal(a == -math.inf, hidden), name
        a, finite = a.masked_fill(hidden, 0), e.masked_fill(hidden, 0)
        assert a.isfinite().all(), name
        assert_close_to_oracle(a, finite, terms=terms_of(case, name), scale=4.0, name=name)


@halves_
@pytest.mark.parametrize("dtype", [torch.float32, D], ids=str)
@pytest.mark.parametrize("case", [*CASES, *WIDE], ids=lambda case: case.name)
def test_equals_the_reference(half, case, dtype, instruction_set):
    assert_equal(half, case, dtype)


@halves_
@pytest.mark.parametrize("chunk", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 20))])
def test_random_calls_equal_the_reference(half, chunk, instruction_set):
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        assert_equal(half, drawn.call(seed), torch.float32 if seed % 3 else D, seed=seed)


@halves_
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rounds_like_the_reference(half, case, dtype, instruction_set):
    """At most twice the reference's error at that dtype, a unit of rounding, and what fp32 leaves."""
    given = in_dtype(tensors_of(half, case), dtype)
    actual = results(half, given, case, "cpu")
    alike = results(half, given, case, "reference")
    truth = results(half, in_dtype(given, D), case, "reference", upstream=dtype)
    for name, exact in truth.items():
        hidden = exact == -math.inf
        assert torch.equal(actual[name] == -math.inf, hidden), name
        a, r, e = (t.double().masked_fill(hidden, 0) for t in (actual[name], alike[name], exact))
        size = float(e.abs().max())
        floor = tolerance(torch.float32, terms_of(case, name), max(4.0, size))
        limit = 2 * float((r - e).abs().max()) + torch.finfo(dtype).eps * size + floor
        assert float((a - e).abs().max()) <= limit, name


@halves_
@pytest.mark.parametrize("layout", [*LAID_OUT, "taps before space"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["2d-all-at-once", "2d-long-lines"])
def test_maps_of_any_strides(half, layout, dtype, name, instruction_set):
    """The same bits; "taps before space" is what ContMix makes, and grows the gradient alike."""
    case = next(c for c in (*CASES, *WIDE) if c.name == name)

    def laid_out(t):
        if layout == "taps before space":
            return t.movedim((-2, -1), (1, 2)).contiguous().movedim((1, 2), (-2, -1))
        return LAID_OUT[layout](t)

    made = in_dtype(tensors_of(half, case), dtype)
    tensors = {n: t if n in ("bias", "key_mask") else laid_out(t) for n, t in made.items()}
    dense = {n: t.contiguous() for n, t in tensors.items()}
    found = [results(half, t, case, "cpu") for t in (tensors, dense)]
    for n, t in found[1].items():
        assert torch.equal(found[0][n], t), n


@halves_
@pytest.mark.parametrize("case", [*CASES, *WIDE], ids=lambda case: case.name)
def test_threads_change_no_bit(half, case):
    tensors, before = in_dtype(tensors_of(half, case), torch.float32), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(results(half, tensors, case, "cpu"))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(other[name], t) for name, t in found[0].items())


@halves_
def test_an_item_of_a_batch_does_not_know_of_the_others(half):
    case = replace(BY_NAME["2d-3x3"], batch=3)
    tensors = in_dtype(tensors_of(half, case), torch.float32)
    together = HALVES[half](tensors, case.window, "cpu")
    for i in range(3):
        alone = {name: t if name == "bias" else t[i : i + 1] for name, t in tensors.items()}
        assert torch.equal(HALVES[half](alone, case.window, "cpu"), together[i : i + 1])


def test_what_is_not_attended_may_be_nan():
    """Weights of taps that are not, values that no window holds, keys that the mask hides."""
    case = BY_NAME["2d-causal-rows"]
    scores = neighborhood_qk(*(case.make()[n] for n in "qk"), **case.window)
    tensors = in_dtype(tensors_of("av", case), torch.float32)
    spoiled = {**tensors, "weights": tensors["weights"].masked_fill(scores == -math.inf, math.nan)}
    found = [results("av", t, case, "cpu") for t in (tensors, spoiled)]
    assert all(torch.equal(found[1][name], t) for name, t in found[0].items())

    future = {**tensors, "v": tensors["v"].clone()}
    future["v"][:, 4:] = math.nan
    out = neighborhood_av(**future, **case.window, backend="cpu")
    assert torch.equal(out[:, :4], found[0]["out"][:, :4])

    tensors = in_dtype(tensors_of("qk", case), torch.float32)
    hidden = ~tensors["key_mask"][..., None, None]
    spoiled = {**tensors, "k": tensors["k"].masked_fill(hidden, math.nan)}
    found = [results("qk", t, case, "cpu") for t in (tensors, spoiled)]
    assert all(torch.equal(found[1][name], t) for name, t in found[0].items())


@halves_
def test_nan_and_infinity_are_not_hidden(half):
    case = replace(BY_NAME["2d-even"], biased=False)
    for name in tensors_of(half, case):
        for value in (math.nan, math.inf):
            spoiled = tensors_of(half, case)
            spoiled[name][0, 0, 0, 0, 0] = value
            out, truth = (HALVES[half](spoiled, case.window, b) for b in ("cpu", "reference"))
            assert torch.equal(out.isfinite(), truth.isfinite()), (name, value)


@halves_
def test_an_empty_batch(half):
    case = BY_NAME["2d-3x3"]
    tensors = {n: t if n == "bias" else t[:0] for n, t in tensors_of(half, case).items()}
    found = results(half, tensors, case, "cpu")
    assert found["out"].shape[0] == 0
    assert "bias" not in found or (found["bias"] == 0).all()


@halves_
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(half, dynamic):
    torch._dynamo.reset()
    case = BY_NAME["2d-3x3"]

    def step(tensors):
        return HALVES[half](tensors, case.window, "cpu").clamp(min=-9).sin()

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for space in ((14, 13), (15, 16)):
        tensors = {n: leaf(t) for n, t in tensors_of(half, replace(case, space=space)).items()}
        leaves = [t for t in tensors.values() if t.requires_grad]
        out, expected = compiled(tensors), step(tensors)
        torch.testing.assert_close(out, expected)
        grads = (torch.autograd.grad(y.sum(), leaves) for y in (out, expected))
        torch.testing.assert_close(*grads)


@halves_
def test_opcheck(half):
    case = BY_NAME["2d-3x3"]
    tensors = [leaf(t) for t in tensors_of(half, case).values()]
    axes = window_axes(case.name, case.space, **case.window)
    options = halves.encode_axes(axes)
    op = getattr(torch.ops.qna, f"neighborhood_{half}_cpu").default
    torch.library.opcheck(op, (*tensors, 0.3, options))


@halves_
def test_a_second_derivative_names_the_reference(half):
    case = NeighborhoodCase("small", (4,), (3,))
    tensors = {n: leaf(t) for n, t in tensors_of(half, case).items()}
    out = HALVES[half](tensors, case.window, "cpu")
    first = next(iter(tensors.values()))
    (grad,) = torch.autograd.grad(out.square().sum(), first, create_graph=True)
    with pytest.raises(NotImplementedError, match='backend="reference"'):
        grad.sum().backward()
