"""Titans' neural memory: a loop of autograd over its definition, closed forms of its limits, cost."""

import pytest
import torch
import torch.nn.functional as F

from qna._core.errors import InvalidInput
from qna.mixers import NeuralMemory1d
from qna.mixers.causal.titans.learning import forward, learned, lesson, read, spread
from tests.mixers.contract import randomise

N = 13


def drawn(seed=0, dim=8, **arguments):
    mixer = NeuralMemory1d(dim, **{"num_heads": 2, "chunk": 4, "step": 0.05, **arguments})
    randomise(mixer, seed)
    return mixer.double().eval()


def x(n=N, dim=8, seed=1, batch=2):
    return torch.randn(batch, n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensors(*shapes, seed=3):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=g, dtype=torch.float64) for shape in shapes]


def gates(*values, n=N):
    return tuple(torch.full((1, 1, n), float(value), dtype=torch.float64) for value in values)


def network(weights, z):
    for layer, weight in enumerate(weights):
        z = weight @ (F.silu(z) if layer else z)
    return z


def by_autograd(mixer, x):
    """Token by token, sequence by sequence, head by head: gradients of the loss by autograd."""
    d, h = mixer.head_dim, mixer.num_heads
    padded = [F.pad(linear(x), (0, 0, mixer.conv - 1, 0)) for linear in (mixer.query, mixer.key, mixer.value)]
    n = x.shape[1]
    query, key, value = (
        F.silu(sum(p[:, i : i + n] * mixer.convs[which, :, i] for i in range(mixer.conv)))
        for which, p in enumerate(padded)
    )
    rates = mixer.rates(x).sigmoid()
    out = torch.zeros_like(x)
    for b in range(len(x)):
        for head in range(h):
            part = slice(head * d, (head + 1) * d)
            weights = [w[head] for w in mixer.memory]
            momenta = [torch.zeros_like(w) for w in weights]
            for t in range(n):
                if t % mixer.chunk == 0:
                    start = [w.detach().requires_grad_() for w in weights]
                q, k = (v[b, t, part] / v[b, t, part].norm() for v in (query, key))
                loss = (network(start, k) - value[b, t, part]).square().sum()
                grads = torch.autograd.grad(loss, start)
                theta = mixer.step_size * rates[b, t, head]
                eta = rates[b, t, h + head] if mixer.momentum else 0.0
                alpha = rates[b, t, (1 + mixer.momentum) * h + head] if mixer.decay else 0.0
                momenta = [eta * s - theta * g for s, g in zip(momenta, grads, strict=True)]
                weights = [(1 - alpha) * w + s for w, s in zip(weights, momenta, strict=True)]
                out[b, t, part] = network(weights, q)
    normed = F.rms_norm(out.unflatten(-1, (h, d)), (d,), eps=1e-6) * mixer.norm.weight
    return mixer.out(normed.flatten(2) * mixer.gate(x).sigmoid())


@pytest.mark.parametrize("chunk", [1, 4, 13, 32])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_it_is_its_definition(depth, chunk):
    mixer = drawn(depth=depth, chunk=chunk, expansion=2)
    expected = by_autograd(mixer, x()).detach()
    assert (mixer(x()) - expected).abs().max() < 1e-9 * expected.std()


@pytest.mark.parametrize("arguments", [{"momentum": False}, {"decay": False}, {"conv": 1}, {"num_heads": 1}])
def test_its_parts_can_be_left_out(arguments):
    mixer = drawn(**arguments)
    expected = by_autograd(mixer, x()).detach()
    assert (mixer(x()) - expected).abs().max() < 1e-9 * expected.std()
    assert (mixer(x()) - by_autograd(drawn(), x())).abs().max() > 1e-3


def test_larger_chunks_are_another_function():
    one, four = drawn(chunk=1), drawn(chunk=4)
    assert torch.equal(one.convs, four.convs)
    assert (one(x()) - four(x())).abs().max() > 1e-3


def run(weights, key, value, query, told, chunk):  # noqa: PLR0917
    """Outputs of a memory that begins with these weights, and the weights and momenta behind it."""
    momenta = tuple(torch.zeros_like(w) for w in weights)
    parts = []
    for begin in range(0, key.shape[2], chunk):
        at = slice(begin, begin + chunk)
        taught = lesson(weights, key[:, :, at], value[:, :, at], tuple(g[..., at] for g in told))
        reach = spread(taught.rate, taught.keep, taught.decay)
        parts.append(read(weights, momenta, taught, reach, query[:, :, at]))
        weights, momenta = learned(weights, momenta, taught, reach)
    return torch.cat(parts, 2), weights, momenta


def test_a_linear_memory_token_by_token_is_the_delta_rule():
    key, value, query, weight = tensors((1, 1, N, 3), (1, 1, N, 3), (1, 1, N, 3), (1, 1, 3, 3))
    y, _, _ = run((weight,), key, value, query, gates(0.1, 0, 0), 1)
    state = weight[0, 0]
    for t in range(N):
        k, v, q = (s[0, 0, t] for s in (key, value, query))
        state = state - 0.2 * torch.outer(state @ k - v, k)
        torch.testing.assert_close(y[0, 0, t], state @ q, rtol=1e-11, atol=1e-11)


def test_gradients_at_no_memory_are_linear_attention():
    key, value, query = tensors((1, 1, N, 3), (1, 1, N, 3), (1, 1, N, 3))
    nothing = (torch.zeros(1, 1, 3, 3, dtype=torch.float64),)
    y, _, _ = run(nothing, key, value, query, gates(0.5, 0, 0), N)
    expected = (query @ key.mT).tril() @ value
    torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)


