"""Reduced attention: loops of the equations, what each form can be and cannot, folding, and cost."""

import math
from itertools import product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qna._core.errors import InvalidInput, UnknownName
from qna.mixers import FullAttention2d, MinimalAttention1d, MinimalAttention2d
from qna.parts.minimal_attention import QK, VALUES
from qna.parts.minimal_folding import fold_into

FORMS = list(product((1, 2), QK, VALUES))
each_form = pytest.mark.parametrize(("heads", "qk", "value"), FORMS)


def made(dim=6, seed=0, kind=MinimalAttention2d, **options):
    """A mixer in double precision, no parameter at zero."""
    torch.manual_seed(seed)
    mixer = kind(dim, **options).double().eval()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.6)
    return mixer


def a_map(*size, seed=1):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrices(layer):
    """(in, out) and the bias, as the equations have them."""
    return layer.weight.T, torch.zeros(layer.out_features).double() if layer.bias is None else layer.bias


def triangle_of(mixer, h):
    d = mixer.head_dim
    matrix, entries = torch.zeros(d, d).double(), iter(mixer.triangle[h])
    for i in range(d):
        for j in range(i + 1):
            matrix[i, j] = next(entries)
    return matrix


def scores_by_loops(mixer, tokens):
    """S / sqrt(d) of every head for one image, pair by pair, and without what the softmax does not see."""
    n, c, d = len(tokens), mixer.dim, mixer.head_dim
    scores = torch.empty(mixer.num_heads, n, n).double()
    for h, i, j in product(range(mixer.num_heads), range(n), range(n)):
        part = slice(h * d, (h + 1) * d)
        if mixer.qk_form == "full":
            (wq, bq), (wk, bk) = matrices(mixer.q), matrices(mixer.k)
            score = (tokens[i] @ wq + bq)[part] @ (tokens[j] @ wk + bk)[part]
        elif mixer.qk_form == "collapsed":
            w, b = matrices(mixer.qk)
            score = (tokens[i] @ w + b)[h * c : (h + 1) * c] @ tokens[j]
        else:
            t = triangle_of(mixer, h)
            score = tokens[i, part] @ (t @ t.T) @ tokens[j, part]
        scores[h, i, j] = score / math.sqrt(d)
    return scores


def by_loops(mixer, x):
    """The equations, image by image and head by head."""
    d, c, images = mixer.head_dim, mixer.dim, []
    for tokens in x.flatten(1, -2):
        weights = scores_by_loops(mixer, tokens).softmax(-1)
        heads = []
        for h in range(mixer.num_heads):
            part = slice(h * d, (h + 1) * d)
            if mixer.value_form == "full":
                (wv, bv), (wo, _) = matrices(mixer.value), matrices(mixer.out)
                heads.append(weights[h] @ (tokens @ wv + bv)[:, part] @ wo[part])
            elif mixer.value_form == "collapsed":
                w, _ = matrices(mixer.out)
                heads.append(weights[h] @ tokens @ w[h * c : (h + 1) * c])
            else:
                heads.append(weights[h] @ tokens[:, part])
        if mixer.value_form == "none":
            images.append(torch.cat(heads, -1))
        else:
            images.append(sum(heads) + matrices(mixer.out)[1])
    return torch.stack(images).view_as(x)


@each_form
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_by_its_equations(heads, qk, value, bias):
    mixer = made(num_heads=heads, qk=qk, value=value, bias=bias)
    for space in ((2, 3), (3, 3)):
        x = a_map(2, *space, 6)
        torch.testing.assert_close(mixer(x), by_loops(mixer, x), rtol=1e-10, atol=1e-11)
    sequence = MinimalAttention1d(6, num_heads=heads, qk=qk, value=value, bias=bias).double()
    sequence.load_state_dict(mixer.state_dict())
    assert torch.equal(sequence(x.flatten(1, 2)), mixer(x).flatten(1, 2))


