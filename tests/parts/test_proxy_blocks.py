"""ProxyAttn's choice of blocks: loops over the equations, identities, what it may not depend on, refusals."""

import math
from dataclasses import replace

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.ops.block_sparse.reference import pairs_seen
from qna.parts import proxy_blocks
from qna.parts.block_choice import attend_chosen
from qna.parts.causal_attend import attend_before
from qna.parts.proxy_blocks import ProxyBlocks, block_masses, kept_share


def drawn(heads=4, kv_heads=2, length=70, *, dim=8, seed=0, spread=3.0):
    g = torch.Generator().manual_seed(seed)
    make = lambda h: torch.randn(2, h, length, dim, generator=g, dtype=torch.float64)  # noqa: E731
    # queries that ask for something: attention is far from even
    return spread * make(heads), make(kv_heads), make(kv_heads)


def share(q, k, i, seen):
    """Softmax of query i over the keys that are listed."""
    return torch.stack([q[i] @ k[j] / math.sqrt(q.shape[-1]) for j in seen]).softmax(0)


def scores_by_loop(query, key, selector):
    """A of one sequence: proxies, every `stride`-th position, softmax, the largest of each pair of blocks."""
    heads, length, stride, block = query.shape[0], query.shape[1], selector.stride, selector.block
    rows, groups = math.ceil(length / block), selector.proxies
    shared = heads // key.shape[0]
    made = torch.zeros(groups, rows, rows, dtype=query.dtype)
    for g in range(groups):
        members = range(g * heads // groups, (g + 1) * heads // groups)
        q = sum(query[h] for h in members) / len(members)
        k = sum(key[h // shared] for h in members) / len(members)
        for i in range(0, length, stride):
            seen = list(range(0, i + 1, stride))
            for j, p in zip(seen, share(q, k, i, seen), strict=True):
                at = g, i // block, j // block
                made[at] = max(made[at], p)
    return made


def budgets_by_loop(query, key, selector):
    """b of one sequence."""
    heads, length, block = query.shape[0], query.shape[1], selector.block
    shared, made = heads // key.shape[0], []
    for h in range(heads):
        mass = torch.zeros(math.ceil(length / block), dtype=query.dtype)
        last = range(length - min(block, length), length)
        for i in last:
            for j, p in enumerate(share(query[h], key[h // shared], i, range(i + 1))):
                mass[j // block] += p / len(last)
        total, count = 0.0, 0
        for m in sorted(mass.tolist(), reverse=True):
            if total >= selector.gamma:
                break
            total, count = total + m, count + 1
        made.append(count)
    return made


def kept_by_loop(query, key, selector):
    scores, budgets = scores_by_loop(query, key, selector), budgets_by_loop(query, key, selector)
    heads, rows = len(budgets), scores.shape[-1]
    kept = torch.zeros(heads, rows, rows, dtype=torch.bool)
    for h in range(heads):
        a = scores[h * selector.proxies // heads]
        for m in range(rows):
            count = max(budgets[h], math.ceil(selector.least / selector.block))
            always = [n for n in range(m + 1) if n < selector.sinks or n == m]
            best = sorted(range(m + 1), key=lambda n: -a[m, n])
            kept[h, m, always + best[:count]] = True
    return kept


SELECTOR = ProxyBlocks(block=8, stride=4, gamma=0.8, least=16)
SELECTORS = [
    SELECTOR,
    replace(SELECTOR, proxies=2, gamma=0.6),
    replace(SELECTOR, proxies=4, stride=1, sinks=0, least=0),
    replace(SELECTOR, block=6, stride=2, sinks=2, gamma=0.95),
    # two blocks and a position are three
    replace(SELECTOR, gamma=0.01, least=17),
]


@pytest.mark.parametrize("selector", SELECTORS, ids=str)
@pytest.mark.parametrize("length", [1, 7, 61, 64])
def test_equals_loops_over_the_equations(selector, length):
    query, key, _ = drawn(length=length)
    kept = selector.choose(query, key)
    for b in range(2):
        scores = selector.scores(query, key)[b]
        torch.testing.assert_close(scores, scores_by_loop(query[b], key[b], selector), rtol=0, atol=1e-12)
        assert selector.budgets(query, key)[b].tolist() == budgets_by_loop(query[b], key[b], selector)
        assert torch.equal(kept[b], kept_by_loop(query[b], key[b], selector))


def test_rows_at_a_time_change_nothing(monkeypatch):
    query, key, _ = drawn()
    whole = SELECTOR.scores(query, key)
    for count in (1, 40, 100):
        monkeypatch.setattr(proxy_blocks, "_AT_ONCE", count)
        torch.testing.assert_close(SELECTOR.scores(query, key), whole, rtol=0, atol=1e-13)


def test_scores_are_never_formed_for_all_pairs(monkeypatch):
    """The largest tensor that arises stays far below (N / stride)^2."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else (out,):
                if isinstance(t, torch.Tensor):
                    Largest.seen = max(Largest.seen, t.numel())
            return out

    monkeypatch.setattr(proxy_blocks, "_AT_ONCE", 2**14)
    query, key = torch.randn(1, 2, 8192, 4), torch.randn(1, 1, 8192, 4)
    with Largest():
        replace(SELECTOR, block=64).choose(query, key)
    # beside the rows of a chunk: the last block's queries over all keys
    assert Largest.seen <= max(2 * 2**16, 64 * 8192) < (8192 // 4) ** 2


@pytest.mark.parametrize("everything", [{"gamma": 1.0}, {"least": 10_000}])
def test_all_blocks_are_dense_attention(everything):
    query, key, value = drawn()
    selector = replace(SELECTOR, **everything)
    assert kept_share(selector.choose(query, key)) == 1
    out = attend_chosen(query, key, value, selector)
    torch.testing.assert_close(out, attend_before(query, key, value), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_blocks_of_one_with_a_proxy_for_each_head_are_the_largest_weights(kv_heads):
    query, key, value = drawn(kv_heads=kv_heads, length=40)
    selector = ProxyBlocks(block=1, stride=1, proxies=4, gamma=0.7, least=0, sinks=0)
    kept = selector.choose(query, key)
    exact = ((query / math.sqrt(8)) @ key.repeat_interleave(4 // kv_heads, 1).transpose(-1, -2)).double()
    exact = exact.masked_fill(torch.ones(40, 40).triu(1).bool(), -math.inf).softmax(-1)
    counts = selector.budgets(query, key)
    for b, h, i in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(40)).tolist():
        best = exact[b, h, i].topk(min(int(counts[b, h]), i + 1)).indices
        # and its own key, whatever its weight
        assert sorted({i, *best.tolist()}) == kept[b, h, i].nonzero()[:, 0].tolist()
    # and attention is that over these tokens
    out = attend_chosen(query, key, value, selector)
    shares = exact.masked_fill(~kept, 0.0)
    expected = shares / shares.sum(-1, keepdim=True) @ value.repeat_interleave(4 // kv_heads, 1)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)


def test_of_equal_heads_the_proxy_is_each_of_them():
    query, key, _ = drawn(heads=1, kv_heads=1)
    query, key = query.expand(-1, 4, -1, -1), key.expand(-1, 2, -1, -1)
    kept = SELECTOR.choose(query, key)
    own = replace(SELECTOR, proxies=4).choose(query, key)
    assert torch.equal(kept, own)
    assert all(torch.equal(kept[:, 0], kept[:, h]) for h in range(4))


def test_a_larger_gamma_never_keeps_fewer():
    query, key, _ = drawn(length=200)
    before = torch.zeros(1, dtype=torch.bool)
    shares = []
    for gamma in (0.05, 0.3, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0):
        kept = replace(SELECTOR, gamma=gamma, least=0).choose(query, key)
        assert (kept | ~before).all()
        before, _ = kept, shares.append(kept_share(kept))
    assert shares == sorted(shares)
    assert shares[0] < 0.5 < shares[-1]


def test_it_finds_more_attention_than_as_many_drawn_blocks():
    query, key, _ = drawn(heads=2, kv_heads=1, length=256)
    # heads that are alike but for noise, which is what the method assumes, and look for blocks
    topics = torch.randn(32, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    key = key * 0.3 + topics.repeat_interleave(8, 0)
    wanted = topics.roll(5, 0).repeat_interleave(8, 0)
    query = 4 * wanted + 0.1 * query
    selector = replace(SELECTOR, gamma=0.7, least=0)
    kept = selector.choose(query, key)
    assert kept_share(kept) < 0.5
    scores = query @ key.repeat_interleave(2, 1).transpose(-1, -2) / math.sqrt(8)
    exact = scores.masked_fill(torch.ones(256, 256).triu(1).bool(), -math.inf).softmax(-1)
    found = (exact * pairs_seen(kept, 256, 8)).sum(-1).mean()
    g = torch.Generator().manual_seed(1)
    for _ in range(5):
        likes = torch.rand(kept.shape, generator=g).masked_fill(torch.ones(32, 32).triu(1).bool(), -1)
        likes = likes.masked_fill(torch.eye(32).bool() | (torch.arange(32) == 0), 2)
        places = likes.argsort(-1, descending=True).argsort(-1)
        other = places < kept.sum(-1, keepdim=True)
        assert found > 0.1 + (exact * pairs_seen(other, 256, 8)).sum(-1).mean()


def test_which_blocks_do_not_depend_on_what_comes_later():
    """A budget looks at the last queries, so `least` holds it here; order and attention are causal."""
    query, key, value = drawn(length=64)
    other = [t.clone() for t in (query, key, value)]
    for t, fresh in zip(other, drawn(length=64, seed=9), strict=True):
        t[:, :, 40:] = fresh[:, :, 40:]
    selector = replace(SELECTOR, gamma=1e-6, least=24)
    kept, again = selector.choose(query, key), selector.choose(*other[:2])
    assert torch.equal(kept[:, :, :5], again[:, :, :5])
    assert not torch.equal(kept, again)
    outs = [attend_chosen(*maps, selector) for maps in ((query, key, value), other)]
    assert torch.equal(outs[0][:, :, :40], outs[1][:, :, :40])
    assert not kept.triu(1).any()


def test_always_kept_and_never_above_the_causal_count():
    query, key, _ = drawn(length=200)
    for selector in SELECTORS:
        kept = replace(selector, gamma=1e-6, least=0).choose(query, key)
        assert kept.diagonal(dim1=-2, dim2=-1).all()
        assert kept[..., : selector.sinks].tril().sum() == kept[..., : selector.sinks].sum()
        for sink in range(selector.sinks):
            assert kept[:, :, sink:, sink].all()
        # of a budget of one block there is that at most beside them
        rows = torch.arange(kept.shape[-1])
        assert (kept.sum(-1) <= (rows + 1).clamp(max=2 + selector.sinks)).all()


def test_block_masses_sum_to_one():
    query, key, _ = drawn()
    torch.testing.assert_close(block_masses(query, key, 8).sum(-1), torch.ones(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("name", ["key", "query"])
def test_a_nan_is_met_as_in_dense_attention(name):
    query, key, value = drawn(length=64)
    {"key": key, "query": query}[name][0, 0, 21] = math.nan
    out = attend_chosen(query, key, value, replace(SELECTOR, gamma=0.3, least=0))
    dense = attend_before(query, key, value)
    # of its own block a product with 0 decides
    places = [i for i in range(64) if not 16 <= i < 21]
    assert torch.equal(out.isnan()[:, :, places], dense.isnan()[:, :, places])
    assert out.isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_chooses_in_single(dtype):
    query, key, _ = (t.to(dtype) for t in drawn(length=100))
    kept = SELECTOR.choose(query, key)
    wide = SELECTOR.choose(query.float(), key.float())
    assert torch.equal(kept, wide)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"stride": 3}, "stride must divide block, got stride=3 and block=8"),
        ({"gamma": 0.0}, "gamma must be above 0 and at most 1, got 0.0"),
        ({"gamma": math.nan}, "gamma must be above 0 and at most 1, got nan"),
        ({"gamma": True}, "gamma must be"),
        ({"block": 0}, "block must be an integer of at least 1, got 0"),
        ({"least": -1}, "least must be an integer of at least 0, got -1"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong, told):
    with pytest.raises(InvalidInput, match=told):
        replace(SELECTOR, **wrong)


def test_groups_follow_shared_keys():
    fits = {(28, 4): [1, 2, 4, 28], (12, 4): [1, 2, 4, 12], (6, 3): [1, 3, 6], (5, 1): [1, 5]}
    for (heads, kv_heads), groups in fits.items():
        for count in range(1, heads + 1):
            selector = replace(SELECTOR, proxies=count)
            if count in groups:
                selector.check_heads(heads, kv_heads)
                assert selector.choose(torch.randn(1, heads, 9, 4), torch.randn(1, kv_heads, 9, 4)).any()
            else:
                with pytest.raises(InvalidInput, match=f"take one of {', '.join(map(str, groups))}"):
                    selector.check_heads(heads, kv_heads)
    with pytest.raises(InvalidInput, match="must agree in batch and positions"):
        SELECTOR.choose(torch.randn(1, 2, 9, 4), torch.randn(1, 2, 8, 4))
