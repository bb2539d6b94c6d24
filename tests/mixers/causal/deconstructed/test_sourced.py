"""Queries and keys of another sequence: maps that never change, and the limits in which all is standard."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.mixers import CausalAttention1d, FixedTextQueryKey1d, RandomQueryKey1d, StaticQueryKey1d
from qna.parts.drawn_at import normal_at
from qna.parts.kv_cache import KeepWindow
from qna.parts.protocols import FixesMap, KeepsByPolicy, TakesQkSource
from qna.parts.qk_source import FixedNoise, FixedText, OwnEmbeddings, counted_words
from tests.mixers.causal.deconstructed.drawn import close, made, x

FIXED = [RandomQueryKey1d, FixedTextQueryKey1d]
ALL = [*FIXED, StaticQueryKey1d]


def standard(mixer):
    found = made(CausalAttention1d)
    state = mixer.state_dict()
    found.load_state_dict(state)
    return found


@pytest.mark.parametrize("mixer", ALL)
def test_they_have_the_parameters_of_standard_attention_and_are_it_on_their_own_input(mixer):
    mixer = made(mixer)
    plain = standard(mixer)
    # a batch of one may be its own source
    for i in range(2):
        one = x()[i : i + 1]
        close(mixer(one, one), plain(one))
    if isinstance(mixer, StaticQueryKey1d):
        close(mixer(x()), plain(x()))
        close(mixer(x(), x()), plain(x()))


@pytest.mark.parametrize("mixer", ALL)
def test_queries_and_keys_are_of_the_source_and_values_of_the_input(mixer):
    mixer = made(mixer)
    source = x(seed=5, batch=1)
    query, key = (
        t.repeat_interleave(4 // c, 1)
        for t, c in zip(standard(mixer).project(source, 0)[:2], (4, 2), strict=True)
    )
    scores = query @ key.mT * 6**-0.5
    shares = scores.masked_fill(torch.ones(11, 11).triu(1).bool(), -torch.inf).softmax(-1)
    value = standard(mixer).project(x(), 0)[2].repeat_interleave(2, 1)
    expected = (shares @ value).transpose(1, 2).flatten(2) @ mixer.out.weight.mT
    close(mixer(x(), source), expected)
    close(mixer.attention_map(x(), source), shares)
    close(mixer.attention_rows(x()).dense(11), mixer.attention_map(x()).mean(1))


@pytest.mark.parametrize("mixer", FIXED)
def test_the_map_is_that_of_any_input_and_the_beginning_of_every_longer_one(mixer):
    sharp = {"std": 1.0} if mixer is RandomQueryKey1d else {}
    mixer = made(mixer, **sharp)
    shares = mixer.attention_map(x())
    assert shares.shape == (1, 4, 11, 11)
    assert torch.equal(shares, mixer.attention_map(3 * x(seed=9)))
    close(mixer.attention_map(x(40))[:, :, :11, :11], shares)
    # linear in what is read, then
    close(mixer(x() + 2 * x(seed=3)), mixer(x()) + 2 * mixer(x(seed=3)))
    # and other weights have another
    assert (made(type(mixer), seed=4, **sharp).attention_map(x()) - shares).abs().max() > 1e-2


@pytest.mark.parametrize("mixer", FIXED)
@pytest.mark.parametrize("parts", [(11,), (1,) * 11, (4, 1, 6)])
def test_a_map_that_is_fixed_changes_nothing_and_keeps_values_alone(mixer, parts):
    mixer = made(mixer)
    assert isinstance(mixer, FixesMap)
    whole, shares, before = mixer(x()), mixer.attention_map(x()), mixer.init_state(2)
    mixer.fix_map(16)
    assert mixer.qk_source is None
    close(mixer(x()), whole)
    close(mixer.attention_map(x()), shares)
    state, found = mixer.init_state(2), []
    for part in x().split(parts, 1):
        y, state = mixer.step(part, state)
        found.append(y)
    close(torch.cat(found, 1), whole)
    assert state.nbytes == mixer.state_bytes((2, 11, 24), torch.float64) == 2 * 11 * 2 * 6 * 8
    with pytest.raises(InvalidInput, match=r"was made by .* cannot be gone on with by .* map of 16"):
        mixer.step(x(), before)
    with pytest.raises(InvalidInput, match="its map is fixed for 16 positions, and the sequence has 17"):
        mixer(x(17))
    with pytest.raises(InvalidInput, match="its map is fixed for 16 positions, and the sequence has 18"):
        mixer.step(x(7), state)
    with pytest.raises(InvalidInput, match="its map is fixed and takes no qk_source"):
        mixer.step(x(1), state, x(1))
    # weights change in training, and the map with them
    mixer.train()
    assert mixer.qk_source is not None
    close(mixer(x(17))[:, :11], whole)


@pytest.mark.parametrize("mixer", FIXED)
def test_keys_are_kept_once(mixer):
    """Table 8: 2 (B + 1) L d bytes in half precision; and Table 6, with maps of one sequence for its own."""
    b, length, d, h = 3, 50, 48, 4
    mixer = mixer(d, num_heads=h)
    size = (b, length, d)
    assert mixer.state_bytes(size, torch.float16) == 2 * (b + 1) * length * d
    _, state = mixer.step(torch.randn(size), mixer.init_state(b))
    assert state.nbytes == mixer.state_bytes(size)
    assert state.select(torch.tensor([1])).nbytes == mixer.state_bytes((1, length, d))
    y, state = mixer.step(torch.randn(0, 4, d), mixer.init_state(0))
    assert y.shape == (0, 4, d)
    assert state.nbytes == mixer.state_bytes((0, 4, d))
    # values and scores of a position, without the output map; queries and keys once, where the table has
    # them for each sequence
    decode = 2 * (mixer.macs(size) - mixer.macs((b, length - 1, d))) - 2 * b * d * d
    assert decode == 2 * length * d + 2 * b * length * d + 6 * b * d * d - 4 * (b - 1) * d * d
    mixer.eval().fix_map(length)
    decode = 2 * (mixer.macs(size) - mixer.macs((b, length - 1, d))) - 2 * b * d * d
    assert decode == 2 * b * length * d + 2 * b * d * d
    assert mixer.state_bytes(size, torch.float16) == 2 * b * length * d


@pytest.mark.parametrize("mixer", FIXED)
def test_blocks_of_queries_change_rounding_alone(mixer, monkeypatch):
    from qna.mixers.causal.deconstructed import fixed_maps

    mixer, sequence = made(mixer), x(30)
    whole = mixer(sequence)
    monkeypatch.setattr(fixed_maps, "_BLOCK", 7)
    close(mixer(sequence), whole)
    close(torch.cat([mixer(sequence[i : i + 1]) for i in range(2)]), whole)


@pytest.mark.parametrize("mixer", ALL)
def test_gradients(mixer):
    mixer = made(mixer, dim=8)
    source = x(5, 8, seed=4, batch=1).requires_grad_()
    assert torch.autograd.gradcheck(mixer, (x(5, 8).requires_grad_(), source))


def test_what_they_ask_for():
    told = {type(m).__name__: m.qk_source for m in map(made, ALL)}
    assert told == {
        "RandomQueryKey1d": FixedNoise(0.02, 0),
        "FixedTextQueryKey1d": FixedText(2048),
        "StaticQueryKey1d": OwnEmbeddings(),
    }
    assert all(isinstance(made(mixer), TakesQkSource) for mixer in ALL)
    assert not isinstance(made(CausalAttention1d), TakesQkSource)
    assert FixedNoise(0.02, 1) != FixedNoise(0.02, 0) != FixedNoise(0.03, 0)


def test_static_keys_follow_policies():
    mixer, source = made(StaticQueryKey1d), x(seed=5)
    assert isinstance(mixer, KeepsByPolicy)
    with torch.no_grad():
        whole, _ = mixer.step(x(), mixer.policy_state(2, KeepWindow(4)), source)
        parts, state = [], mixer.policy_state(2, KeepWindow(4))
        for part, of in zip(x().split((5, 1, 5), 1), source.split((5, 1, 5), 1), strict=True):
            y, state = mixer.step(part, state, of)
            parts.append(y)
    close(torch.cat(parts, 1), whole)
    assert (whole - mixer(x(), source)).abs().max() > 1e-3


def test_noise_is_of_its_place():
    like = torch.zeros(1, dtype=torch.float64)
    long = normal_at(torch.arange(3000), 40, 7, like)
    assert torch.equal(normal_at(torch.arange(17, 23), 40, 7, like), long[17:23])
    assert not torch.equal(normal_at(torch.arange(6), 40, 8, like), long[:6])
    # more than are drawn at once
    assert torch.equal(normal_at(torch.arange(7000), 40, 7, like)[:3000], long)
    # of 120,000 independent numbers: four standard errors of each
    assert abs(long.mean()) < 4 / 120_000**0.5
    assert abs(long.var() - 1) < 4 * (2 / 120_000) ** 0.5
    assert abs(long.pow(4).mean() - 3) < 4 * (96 / 120_000) ** 0.5
    assert (long.mT.corrcoef() - torch.eye(40)).abs().max() < 5 / 3000**0.5
    assert (long[:1000].corrcoef() - torch.eye(1000)).abs().max() < 6 / 40**0.5
    assert normal_at(torch.arange(3), 2, 7, like.half()).dtype == torch.float16
    mixer = made(RandomQueryKey1d, std=0.5, seed=3)
    noise = mixer.by_itself(x(3000), 0)
    assert abs(float(noise.std()) - 0.5) < 0.01
    assert torch.equal(mixer.by_itself(x(5), 20), noise[:, 20:25])


def test_a_text_that_needs_no_file():
    assert bytes(counted_words(25).tolist()) == b"one two three four five s"
    long = bytes(counted_words(60_000).tolist())
    assert long.startswith(bytes(counted_words(999).tolist()))
    for words in (
        b" nineteen twenty twenty-one ",
        b" one hundred one hundred one ",
        b" one thousand one thousand one ",
    ):
        assert words in long


def test_what_is_refused():
    mixer = made(FixedTextQueryKey1d, length=12)
    with pytest.raises(
        InvalidInput, match="fixed text of 12 tokens, and the sequence has 13; build the mixer"
    ):
        mixer(x(13))
    _, state = mixer.step(x(11), mixer.init_state(2))
    with pytest.raises(InvalidInput, match="fixed text of 12 tokens, and the sequence has 14"):
        mixer.step(x(3), state)
    with pytest.raises(InvalidInput, match="fixed text of 12 tokens, and the sequence has 13"):
        mixer.fix_map(13)
    for wrong in (x(10), x(11, dim=12), x(11, batch=3)):
        with pytest.raises(InvalidInput, match="queries and keys are of one sequence or of as many"):
            mixer(x(), wrong)
    with pytest.raises(InvalidInput, match="of one sequence for all, got 2"):
        mixer.step(x(1), state, x(1))
    with pytest.raises(InvalidInput, match="std must be above 0 and finite, got 0"):
        made(RandomQueryKey1d, std=0)
    with pytest.raises(InvalidInput, match="length must be an integer of at least 1, got 0"):
        made(FixedTextQueryKey1d, length=0)
    with pytest.raises(InvalidInput, match="length must be an integer of at least 1, got 0"):
        mixer.fix_map(0)
