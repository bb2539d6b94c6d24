"""Titans' memory as gate, as layer and as context: loops over their definitions, limits, what is refused."""

import pytest
import torch
import torch.nn.functional as F

from qna._core.errors import InvalidInput
from qna.mixers import MemoryAsContext1d, MemoryAsGate1d, MemoryAsLayer1d
from tests.mixers.contract import randomise

N = 13
MEMORY = {"chunk": 4, "step": 0.02}


def drawn(mixer, **arguments):
    made = mixer(8, num_heads=2, memory=MEMORY, **arguments)
    randomise(made, 0)
    return made.double().eval()


def x(n=N):
    return torch.randn(2, n, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def normed(norm, t):
    return F.rms_norm(t, (8,), norm.weight, 1e-6)


@pytest.mark.parametrize("persistent", [0, 3])
def test_as_a_gate_and_as_a_layer_by_their_parts(persistent):
    gate = drawn(MemoryAsGate1d, window=4, persistent=persistent)
    every = torch.cat([gate.persistent.expand(2, -1, -1), x()], 1)
    y, z = gate.attention(every), gate.memory(every)
    expected = normed(gate.attention_norm, y) * normed(gate.memory_norm, z).sigmoid()
    torch.testing.assert_close(gate(x()), expected[:, persistent:], rtol=1e-9, atol=1e-9)
    layer = drawn(MemoryAsLayer1d, window=4, persistent=persistent)
    every = torch.cat([layer.persistent.expand(2, -1, -1), x()], 1)
    expected = layer.attention(layer.memory(every))[:, persistent:]
    torch.testing.assert_close(layer(x()), expected, rtol=1e-9, atol=1e-9)


def test_as_context_token_by_token():
    """Each token attends persistent tokens, what was recalled up to it, and its segment up to it."""
    mixer = drawn(MemoryAsContext1d, segment=8, persistent=3)
    state, outputs = mixer.memory.init_state(2, dtype=torch.float64), []
    for begin in range(0, N, 8):
        segment = x()[:, begin : begin + 8]
        weights = tuple(state[f"weights{layer}"] for layer in range(2))
        recalled = mixer.memory.recall(segment, weights)
        places = {"persistent": 0, "recalled": 3, "segment": 11}
        tokens = {"persistent": mixer.persistent.expand(2, -1, -1), "recalled": recalled, "segment": segment}
        turned = {}
        for name, t in tokens.items():
            q, k, v = mixer.heads(t)
            turns = mixer.rotary.turns_from(places[name], t.shape[1], q)
            turned[name] = mixer.rotary.rotate(q, turns), mixer.rotary.rotate(k, turns), v
        for t in range(segment.shape[1]):
            seen = {"persistent": 3, "recalled": t + 1, "segment": t + 1}
            k, v = (torch.cat([turned[n][i][:, :, :m] for n, m in seen.items()], 2) for i in (1, 2))
            q = turned["segment"][0][:, :, t : t + 1]
            attended = (q @ k.mT / 2).softmax(-1) @ v
            y = mixer.out(attended.transpose(1, 2).flatten(2))
            z, state = mixer.memory.step(y, state)
            outputs.append(normed(mixer.attention_norm, y) * normed(mixer.memory_norm, z).sigmoid())
    torch.testing.assert_close(mixer(x()), torch.cat(outputs, 1), rtol=1e-9, atol=1e-9)


def test_what_lies_before_a_segment_comes_back_through_the_memory_alone():
    mixer = drawn(MemoryAsContext1d, segment=4)
    other = x().clone()
    other[:, :4] += 1
    assert (mixer(x())[:, 4:] - mixer(other)[:, 4:]).abs().max() > 1e-6
    # a memory that keeps nothing and never moves hides it
    still = drawn(MemoryAsContext1d, segment=4)
    still.memory.step_size = 0.0
    with torch.no_grad():
        still.memory.rates.weight[-2:] = 0.0
        still.memory.rates.bias[-2:] = -800.0
        still.memory.convs[..., :-1] = 0.0
    torch.testing.assert_close(still(x())[:, 4:], still(other)[:, 4:], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("mixer", [MemoryAsContext1d, MemoryAsGate1d, MemoryAsLayer1d])
def test_the_state_does_not_grow(mixer):
    made = drawn(mixer, **({"segment": 8} if mixer is MemoryAsContext1d else {"window": 4}))
    _, state = made.step(x(16), made.init_state(2))
    _, later = made.step(x(800), state)
    assert later.nbytes == state.nbytes == made.state_bytes((2, 816, 8), torch.float64)


def test_what_is_refused():
    with pytest.raises(InvalidInput, match="multiple of the memory's chunk, got segment=6 and chunk=4"):
        MemoryAsContext1d(8, num_heads=2, segment=6, memory={"chunk": 4})
    with pytest.raises(InvalidInput, match="persistent"):
        MemoryAsGate1d(8, num_heads=2, window=4, persistent=-1)
