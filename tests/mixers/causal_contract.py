"""Clauses of the contract of mixers for those that are causal; imported to be among the others."""

from copy import deepcopy

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.parts.kv_cache import KeepAll, KeepWindow
from qna.parts.protocols import GoesOn, KeepsByPolicy
from qna.parts.sequence_state import SequenceState
from tests.mixers import contract
from tests.mixers.contract import build


def clause(applies=lambda row: True):
    return contract.clause(lambda row: row.traits.causal and applies(row))


# longer than any window or chunk of an example, and ends inside one
LENGTH = 29
SPLITS = ((29,), (1,) * 29, (28, 1), (1, 28), (5, 11, 1, 1, 9, 2), (16, 13))


def sequences(row, batch=2, length=LENGTH, seed=1, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, row.example.dim, generator=g, dtype=torch.float64).to(dtype)


def double(row, seed=0):
    return build(row, seed).double()


def run(mixer, x, split, state=None):
    """Outputs of the parts of a sequence, one behind the other, and the last state."""
    state = mixer.init_state(len(x)) if state is None else state
    parts = []
    for part in x.split(split, 1):
        y, state = mixer.step(part, state)
        parts.append(y)
    return torch.cat(parts, 1), state


def tensors(state):
    """All tensors of a state, however deep."""
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, SequenceState):
        return [t for value in state.held.values() for t in tensors(value)]
    if isinstance(state, dict):
        return [t for value in state.values() for t in tensors(value)]
    if hasattr(state, "tensor"):
        return [state.tensor]
    inside = getattr(state, "__dict__", {}).values()
    return [t for value in inside for t in tensors(value)]


@clause()
def goes_on(row):
    mixer = build(row)
    assert isinstance(mixer, GoesOn)
    state = mixer.init_state(2)
    assert isinstance(state, SequenceState)
    assert (state.batch, state.length) == (2, 0)
    assert mixer.out_dim == mixer.dim


@clause()
def any_split_is_the_whole(row):
    mixer, x = double(row), sequences(row)
    with torch.no_grad():
        whole = mixer(x)
    for split in SPLITS:
        with torch.no_grad():
            y, state = run(mixer, x, split)
        assert state.length == LENGTH
        # sums of some tens of terms, in another order
        torch.testing.assert_close(y, whole, rtol=0, atol=1e-11 * float(whole.abs().max()), msg=str(split))


@clause()
def any_split_has_the_gradients_of_the_whole(row):
    mixer, x = double(row), sequences(row, length=13)
    x.requires_grad_()
    leaves = [x, *mixer.parameters()]
    weights = sequences(row, length=13, seed=2)
    expected = torch.autograd.grad((mixer(x) * weights).sum(), leaves)
    y, _ = run(mixer, x, (1, 7, 5))
    found = torch.autograd.grad((y * weights).sum(), leaves)
    for e, f in zip(expected, found, strict=True):
        torch.testing.assert_close(f, e, rtol=0, atol=1e-10 * float(e.abs().max()))


@clause()
def nothing_depends_on_what_comes_later(row):
    """By perturbation, and by gradient; of the whole, and of a step."""
    mixer, x = double(row), sequences(row)
    for place in (1, 8, LENGTH - 1):
        other = x.clone()
        other[:, place:] = sequences(row, seed=7)[:, place:]
        with torch.no_grad():
            one, two = mixer(x), mixer(other)
            assert torch.equal(one[:, :place], two[:, :place]), place
            assert (one[:, place] - two[:, place]).abs().max() > 1e-6
            (one, _), (two, _) = run(mixer, x, (5, LENGTH - 5)), run(mixer, other, (5, LENGTH - 5))
            assert torch.equal(one[:, :place], two[:, :place]), place
    x.requires_grad_()
    (grad,) = torch.autograd.grad(mixer(x)[:, 8].sum(), x)
    assert not grad[:, 9:].any()
    assert grad[:, 8].any()


@clause()
def a_sequence_does_not_depend_on_its_batch(row):
    mixer, x = double(row), sequences(row, batch=3)
    with torch.no_grad():
        y, _ = run(mixer, x, (11, 1, 17))
        for i in range(3):
            alone, _ = run(mixer, x[i : i + 1], (11, 1, 17))
            torch.testing.assert_close(y[i : i + 1], alone, rtol=0, atol=1e-12)


@clause()
def sequences_are_selected(row):
    """Beams: some go on twice, some not at all."""
    mixer, x = double(row), sequences(row, batch=3)
    rows = torch.tensor([2, 0, 2, 2])
    with torch.no_grad():
        _, state = run(mixer, x[:, :17], (16, 1))
        chosen = state.select(rows)
        assert chosen.batch == 4
        assert chosen.length == 17
        y, _ = run(mixer, x[rows, 17:], (1, 4, 7), chosen)
        torch.testing.assert_close(y, mixer(x)[rows, 17:], rtol=0, atol=1e-11)
    for wrong in (torch.tensor([3]), torch.tensor([-1]), torch.tensor([[0]]), torch.tensor([0.0])):
        with pytest.raises(InvalidInput, match="rows must be"):
            state.select(wrong)


