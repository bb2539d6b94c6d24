"""No mixing, a series in the place of the exponential, and weights of the key alone: by loops and limits."""

import pytest
import torch
import torch.nn.functional as F

from qna._core.errors import InvalidInput, UnknownName
from qna.mixers import CausalAttention1d, KeyOnlyAttention1d, PositionwiseMlp1d, TaylorAttention1d
from tests.mixers.causal.deconstructed.drawn import close, joined, made, split, x

FORMS = [(n, s) for n in ("shared", "orders") for s in ("pairs", "channels")]


def parameters(mixer):
    return sum(p.numel() for p in mixer.parameters())


@pytest.mark.parametrize(("dim", "heads", "kv_heads"), [(24, 4, 4), (24, 4, 2), (48, 6, 3)])
def test_all_have_the_parameters_of_standard_attention(dim, heads, kv_heads):
    sizes = {"num_heads": heads, "kv_heads": kv_heads}
    standard = parameters(CausalAttention1d(dim, **sizes))
    for mixer in (PositionwiseMlp1d, TaylorAttention1d, KeyOnlyAttention1d):
        assert parameters(mixer(dim, **sizes)) == standard
    # where a third is no whole number, it is as near as can be
    other = parameters(CausalAttention1d(64, num_heads=4))
    assert abs(parameters(PositionwiseMlp1d(64, num_heads=4)) - other) <= 3 * 64 / 2


def test_an_mlp_is_its_formula_and_has_no_gradient_across_positions():
    mixer = made(PositionwiseMlp1d)
    sequence = x().requires_grad_()
    gate, up, down = (mixer.mlp.get_parameter(f"{n}.weight") for n in ("gate", "up", "down"))
    expected = (F.silu(sequence @ gate.mT) * (sequence @ up.mT)) @ down.mT
    close(mixer(sequence), expected)
    (grad,) = torch.autograd.grad(mixer(sequence)[:, 5].square().sum(), sequence)
    assert grad[:, 5].abs().min() > 0
    assert not grad[:, :5].any()
    assert not grad[:, 6:].any()


def weights_of(query, key, order, square):
    """What an order says of each pair, (B, h, N, N), by loops over positions."""
    n, d = query.shape[2:]
    made = torch.zeros(*query.shape[:2], n, n, dtype=query.dtype)
    for i in range(n):
        for j in range(i + 1):
            products = query[:, :, i] * key[:, :, j]
            s = products.sum(-1) * d**-0.5
            if order == 0:
                made[:, :, i, j] = 1
            elif order == 1:
                made[:, :, i, j] = s
            else:
                made[:, :, i, j] = (s.square() if square == "pairs" else products.square().sum(-1) / d) / 2
    return made


@pytest.mark.parametrize(("normalise", "square"), FORMS)
@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_a_series_is_a_dense_polynomial(normalise, square, chunk):
    mixer = made(TaylorAttention1d, normalise=normalise, square=square, chunk=chunk, rope_base=None)
    query, key, value = split(mixer, x())
    orders = [weights_of(query, key, order, square).detach() for order in range(3)]
    if normalise == "shared":
        orders = [sum(orders)]
    shares = sum(t / t.sum(-1, keepdim=True) for t in orders)
    expected = joined(mixer, shares @ value)
    # a first order may be divided by hardly anything
    worst = max(1.0, *((t.abs().sum(-1) / t.sum(-1).abs()).max().item() for t in orders))
    close(mixer(x()), expected, 1e-12 * worst)
    close(mixer.attention_map(x()), shares, 1e-12 * worst)
    close(mixer.attention_rows(x()).dense(11), shares.mean(1), 1e-12 * worst)
    parts, state = [], mixer.init_state(2)
    for part in x().split((6, 1, 4), 1):
        y, state = mixer.step(part, state)
        parts.append(y)
    close(torch.cat(parts, 1), expected, 1e-12 * worst)


def test_a_series_is_based_of_others():
    """The values by flash-linear-attention's naive_parallel_based at bc3b101, of tensors made by a rule."""
    mixer = made(TaylorAttention1d, rope_base=None, dim=8, num_heads=2, kv_heads=2, chunk=2)
    for number, layer in enumerate((mixer.heads.query, mixer.heads.key, mixer.heads.value, mixer.out)):
        layer.weight.data = rule(layer.weight, number)
    sequence = rule(torch.zeros(2, 5, 8), 7)
    close(mixer(sequence)[:, -1, :4], torch.tensor(BASED, dtype=torch.float64), 1e-9)


