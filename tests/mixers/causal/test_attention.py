"""The controls: transformers' layers in fp64 with all weights drawn; loops over definitions; costs."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.third_party import import_vision
from qna.mixers import CausalAttention1d, CausalLinearAttention1d, SlidingAttention1d
from tests.mixers.contract import randomise


def drawn(mixer, seed=0):
    randomise(mixer, seed)
    return mixer.double().eval()


def x(n=11, dim=12, seed=1):
    return torch.randn(2, n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def their_attention(name, *, dim, heads, kv_heads, head_dim, cls=None, **more):
    # with it transformers can be imported beside any torchvision
    import_vision("torchvision", extra="models", purpose="transformers")
    transformers = pytest.importorskip("transformers", reason="qna[dense] brings it")
    module = getattr(transformers.models, name)
    cls = cls or name.capitalize()
    config = getattr(module, f"{cls}Config")(
        hidden_size=dim,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        # its eager softmax is in single precision
        attn_implementation="sdpa",
        **more,
    )
    modeling = __import__(f"transformers.models.{name}.modeling_{name}", fromlist=["x"])
    rotary = getattr(modeling, f"{cls}RotaryEmbedding")(config)
    return getattr(modeling, f"{cls}Attention")(config, 0).double().eval(), rotary


def load(theirs, ours):
    """Their weights, drawn at random, in ours."""
    randomise(theirs, 3)
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
    state = {
        f"heads.{o}.{k}": v for o, t in names.items() for k, v in getattr(theirs, t).state_dict().items()
    }
    ours.load_state_dict({**state, **{f"out.{k}": v for k, v in theirs.o_proj.state_dict().items()}})


def angles(rotary, n):
    """In double precision: theirs are rounded to single."""
    at = torch.arange(n)[:, None] * rotary.inv_freq.double()
    at = torch.cat([at, at], -1)[None]
    return at.cos(), at.sin()


@pytest.mark.parametrize(
    ("dim", "heads", "kv_heads", "head_dim", "n"), [(12, 3, 3, 4, 11), (24, 4, 2, 10, 17)]
)
def test_full_is_llamas(dim, heads, kv_heads, head_dim, n):
    theirs, rotary = their_attention(
        "llama", dim=dim, heads=heads, kv_heads=kv_heads, head_dim=head_dim, attention_bias=True
    )
    ours = CausalAttention1d(dim, num_heads=heads, kv_heads=kv_heads, head_dim=head_dim, bias=True).double()
    load(theirs, ours)
    rotary.inv_freq = 10_000.0 ** -(torch.arange(0, head_dim, 2).double() / head_dim)
    hidden = torch.full((n, n), -torch.inf, dtype=torch.float64).triu(1)[None, None]
    expected, _ = theirs(x(n, dim), angles(rotary, n), hidden)
    assert (ours(x(n, dim)) - expected).abs().max() < 1e-9 * expected.std()


@pytest.mark.parametrize(("dim", "heads", "kv_heads", "n", "window"), [(12, 3, 3, 11, 4), (24, 4, 2, 300, 7)])
def test_sliding_is_mistrals(dim, heads, kv_heads, n, window):
    theirs, rotary = their_attention(
        "mistral", dim=dim, heads=heads, kv_heads=kv_heads, head_dim=dim // heads, sliding_window=window
    )
    ours = SlidingAttention1d(dim, window=window, num_heads=heads, kv_heads=kv_heads).double()
    load(theirs, ours)
    rotary.inv_freq = 10_000.0 ** -(torch.arange(0, dim // heads, 2).double() / (dim // heads))
    from transformers.masking_utils import sliding_window_causal_mask_function

    sees = sliding_window_causal_mask_function(window)
    at = torch.arange(n)
    hidden = torch.where(sees(0, 0, at[:, None], at), 0.0, -torch.inf).double()[None, None]
    expected, _ = theirs(x(n, dim), angles(rotary, n), hidden)
    assert (ours(x(n, dim)) - expected).abs().max() < 1e-9 * expected.std()


def test_a_window_over_all_is_full():
    full = drawn(CausalAttention1d(12, num_heads=3))
    for window, sinks in ((11, 0), (40, 0), (1, 11), (5, 6)):
        narrow = SlidingAttention1d(12, window=window, sinks=sinks, num_heads=3).double()
        narrow.load_state_dict(full.state_dict())
        assert (narrow(x()) - full(x())).abs().max() < 1e-12
    narrow = SlidingAttention1d(12, window=10, num_heads=3).double()
    narrow.load_state_dict(full.state_dict())
    assert (narrow(x())[:, -1] - full(x())[:, -1]).abs().max() > 1e-6


def test_the_cache_of_a_window_does_not_grow():
    mixer = SlidingAttention1d(8, window=16, sinks=2, num_heads=2)
    with torch.inference_mode():
        state = mixer.init_state(1)
        for n in (1000, 1, 1, 500, 1):
            _, state = mixer.step(torch.randn(1, n, 8), state)
            storages = [state["cache"].keys.tensor, state["cache"].values.tensor]
            assert sum(t.untyped_storage().nbytes() for t in storages) <= 2 * 8 * 4 * 2 * (16 + 64)
    assert state.nbytes == mixer.state_bytes((1, 1503, 8)) == 2 * 8 * 4 * (15 + 2)


def test_without_rotary_positions_only_the_mask_knows_order():
    mixer = drawn(CausalAttention1d(12, num_heads=3, rope_base=None))
    order = torch.tensor([3, 1, 0, 2, *range(4, 11)])
    assert (mixer(x())[:, 4:] - mixer(x()[:, order])[:, 4:]).abs().max() < 1e-12
    turned = drawn(CausalAttention1d(12, num_heads=3))
    assert (turned(x())[:, 4:] - turned(x()[:, order])[:, 4:]).abs().max() > 1e-3


def test_linear_is_its_recurrence():
    mixer = drawn(CausalLinearAttention1d(12, num_heads=3, chunk=4, bias=True))
    query, key, value = mixer.heads(x())
    query, key = (torch.nn.functional.elu(t) + 1 for t in (query, key))
    sums, keys, made = 0.0, 0.0, []
    for i in range(11):
        sums = sums + key[:, :, i, :, None] * value[:, :, i, None, :]
        keys = keys + key[:, :, i]
        top = (query[:, :, i, None, :] @ sums).squeeze(2)
        made.append(top / (query[:, :, i] * keys).sum(-1, keepdim=True))
    expected = mixer.out(torch.stack(made, 2).transpose(1, 2).flatten(2))
    assert (mixer(x()) - expected).abs().max() < 1e-12 * expected.abs().max()
    with torch.no_grad():
        _, state = mixer.step(x(), mixer.init_state(2))
    assert (state["sums"] - sums).abs().max() < 1e-12
    assert (state["keys"] - keys).abs().max() < 1e-12


def test_linear_has_gradients_where_chunks_are_filled_up():
    mixer = drawn(CausalLinearAttention1d(4, num_heads=2, chunk=4))
    assert torch.autograd.gradcheck(mixer, x(6, 4).requires_grad_())


@pytest.mark.parametrize("chunk", [1, 3, 11, 64])
def test_chunks_change_rounding_alone(chunk):
    mixer, plain = (drawn(CausalLinearAttention1d(12, num_heads=3, chunk=c)) for c in (chunk, 4))
    assert (mixer(x()) - plain(x())).abs().max() < 1e-12


def test_pairs_are_counted():
    for n in (1, 3, 4, 9, 20):
        assert CausalAttention1d(8, num_heads=2).pairs(n) == sum(i + 1 for i in range(n))
        for window, sinks in ((1, 0), (3, 0), (3, 2), (5, 9)):
            seen = sum(j > i - window or j < sinks for i in range(n) for j in range(i + 1))
            mixer = SlidingAttention1d(8, window=window, sinks=sinks, num_heads=2)
            assert mixer.pairs(n) == seen
    mixer = CausalAttention1d(8, num_heads=4, kv_heads=2, head_dim=6)
    # three maps in, one out; scores and values of 15 pairs
    assert mixer.macs((2, 5, 8)) == 2 * (5 * 8 * (24 + 12 + 12) + 5 * 24 * 8 + 2 * 15 * 24)


def test_what_is_refused():
    with pytest.raises(InvalidInput, match="kv_heads must divide num_heads, got kv_heads=3 and num_heads=4"):
        CausalAttention1d(8, num_heads=4, kv_heads=3)
    with pytest.raises(InvalidInput, match="want an even number, got 3"):
        CausalAttention1d(8, num_heads=2, head_dim=3)
    with pytest.raises(InvalidInput, match="window must be an integer of at least 1, got 0"):
        SlidingAttention1d(8, window=0, num_heads=2)
    with pytest.raises(InvalidInput, match="chunk must be an integer of at least 1, got 0"):
        CausalLinearAttention1d(8, num_heads=2, chunk=0)