@each_form
@torch.no_grad()
def test_what_it_shows(heads, qk, value):
    mixer, x = made(num_heads=heads, qk=qk, value=value), a_map(2, 2, 4, 6)
    expected = torch.stack([scores_by_loops(mixer, tokens).softmax(-1) for tokens in x.flatten(1, 2)])
    shown = mixer.attention_map(x)
    torch.testing.assert_close(shown.flatten(4).flatten(1, 2), expected.transpose(1, 2))
    rows = mixer.attention_rows(x)
    torch.testing.assert_close(rows.dense(8), expected.mean(1))
    torch.testing.assert_close(rows.shares.sum(-1), torch.ones(2, 8).double())
    torch.testing.assert_close(mixer.attention_received(x).flatten(1), expected.mean(1).sum(1))
    line = made(kind=MinimalAttention1d, num_heads=heads, qk=qk, value=value)
    assert line.attention_map(x.flatten(1, 2)).shape == (2, 8, heads, 8)
    torch.testing.assert_close(line.attention_rows(x.flatten(1, 2)).dense(8), expected.mean(1))


@each_form
def test_gradients(heads, qk, value):
    mixer = made(dim=4, num_heads=heads, qk=qk, value=value)
    x = a_map(2, 2, 2, 4).requires_grad_()
    names, parameters = zip(*mixer.named_parameters(), strict=True) if [*mixer.parameters()] else ((), ())

    def call(x, *tensors):
        return torch.func.functional_call(mixer, dict(zip(names, tensors, strict=True)), (x,))

    inputs = (x, *(p.detach().requires_grad_() for p in parameters))
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


# what each form can be and cannot


@pytest.mark.parametrize("heads", [1, 3])
@torch.no_grad()
def test_symmetric_scores_are_a_positive_form(heads):
    mixer, x = made(num_heads=heads, qk="symmetric"), a_map(2, 3, 4, 6)
    query, key, _ = mixer.projected(x.flatten(1, 2))
    scores = query @ key.transpose(-1, -2)
    torch.testing.assert_close(scores, scores.transpose(-1, -2), rtol=0, atol=0)
    assert (scores.diagonal(dim1=-2, dim2=-1) >= 0).all()
    values = torch.linalg.eigvalsh(scores)
    assert values.min() > -1e-12 * values.max()
    # neither holds of a collapsed matrix
    query, key, _ = made().projected(x.flatten(1, 2))
    scores = query @ key.transpose(-1, -2)
    assert (scores - scores.transpose(-1, -2)).abs().max() > 0.1
    assert (scores.diagonal(dim1=-2, dim2=-1) < 0).any()


@torch.no_grad()
def test_a_token_of_fixed_length_is_most_like_the_others_along_its_own_direction():
    """Of the symmetric form: q(x, y)^2 <= q(x, x) q(y, y)."""
    mixer, x = made(qk="symmetric"), a_map(1, 5, 5, 6)
    query, key, _ = mixer.projected(x.flatten(1, 2))
    scores = (query @ key.transpose(-1, -2))[0, 0]
    own = scores.diagonal()
    assert (scores**2 <= own[:, None] * own[None] * (1 + 1e-12)).all()


@pytest.mark.parametrize("qk", QK)
@pytest.mark.parametrize("heads", [1, 2])
@torch.no_grad()
def test_without_values_tokens_stay_among_the_tokens(qk, heads):
    """No direction in which a mean is beyond all tokens, head by head."""
    mixer, x = made(num_heads=heads, qk=qk), a_map(2, 3, 4, 6)
    y = mixer(x)
    directions = a_map(40, 6 // heads, seed=7)
    for before, after in zip(x.chunk(heads, -1), y.chunk(heads, -1), strict=True):
        reach = (before @ directions.T).flatten(1, 2)
        made_of = (after @ directions.T).flatten(1, 2)
        assert (made_of <= reach.amax(1, keepdim=True) + 1e-12).all()
        assert (made_of >= reach.amin(1, keepdim=True) - 1e-12).all()
    # values lead outside
    beyond = made(num_heads=heads, qk=qk, value="full")(x) @ a_map(40, 6, seed=7).T
    reach = (x @ a_map(40, 6, seed=7).T).flatten(1, 2)
    assert (beyond.flatten(1, 2) > reach.amax(1, keepdim=True)).any()


@pytest.mark.parametrize("qk", QK)
@torch.no_grad()
def test_tokens_that_are_alike_stay_as_they_are(qk):
    x = a_map(1, 1, 1, 6).expand(2, 3, 4, 6)
    torch.testing.assert_close(made(qk=qk, num_heads=2)(x), x, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_full_is_the_attention_of_the_control():
    ours = made(dim=8, num_heads=2, qk="full", value="full")
    control, x = FullAttention2d(8, num_heads=2, bias=True).double(), a_map(2, 3, 5, 8)
    control.qkv.weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.value.weight]))
    control.qkv.bias.copy_(torch.cat([ours.q.bias, ours.k.bias, ours.value.bias]))
    control.out.load_state_dict(ours.out.state_dict())
    torch.testing.assert_close(ours(x), control(x), rtol=1e-11, atol=1e-12)