def rule(t, number):
    return (torch.linspace(-1, 1.3, t.numel(), dtype=torch.float64) * (5 + number)).cos().reshape(t.shape)


BASED = [
    [0.2743696602338143, 0.6228948968141825, -1.1377644833422536, 0.9541608309796425],
    [-0.10635397490919907, -0.07828941766847408, 0.21487096271059136, -0.21954329502429748],
]


def test_a_series_turns_queries_and_keys_as_standard_attention_does():
    """Small scores leave the exponential and its series alike; and even ones are a mean."""
    differences = []
    for scale in (1e-1, 1e-2, 1e-3):
        series, standard = made(TaylorAttention1d), made(CausalAttention1d)
        series.load_state_dict(standard.state_dict())
        for mixer in (series, standard):
            mixer.heads.query.weight.data *= scale
        differences.append((series(x()) - standard(x())).abs().max().item())
        mean = joined(standard, split(standard, x())[2].cumsum(2) / torch.arange(1, 12)[:, None])
        assert (series(x()) - mean).abs().max() > 10 * differences[-1]
    # the next order, of a score cubed
    assert differences[1] == pytest.approx(1e-3 * differences[0], rel=0.3)
    assert differences[2] == pytest.approx(1e-3 * differences[1], rel=0.03)
    full = made(TaylorAttention1d)
    full.heads.query.weight.data.zero_()
    close(full(x()), joined(full, split(full, x())[2].cumsum(2) / torch.arange(1, 12)[:, None]))