def test_forgetting_all_leaves_the_last_momentum():
    key, value, query, weight = tensors((1, 1, N, 3), (1, 1, N, 3), (1, 1, N, 3), (1, 1, 3, 3))
    y, weights, momenta = run((weight,), key, value, query, gates(0.1, 0.7, 1), 5)
    torch.testing.assert_close(weights, momenta, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(y[:, :, -1:], query[:, :, -1:] @ momenta[0].mT, rtol=1e-12, atol=1e-12)


def test_steps_of_no_size_leave_the_memory():
    shapes = (1, 1, N, 3), (1, 1, N, 3), (1, 1, N, 3), (1, 1, 5, 3), (1, 1, 3, 5)
    key, value, query, *weights = tensors(*shapes)
    y, after, _ = run(tuple(weights), key, value, query, gates(0, 0.5, 0), 4)
    torch.testing.assert_close(after, tuple(weights), rtol=0, atol=0)
    torch.testing.assert_close(y, forward(tuple(weights), query), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("keep", [0.0, 0.6, 1.0])
def test_constant_gates_have_a_closed_form(keep, decay):
    reach = spread(*gates(0.25, keep, decay, n=6))
    for t in range(6):
        for i in range(6):
            expected = 0.25 * sum((1 - decay) ** (t - j) * keep ** (j - i) for j in range(i, t + 1))
            assert float(reach.taught[0, 0, t, i]) == pytest.approx(expected, abs=1e-12)
            moved = 0.25 * keep ** (t - i) if i <= t else 0.0
            assert float(reach.moved[0, 0, t, i]) == pytest.approx(moved, abs=1e-12)
        before = sum((1 - decay) ** (t - j) * keep ** (j + 1) for j in range(t + 1))
        assert float(reach.before[0, 0, t]) == pytest.approx(before, abs=1e-12)
        assert float(reach.start[0, 0, t]) == pytest.approx((1 - decay) ** (t + 1), abs=1e-12)


def test_gates_of_zero_and_one_have_gradients():
    told = [g.requires_grad_() for g in gates(0.5, 0.0, 1.0, n=4)]
    assert torch.autograd.gradcheck(lambda *g: tuple(vars(spread(*g)).values()), told)


def test_gradients_of_the_outer_loop():
    mixer = drawn(dim=4, depth=2, chunk=3)
    names, values = zip(*mixer.named_parameters(), strict=True)

    def call(x, *parameters):
        return torch.func.functional_call(mixer, dict(zip(names, parameters, strict=True)), (x,))

    inputs = [x(5, 4, batch=1), *(v.detach().clone() for v in values)]
    assert torch.autograd.gradcheck(call, [t.requires_grad_() for t in inputs], atol=1e-6)


def test_the_state_does_not_grow():
    mixer = drawn()
    _, state = mixer.step(x(16), mixer.init_state(2))
    _, later = mixer.step(x(4000), state)
    assert later.nbytes == state.nbytes == mixer.state_bytes((2, 4016, 8), torch.float64)
    assert later.length == 4016


def test_it_stores_what_it_was_told():
    """Pairs of orthonormal keys: steps of a half make a linear memory give each value back exactly."""
    key = torch.eye(5, dtype=torch.float64)[None, None]
    (value,) = tensors((1, 1, 5, 5))
    weight = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    _, weights, _ = run((weight,), key, value, key, gates(0.5, 0, 0, n=5), 2)
    torch.testing.assert_close(forward(weights, key), value, rtol=1e-12, atol=1e-12)


def test_multiply_adds_by_hand():
    mixer = NeuralMemory1d(8, num_heads=2, depth=2, expansion=3, chunk=4, conv=2)
    weights, later, wide = 4 * 12 * 2, 4 * 12, 16 * 2
    maps = 7 * (5 * 64 + 6 * 8 + 3 * 8 * 2)
    heads = 7 * (3 * weights + later) + (16 + 9) * wide + 4 * 2 * weights
    heads += (64 + 16) + (27 + 9)
    assert mixer.macs((1, 7, 8)) == maps + 2 * heads


@pytest.mark.parametrize(
    "arguments", [{"depth": 0}, {"chunk": 0}, {"conv": 0}, {"num_heads": 3}, {"step": 0.0}]
)
def test_bad_arguments(arguments):
    with pytest.raises(InvalidInput):
        NeuralMemory1d(8, **{"num_heads": 2, **arguments})


def test_a_deep_memory_that_forgot_all_stays_empty_and_a_linear_one_learns_again():
    for depth, learns in ((2, False), (1, True)):
        key, value, query = tensors((1, 1, N, 3), (1, 1, N, 3), (1, 1, N, 3))
        nothing = tuple(torch.zeros(1, 1, 3, 3, dtype=torch.float64) for _ in range(depth))
        _, weights, _ = run(nothing, key, value, query, gates(0.1, 0, 0), 4)
        assert bool(weights[-1].any()) is learns


@pytest.mark.parametrize(
    ("chunk", "step", "stays"), [(16, 0.05, True), (64, 0.05, True), (128, 0.05, False), (64, 0.1, False)]
)
def test_how_large_steps_may_be(chunk, step, stays):
    """What the docstring says of two layers at their first weights, with random input."""
    torch.manual_seed(0)
    mixer = NeuralMemory1d(256, num_heads=8, chunk=chunk, step=step).eval()
    with torch.no_grad():
        y, _ = mixer.step(torch.randn(1, 8192, 256), mixer.init_state(1))
    assert bool(y.isfinite().all()) is stays
