"""CCA-Attention: a loop over its definition, limits, coverage, the authors' outputs, cost and refusals."""

import math

import pytest
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.mixers import CausalAttention1d, CoreContextAttention1d
from qna.mixers.causal.core_context import KeepCores
from tests.mixers.contract import randomise


def drawn(seed=0, mixer=CoreContextAttention1d, **arguments):
    made = mixer(12, **{"num_heads": 4, "kv_heads": 2, "head_dim": 6, **arguments})
    randomise(made, seed)
    return made.double().eval()


def x(n=23, seed=1, batch=2):
    return torch.randn(batch, n, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loop(mixer, x):
    """Query by query, head by head, with positions counted from 1 as in the paper."""
    query, key, value = mixer.project(x, 0)
    policy, shared = mixer.policy, query.shape[1] // key.shape[1]
    out = torch.zeros_like(query)
    for b in range(len(x)):
        for h in range(query.shape[1]):
            q, k, v = query[b, h], key[b, h // shared], value[b, h // shared]
            for i in range(1, len(q) + 1):
                m = max(0, math.floor((i - policy.window) / policy.group))
                keys, values = [], []
                for j in range(m):
                    group = slice(j * policy.group, (j + 1) * policy.group)
                    if policy.pool == "attention":
                        last = q[(j + 1) * policy.group - 1]
                        w = (k[group] @ last / math.sqrt(len(last))).softmax(0)
                        keys.append(w @ k[group])
                        values.append(w @ v[group])
                    else:
                        take = torch.mean if policy.pool == "mean" else torch.amax
                        keys.append(take(k[group], 0))
                        values.append(take(v[group], 0))
                keys += list(k[m * policy.group : i])
                values += list(v[m * policy.group : i])
                shares = (torch.stack(keys) @ q[i - 1] / math.sqrt(q.shape[1])).softmax(0)
                out[b, h, i - 1] = shares @ torch.stack(values)
    return mixer.joined(out, x)


@pytest.mark.parametrize("pool", ["attention", "mean", "max"])
@pytest.mark.parametrize(("window", "group"), [(4, 3), (1, 4), (6, 2), (5, 1)])
def test_it_is_its_definition(pool, window, group):
    mixer = drawn(window=window, group=group, pool=pool)
    with torch.no_grad():
        torch.testing.assert_close(mixer(x()), by_loop(mixer, x()), rtol=1e-11, atol=1e-11)


def test_blocks_of_queries_change_nothing(monkeypatch):
    mixer = drawn(window=4, group=3)
    whole = mixer(x())
    monkeypatch.setattr("qna.mixers.causal.core_context._BLOCK", 5)
    torch.testing.assert_close(mixer(x()), whole, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("arguments", [{"window": 23, "group": 4}, {"window": 40}, {"window": 3, "group": 1}])
def test_wide_windows_and_groups_of_one_are_full_attention(arguments):
    mixer = drawn(**arguments)
    full = drawn(mixer=CausalAttention1d)
    full.load_state_dict(mixer.state_dict())
    torch.testing.assert_close(mixer(x()), full(x()), rtol=1e-11, atol=1e-11)


def test_a_group_of_equal_tokens_counts_once():
    """It is not full attention: no logarithm of the group's size is added."""
    same = x(1).expand(2, 24, 12).clone()
    same[:, 12:] = x(12, seed=5)
    mixer, full = drawn(window=12, group=12, rope_base=None), drawn(mixer=CausalAttention1d, rope_base=None)
    full.load_state_dict(mixer.state_dict())
    assert (mixer(same)[:, -1] - full(same)[:, -1]).abs().max() > 1e-3
    once = torch.cat([same[:, :1], same[:, 12:]], 1)
    torch.testing.assert_close(mixer(same)[:, -1], full(once)[:, -1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("window", "group"), [(4, 3), (6, 4), (8, 3), (1, 5)])
def test_every_earlier_position_is_covered_once(window, group):
    """The mean over groups of values that are one-hot in the position tells who is in whose softmax."""
    n = 19
    mixer = CoreContextAttention1d(4, num_heads=1, window=window, group=group, pool="mean", rope_base=None)
    zero = torch.zeros(1, 1, n, n, dtype=torch.float64)
    seen = mixer.attend(zero, zero, torch.eye(n, dtype=torch.float64).expand(1, 1, n, n))[0, 0] > 0
    assert torch.equal(seen, torch.ones(n, n).tril().bool())
    # shares are even over what is in the softmax: its size is the number of pairs
    shares = mixer.attend(zero, zero, torch.eye(n, dtype=torch.float64).expand(1, 1, n, n))[0, 0]
    sizes = [round(1 / float(shares[i, i])) for i in range(n)]
    assert sum(sizes) == mixer.pairs(n)


def test_pooled_input_is_pooled_keys_where_nothing_is_turned():
    """The paper weights the input; without turns and biases that is the same key."""
    mixer = drawn(window=2, group=4, rope_base=None, kv_heads=4)
    q, k, _ = mixer.project(x(8), 0)
    cache = mixer.step(x(8), mixer.init_state(2))[1]["cache"]
    w = (q[:, :, 3::4, None] @ k.unflatten(2, (2, 4)).transpose(-1, -2) / math.sqrt(6)).softmax(-1)
    pooled = w @ x(8).unflatten(1, (2, 4))[:, None]
    core_keys = pooled[:, :, :, 0] @ mixer.heads.key.weight.unflatten(0, (4, 6)).transpose(1, 2)
    torch.testing.assert_close(cache.core_keys.tensor, core_keys, rtol=1e-11, atol=1e-11)


def test_it_decodes_as_it_prefills_and_holds_no_more_than_it_says():
    mixer = drawn(window=5, group=3)
    state, out = mixer.init_state(2), []
    with torch.no_grad():
        for i in range(40):
            y, state = mixer.step(x(40)[:, i : i + 1], state)
            out.append(y)
            assert state.nbytes == mixer.state_bytes((2, i + 1, 12), torch.float64)
            assert len(state["cache"].keys) <= 5 + 3 - 1
        torch.testing.assert_close(torch.cat(out, 1), mixer(x(40)), rtol=1e-11, atol=1e-11)


def test_windows_and_groups_may_change_in_inference():
    mixer = drawn(window=5, group=3)
    other = CoreContextAttention1d(12, num_heads=4, kv_heads=2, head_dim=6, window=8, group=2).double()
    other.load_state_dict(mixer.state_dict())
    torch.testing.assert_close(other(x()), by_loop(other, x()), rtol=1e-11, atol=1e-11)


def test_as_a_policy_of_a_trained_decoder():
    full = drawn(mixer=CausalAttention1d)
    mixer = drawn(window=5, group=3)
    mixer.load_state_dict(full.state_dict())
    state = full.policy_state(2, KeepCores(5, 3, shared=2))
    with torch.no_grad():
        y, state = full.step(x()[:, :9], state)
        z, _ = full.step(x()[:, 9:], state)
        torch.testing.assert_close(torch.cat([y, z], 1), mixer(x()), rtol=1e-11, atol=1e-11)
    with pytest.raises(InvalidInput, match="shared=2"):
        full.step(x(), full.policy_state(2, KeepCores(5, 3)))


def filled(heads, number):
    values = torch.linspace(-1.5, 2, heads * 18, dtype=torch.float64) * (7 + number)
    return values.sin().reshape(1, heads, 9, 2)


def test_the_authors_outputs():
    """Of the last two positions, from their functions without a kernel: chenyaofo/CCA-Attention, 052cc8e."""
    mixer = CoreContextAttention1d(4, window=3, group=2, num_heads=2, kv_heads=1)
    found = mixer.attend(*(filled(heads, i) for i, heads in enumerate((2, 1, 1))))[0, :, -2:]
    expected = [
        [[-0.10288673027286592, 0.22430210742104573], [0.0703388739602276, -0.21987381646306645]],
        [[-0.09136132307831615, 0.2187739431508277], [0.06919285439311491, -0.22116963465111494]],
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def test_gradients():
    mixer = drawn(window=2, group=2)
    assert torch.autograd.gradcheck(mixer, x(7, batch=1).requires_grad_())


def test_multiply_adds_by_hand():
    mixer = CoreContextAttention1d(12, num_heads=4, kv_heads=2, head_dim=6, window=3, group=2)
    # positions 1 to 7 see 0 0 0 0 1 1 2 core tokens, and 1 2 3 4 3 4 3 single positions
    pairs = 2 + 1 + 1 + 20
    assert mixer.pairs(7) == pairs
    assert mixer.macs((1, 7, 12)) == 7 * 12 * 6 * (4 + 4 + 4) + 2 * 24 * pairs + 3 * 6 * 24


@pytest.mark.parametrize("arguments", [{"window": 0}, {"group": 0}, {"kv_heads": 3}])
def test_bad_arguments(arguments):
    with pytest.raises(InvalidInput):
        drawn(**arguments)


def test_an_unknown_pool_names_the_nearest():
    with pytest.raises(UnknownName, match="mean"):
        drawn(pool="meen")