def test_rows_of_separate_orders_sum_to_three():
    rows = made(TaylorAttention1d, normalise="orders").attention_map(x()).sum(-1)
    torch.testing.assert_close(rows, torch.full_like(rows, 3.0))
    rows = made(TaylorAttention1d).attention_map(x()).sum(-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


def test_many_positions_are_taken_in_parts(monkeypatch):
    from qna.mixers.causal.deconstructed import taylor

    mixer, sequence = made(TaylorAttention1d, chunk=4), x(50)
    whole = mixer(sequence)
    monkeypatch.setattr(taylor, "_AT_ONCE", 18)
    close(mixer(sequence), whole)


def key_only(mixer, sequence, chunk=None):
    """By the equations, position by position."""
    query, key, value = split(mixer, sequence)
    score = (F.silu(query) * key).sum(-1) * query.shape[-1] ** -0.5
    made = []
    for i in range(sequence.shape[1]):
        weights = score[:, :, : i + 1].softmax(-1)
        made.append((weights[..., None] * value[:, :, : i + 1]).sum(2))
    return joined(mixer, torch.stack(made, 2)), score


@pytest.mark.parametrize("chunk", [1, 3, 4, 64])
def test_weights_of_the_key_alone_are_a_masked_softmax(chunk):
    mixer = made(KeyOnlyAttention1d, chunk=chunk)
    expected, score = key_only(mixer, x())
    close(mixer(x()), expected)
    shares = mixer.attention_map(x())
    hidden = torch.ones(11, 11).triu(1).bool()
    close(shares, score[..., None, :].masked_fill(hidden, -torch.inf).softmax(-1))
    # who asks does not matter: in every row shares have the same ratios
    close(shares[:, :, 10, 3] / shares[:, :, 10, 2], shares[:, :, 5, 3] / shares[:, :, 5, 2])


def test_even_weights_are_a_running_mean():
    mixer = made(KeyOnlyAttention1d)
    mixer.heads.key.weight.data.zero_()
    value = split(mixer, x())[2]
    close(mixer(x()), joined(mixer, value.cumsum(2) / torch.arange(1, 12)[:, None]))


@pytest.mark.parametrize("split_at", [(11,), (1,) * 11, (5, 1, 5)])
def test_large_scores_do_not_overflow(split_at):
    """Scores of thousands, rising and falling, in single precision, and their gradients."""
    mixer = made(KeyOnlyAttention1d, chunk=3)
    mixer.heads.query.weight.data *= 2000
    expected, score = key_only(mixer, x())
    assert score.max() > 1000
    assert score.min() < -300
    low, sequence = mixer.float(), x().float().requires_grad_()
    state, parts = low.init_state(2), []
    for part in sequence.split(split_at, 1):
        y, state = low.step(part, state)
        parts.append(y)
    y = torch.cat(parts, 1)
    assert (y - expected).abs().max() < 1e-3 * expected.abs().max()
    (grad,) = torch.autograd.grad(y.square().sum(), sequence)
    assert grad.isfinite().all()


def test_the_state_is_sums_weights_and_the_largest_score():
    mixer = made(KeyOnlyAttention1d, chunk=4)
    _, state = mixer.step(x(), mixer.init_state(2))
    _, score = key_only(mixer, x())
    close(state["largest"], score.amax(-1))
    weights = (score - score.amax(-1, keepdim=True)).exp()
    close(state["weights"], weights.sum(-1))
    close(state["sums"], (weights[..., None] * split(mixer, x())[2]).sum(2))


@pytest.mark.parametrize("mixer", [KeyOnlyAttention1d, TaylorAttention1d])
def test_gradients(mixer):
    assert torch.autograd.gradcheck(made(mixer, chunk=2, dim=8), x(5, 8).requires_grad_())


def test_caches_are_as_published():
    """Table 8, in half precision: numbers times 2 bytes, where ours are in single precision at least."""
    b, length, d, h = 3, 50, 48, 4
    sizes = {"num_heads": h}
    size = (b, length, d)
    assert CausalAttention1d(d, **sizes).state_bytes(size, torch.float16) == 4 * b * length * d
    assert PositionwiseMlp1d(d, **sizes).state_bytes(size, torch.float16) == 0
    numbers = KeyOnlyAttention1d(d, **sizes).state_bytes(size, torch.float32) // 4
    assert 2 * numbers == 2 * b * d + 4 * b * h
    printed = TaylorAttention1d(d, square="channels", normalise="orders", **sizes)
    assert 2 * (printed.state_bytes(size) // 4) == 6 * b * d + 4 * b * d * d // h
    # of products of two channels there are more
    pairs = TaylorAttention1d(d, **sizes).state_bytes(size) // 4
    assert pairs == b * (d + (d + d * d // h) + h * 78 * (12 + 1))


def test_operations_are_as_published():
    """Table 6: two operations a multiply-add, without the output map; decoding reads all positions once."""
    b, length, d, h = 3, 50, 48, 4
    out = 2 * b * d * d

    def decode(mixer):
        return 2 * (mixer.macs((b, length, d)) - mixer.macs((b, length - 1, d))) - out

    assert decode(CausalAttention1d(d, num_heads=h)) == 6 * b * d * d + 4 * b * length * d
    assert decode(PositionwiseMlp1d(d, num_heads=h)) + out == 6 * b * d * d + out
    # one position alone, from sums: of lower order are scores, weights and denominators
    key_only = KeyOnlyAttention1d(d, num_heads=h, chunk=1)
    step = 2 * key_only.macs((b, 1, d)) - out
    assert step - 6 * b * d * d == 2 * b * (d + 7 * (d + h))
    # prefill of the printed recurrence, whose table has matrices of the whole width: one head
    taylor = TaylorAttention1d(d, num_heads=1, square="channels", normalise="orders", chunk=1)
    prefill = 2 * taylor.macs((b, length, d)) - length * out
    lower = 2 * b * length * (2 * d + 3 * (d + 1) + 2 * (d + 1) + 4 * d)
    assert prefill - lower == 14 * b * length * d * d
    # those of whole squares of positions, where ours are triangles
    standard = CausalAttention1d(d, num_heads=h)
    assert (
        2 * standard.macs((b, length, d)) - length * out
        == 6 * b * length * d * d + 2 * b * length * (length + 1) * d
    )


def test_what_is_refused():
    with pytest.raises(InvalidInput, match="num_heads must divide dim, got num_heads=5 and dim=12"):
        PositionwiseMlp1d(12, num_heads=5)
    with pytest.raises(InvalidInput, match="kv_heads must divide num_heads, got kv_heads=3"):
        KeyOnlyAttention1d(12, num_heads=4, kv_heads=3)
    with pytest.raises(InvalidInput, match="kv_heads must divide num_heads, got kv_heads=3"):
        PositionwiseMlp1d(12, num_heads=4, kv_heads=3)
    with pytest.raises(InvalidInput, match="chunk must be an integer of at least 1, got 0"):
        TaylorAttention1d(12, num_heads=4, chunk=0)
    with pytest.raises(UnknownName, match="unknown way to normalise 'share'; did you mean 'shared'"):
        TaylorAttention1d(12, num_heads=4, normalise="share")
    with pytest.raises(UnknownName, match="unknown square 'pair'; did you mean 'pairs'"):
        TaylorAttention1d(12, num_heads=4, square="pair")