# folding


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_collapsed_matrices_do_what_full_ones_do(heads, bias):
    source, x = made(num_heads=heads, qk="full", value="full", bias=bias), a_map(2, 3, 4, 6)
    for qk, value in (("collapsed", "full"), ("full", "collapsed"), ("collapsed", "collapsed")):
        target = made(seed=5, num_heads=heads, qk=qk, value=value, bias=bias)
        told = fold_into(target, source)
        assert [text.split()[-1] for text in told] == [
            "kept" if form == "full" else "folded" for form in (qk, value)
        ]
        torch.testing.assert_close(target(x), source(x), rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(target.attention_map(x), source.attention_map(x), rtol=1e-10, atol=1e-11)
    if not bias:
        # without biases scores themselves agree, not their softmax alone
        query, key, _ = target.projected(x.flatten(1, 2))
        expected, whole, _ = source.projected(x.flatten(1, 2))
        torch.testing.assert_close(
            query @ key.transpose(-1, -2), expected @ whole.transpose(-1, -2), rtol=1e-10, atol=1e-10
        )


@torch.no_grad()
def test_a_symmetric_product_has_a_triangle():
    source, x = made(qk="full", value="full"), a_map(2, 3, 4, 6)
    nn.init.zeros_(source.q.bias)
    target = made(seed=5, qk="symmetric", value="collapsed")
    # two matrices have none
    before = target.triangle.clone()
    assert "queries and keys new" in fold_into(target, source)[0]
    assert torch.equal(target.triangle, before)
    # one that is both has, also where it is not of full rank; a bias of keys is alike for all keys
    source.k.weight.copy_(source.q.weight)
    for rank in (6, 4):
        source.q.weight[rank:] = source.k.weight[rank:] = 0
        assert fold_into(target, source)[0] == "queries and keys folded"
        torch.testing.assert_close(target(x), source(x), rtol=1e-7, atol=1e-7)
        collapsed = made(seed=6, qk="collapsed", value="full")
        fold_into(collapsed, source)
        assert fold_into(target, collapsed)[0] == "queries and keys folded"
        torch.testing.assert_close(target(x), source(x), rtol=1e-7, atol=1e-7)
    source.q.bias[1] = 1.0
    assert "queries and keys new" in fold_into(target, source)[0]
    # the negative of a form is none
    nn.init.zeros_(source.q.bias)
    source.k.weight.neg_()
    assert "queries and keys new" in fold_into(target, source)[0]


@torch.no_grad()
def test_values_of_nothing_are_none():
    """W_v = W_o = 1: full attention without values, head by head."""
    source, x = made(num_heads=2, qk="full", value="full"), a_map(2, 3, 4, 6)
    for layer in (source.value, source.out):
        layer.weight.copy_(torch.eye(6))
        nn.init.zeros_(layer.bias)
    target = made(seed=5, num_heads=2, qk="collapsed")
    assert fold_into(target, source)[1] == "values and output dropped"
    torch.testing.assert_close(target(x), source(x), rtol=1e-10, atol=1e-11)


@torch.no_grad()
def test_what_cannot_be_folded():
    full, x = made(qk="full", value="full"), a_map(1, 2, 2, 6)
    with pytest.raises(InvalidInput, match="num_heads must be that of the source, 1, got 2"):
        fold_into(made(num_heads=2), full)
    with pytest.raises(InvalidInput, match="keys that are collapsed cannot be made full; fold full ones"):
        fold_into(full, made())
    with pytest.raises(InvalidInput, match="keys that are symmetric cannot be made collapsed"):
        fold_into(made(), made(qk="symmetric"))
    with pytest.raises(InvalidInput, match="values that are none cannot be made collapsed"):
        fold_into(made(value="collapsed"), made())
    with pytest.raises(InvalidInput, match="what is folded has biases; make the target with bias=True"):
        fold_into(made(bias=False), full)
    same = made(seed=5, qk="full", value="full")
    assert fold_into(same, full) == ["queries and keys kept", "values and output kept"]
    assert torch.equal(same(x), full(x))
    for options in ({}, {"qk": "symmetric", "value": "collapsed"}):
        first, second = made(**options), made(seed=5, **options)
        assert [text.split()[-1] for text in fold_into(second, first)] == ["kept", "kept"]
        assert torch.equal(second(x), first(x))


# cost


@each_form
def test_parameters_and_multiply_adds(heads, qk, value):
    mixer, x = made(num_heads=heads, qk=qk, value=value), a_map(2, 3, 5, 6)
    c, d = 6, 6 // heads
    of_scores = {
        "full": 2 * c**2 + 2 * c,
        "collapsed": heads * (c**2 + c),
        "symmetric": heads * d * (d + 1) // 2,
    }
    of_values = {"full": 2 * c**2 + 2 * c, "collapsed": heads * c**2 + c, "none": 0}
    assert sum(p.numel() for p in mixer.parameters()) == of_scores[qk] + of_values[value]
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        mixer(x)
    assert counter.get_total_flops() == 2 * mixer.macs(x.shape)


@each_form
@torch.no_grad()
def test_scores_of_all_pairs_are_never_held(heads, qk, value):
    mixer, x = MinimalAttention2d(8, num_heads=heads, qk=qk, value=value).eval(), torch.randn(1, 32, 24, 8)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            tensors = out if isinstance(out, tuple | list) else (out,)
            largest = max([largest, *(t.numel() for t in tensors if isinstance(t, torch.Tensor))])
            return out

    with Watch():
        mixer(x)
    assert largest <= heads * x.numel()
    assert mixer.held(x.shape) <= 6 * heads * x.numel() < (32 * 24) ** 2


def test_dropout_of_weights_in_training_alone():
    mixer, x = made(attn_drop=0.5), a_map(2, 3, 4, 6)
    expected = made()(x)
    assert torch.equal(mixer(x), expected)
    mixer.train()
    torch.manual_seed(0)
    mean = torch.stack([mixer(x) for _ in range(2000)]).mean(0)
    assert not torch.equal(mixer(x), mixer(x))
    # of 2000 draws: a few deviations of their mean
    assert (mean - expected).abs().max() < 0.15


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("qk", QK)
@torch.no_grad()
def test_scores_of_normalised_tokens_vary_by_about_one_at_first(heads, qk):
    torch.manual_seed(0)
    mixer = MinimalAttention2d(64, num_heads=heads, qk=qk)
    x = nn.functional.layer_norm(torch.randn(8, 6, 6, 64), (64,))
    query, key, _ = mixer.projected(x.flatten(1, 2))
    scores = query * mixer.scale @ key.transpose(-1, -2)
    own = scores.diagonal(dim1=-2, dim2=-1)
    if qk == "symmetric":
        assert own.mean().item() == pytest.approx(1, abs=0.15)
    else:
        assert scores.std().item() == pytest.approx(1, abs=0.2)


@torch.no_grad()
def test_positions_in_another_order_give_the_same_in_that_order():
    mixer, x = made(num_heads=2, qk="symmetric", value="full"), a_map(2, 5, 7, 6)
    order = torch.randperm(35)
    shuffled = x.flatten(1, 2)[:, order].view_as(x)
    expected = mixer(x).flatten(1, 2)[:, order].view_as(x)
    torch.testing.assert_close(mixer(shuffled), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"qk": "none"}, UnknownName, "unknown qk 'none'"),
        ({"value": "symetric"}, UnknownName, "unknown value 'symetric'"),
        ({"num_heads": 4}, InvalidInput, "num_heads must divide dim, got num_heads=4 and dim=6"),
        ({"attn_drop": 1}, InvalidInput, "attn_drop must be at least 0 and below 1, got 1"),
    ],
)
def test_what_is_refused(options, kind, told):
    with pytest.raises(kind, match=told):
        MinimalAttention2d(6, **options)
    with pytest.raises(InvalidInput, match="only the batch may be empty"):
        made()(a_map(2, 0, 3, 6))
