"""H2O's cache: a loop over its definition, its limits, bytes, and a decoder that keeps by it."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.mixers import CausalAttention1d
from qna.parts.heavy_hitters import KeepHeavy
from qna.parts.kv_cache import CacheShape, KeepAll, KeepWindow

SHAPE = CacheShape(2, 2, 6, 6, torch.device("cpu"), torch.float64)


def drawn(n, seed):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(2, h, n, 6, generator=g, dtype=torch.float64) for h in (4, 2, 2)]


def run(policy, parts):
    cache, outputs = policy.empty(SHAPE), []
    for part in parts:
        y, cache = cache.attend(*part)
        outputs.append(y)
    return torch.cat(outputs, 2), cache


PARTS = [drawn(n, seed) for seed, n in enumerate((9, *[1] * 12))]


def by_masks(heavy, recent, parts):
    """One head at a time over all keys: who is dropped is masked for good, and its sum with it."""
    queries, keys, values = (torch.cat(t, 2) for t in zip(*parts, strict=True))
    n = queries.shape[2]
    out, left = torch.zeros(2, 4, n, 6, dtype=torch.float64), {}
    for b in range(2):
        for kv in range(2):
            alive, received, begin = [], {}, 0
            for part in parts:
                stop = begin + part[0].shape[2]
                alive += range(begin, stop)
                received |= dict.fromkeys(range(begin, stop), 0.0)
                for i in range(begin, stop):
                    seen = [j for j in alive if j <= i]
                    for head in (2 * kv, 2 * kv + 1):
                        shares = (keys[b, kv, seen] @ queries[b, head, i] / 6**0.5).softmax(0)
                        out[b, head, i] = shares @ values[b, kv, seen]
                        for j, share in zip(seen, shares.tolist(), strict=True):
                            received[j] += share
                begin = stop
                if len(alive) > heavy + recent:
                    last = alive[len(alive) - recent :]
                    older = sorted(alive[: len(alive) - recent], key=lambda j: -received[j])[:heavy]
                    alive = sorted(older) + last
            left[b, kv] = alive
    return out, left


@pytest.mark.parametrize(("heavy", "recent"), [(3, 2), (0, 4), (4, 0), (1, 1)])
def test_it_is_its_definition(heavy, recent):
    y, cache = run(KeepHeavy(heavy, recent), PARTS)
    expected, left = by_masks(heavy, recent, PARTS)
    torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)
    assert all(cache.positions[at].tolist() == alive for at, alive in left.items())
    assert cache.keys.shape[2] == heavy + recent


def test_heads_and_sequences_keep_what_is_theirs():
    _, cache = run(KeepHeavy(3, 2), PARTS)
    assert len({tuple(p) for p in cache.positions.flatten(0, 1).tolist()}) > 1


def test_a_budget_for_all_is_the_full_cache():
    y, _ = run(KeepHeavy(15, 6), PARTS)
    expected, _ = run(KeepAll(), PARTS)
    torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)


def test_recent_positions_alone_are_a_sliding_window():
    single = [drawn(1, seed) for seed in range(20)]
    y, _ = run(KeepHeavy(0, 4), single)
    expected, _ = run(KeepWindow(5), single)
    torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)


def test_bytes_do_not_grow():
    policy = KeepHeavy(3, 2)
    _, cache = run(policy, PARTS)
    assert cache.nbytes == policy.state_bytes(SHAPE, 21) == 2 * 2 * 5 * (12 * 8 + 8 + 8)
    assert policy.kept(3) == 3


def test_a_mixer_goes_on_by_it():
    mixer = CausalAttention1d(12, num_heads=4, kv_heads=2, head_dim=4).double()
    x = torch.randn(2, 17, 12, dtype=torch.float64)
    with torch.no_grad():
        y, state = mixer.step(x[:, :9], mixer.policy_state(2, KeepHeavy(4, 4)))
        torch.testing.assert_close(y, mixer(x[:, :9]), rtol=1e-11, atol=1e-11)
        for i in range(9, 17):
            y, state = mixer.step(x[:, i : i + 1], state)
        assert state["cache"].keys.shape[2] == 8
        assert (y[:, 0] - mixer(x)[:, -1]).abs().max() > 1e-6


@pytest.mark.parametrize("arguments", [(-1, 2), (2, -1), (0, 0)])
def test_what_is_refused(arguments):
    with pytest.raises(InvalidInput):
        KeepHeavy(*arguments)