@clause()
def states_are_values(row):
    """Nobody's later steps change a state: it is the same tensors with the same values, and goes on alike."""
    mixer, x = double(row), sequences(row)
    for context in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with context():
            _, state = run(mixer, x[:, :9], (8, 1))
            before = [t.clone() for t in tensors(state)]
            first, later = run(mixer, x[:, 9:], (1, 1, 18), state)
            # another way on from the same state, with other inputs
            run(mixer, sequences(row, seed=9)[:, 9:], (1, 1, 18), state)
            assert all(map(torch.equal, before, tensors(state)))
            again, _ = run(mixer, x[:, 9:], (1, 1, 18), state)
            assert torch.equal(first, again)
            if context is not torch.enable_grad:
                (one, _), (two, _) = (mixer.step(x[:, :3], s) for s in (later, deepcopy(later)))
                assert torch.equal(one, two)
    held = {id(t) for t in [*mixer.parameters(), *mixer.buffers()]}
    run(mixer, x, (3, 26))
    assert {id(t) for t in [*mixer.parameters(), *mixer.buffers()]} == held


@clause()
def states_are_told_apart(row):
    mixer, x = build(row), sequences(row, dtype=torch.float32)
    _, state = mixer.step(x, mixer.init_state(2))
    with pytest.raises(InvalidInput, match=r"this state is of 2 sequences, got 1; state\.select"):
        mixer.step(x[:1], state)
    wider = row.create(2 * row.example.dim, **row.example.arguments)
    with pytest.raises(InvalidInput, match=r"was made by .* and cannot be gone on with by"):
        wider.step(torch.randn(2, 3, 2 * row.example.dim), state)
    strange = SequenceState("Another(8)", 2, 3, state.held)
    with pytest.raises(InvalidInput, match=r"was made by Another\(8\) and cannot"):
        mixer.step(x, strange)
    with pytest.raises(InvalidInput, match="batch must be an integer of at least 0, got -1"):
        mixer.init_state(-1)
    with pytest.raises(InvalidInput, match="input must be"):
        mixer.step(x[..., :3], state)


@clause()
def bytes_are_told(row):
    """By formula, what the state's tensors have; at lengths in and behind every window and chunk."""
    for dtype in (torch.float32, torch.bfloat16):
        mixer = build(row).to(dtype)
        for lengths in ((1,), (2, 1), (7, 6, 1), (29, 31)):
            x = sequences(row, batch=3, length=sum(lengths), dtype=dtype)
            with torch.no_grad():
                _, state = run(mixer, x, lengths)
            every = tensors(state)
            assert state.nbytes == sum(t.numel() * t.element_size() for t in every) > 0
            assert state.nbytes == mixer.state_bytes(x.shape, dtype), lengths
            assert all(len(t) == 3 for t in every)


@clause()
def on_no_device(row):
    with torch.device("meta"):
        mixer = row.create(row.example.dim, **row.example.arguments)
        y, state = run(mixer, torch.empty(2, LENGTH, row.example.dim), (20, 1, 8))
    assert y.shape == (2, LENGTH, row.example.dim)
    assert {t.device.type for t in tensors(state)} == {"meta"}


@contract.clause(lambda row: row.traits.causal, costly=True)
def steps_compile_without_graph_breaks(row):
    mixer, x = build(row), sequences(row, dtype=torch.float32)
    torch._dynamo.reset()
    step = torch.compile(mixer.step, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        state, parts = mixer.init_state(2), []
        for part in x.split((20, 1, 1, 1, 6), 1):
            y, state = step(part, state)
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, 1), mixer(x), rtol=1e-4, atol=1e-5)


@clause()
def half_precision_and_autocast(row):
    mixer, x = build(row), sequences(row, dtype=torch.float32)
    with torch.no_grad():
        expected = mixer(x)
    scale = float(expected.abs().max())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = run(mixer, x, (9, 1, 19))
        # against the whole, which rounds alike: some roundings of 8 bits
        torch.testing.assert_close(y.float(), mixer(x).float(), rtol=0, atol=2**-8 * 4 * scale)
    low, half = deepcopy(mixer).bfloat16(), x.bfloat16()
    with torch.no_grad():
        y, _ = run(low, half, (9, 1, 19))
        assert y.dtype == torch.bfloat16
        # at most twice what the whole has in this dtype
        whole = (low(half).float() - expected).abs().max()
        assert (y.float() - expected).abs().max() <= 2 * whole
        # a narrower cache beside wider weights
        y, _ = run(mixer, x, (9, 1, 19), mixer.init_state(2, dtype=torch.bfloat16))
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, expected, rtol=0, atol=2**-8 * 4 * scale)


@clause()
def an_empty_batch_goes_on(row):
    mixer, x = build(row), sequences(row, dtype=torch.float32)
    y, state = run(mixer, x[:0], (5, 1, 23))
    assert y.shape == (0, LENGTH, row.example.dim)
    assert state.nbytes == 0


@clause(lambda row: hasattr(row.build, "policy_state"))
def caches_follow_policies(row):
    mixer, x = double(row), sequences(row)
    assert isinstance(mixer, KeepsByPolicy)
    with torch.no_grad():
        y, _ = run(mixer, x, (9, 1, 19), mixer.policy_state(2, KeepAll()))
        torch.testing.assert_close(y, mixer(x), rtol=0, atol=1e-11 * float(y.abs().max()))
        policy = KeepWindow(4, sinks=1)
        whole, state = run(mixer, x, (29,), mixer.policy_state(2, policy))
        assert not torch.allclose(whole, y, atol=1e-3)
        for split in SPLITS:
            other, state = run(mixer, x, split, mixer.policy_state(2, policy))
            torch.testing.assert_close(other, whole, rtol=0, atol=1e-11 * float(whole.abs().max()))
        assert {t.shape[2] for t in tensors(state)} == {1, 3}
