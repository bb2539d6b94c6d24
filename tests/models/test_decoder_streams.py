"""Sequences beside a decoder's own, which the same network reads; fixed maps; layers that are skipped."""

from copy import deepcopy

import pytest
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.analysis.cost import total_macs
from qna.models.decoder import create_decoder, without_layers
from qna.models.decoder.generation import Sampling, generate
from qna.parts.kv_cache import KeepWindow
from tests.mixers.contract import randomise

STANDARD = "CausalAttention1d"
TEXT = ("FixedTextQueryKey1d", {"length": 40})
NOISE = ("RandomQueryKey1d", {"std": 0.5})
OTHER = ("RandomQueryKey1d", {"std": 0.5, "seed": 1})
STATIC = "StaticQueryKey1d"
MIXED = {
    "text": TEXT,
    "noise": NOISE,
    "static": STATIC,
    "hybrid": (TEXT, STANDARD),
    "two noises": (NOISE, OTHER, STANDARD),
    "everything": (NOISE, TEXT, "KeyOnlyAttention1d", STATIC),
}


def made(mixers, seed=0, **arguments):
    decoder = create_decoder(
        "decoder_pico", mixers=mixers, **{"dim": 32, "depth": 5, "hidden": 40, **arguments}
    )
    randomise(decoder, seed)
    return decoder.double().eval()


def tokens(n=19, batch=2, seed=1):
    # a shorter one is the beginning of a longer one
    return torch.randint(257, (batch, 64), generator=torch.Generator().manual_seed(seed))[:, :n]


def close(found, expected):
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()


def like(decoder, mixers):
    """The same weights with other mixers."""
    other = made(mixers)
    other.load_state_dict({n: t for n, t in decoder.state_dict().items() if n != "text"})
    return other


@pytest.mark.parametrize("mixers", MIXED.values(), ids=MIXED)
def test_any_split_is_the_whole_and_sequences_are_selected(mixers):
    decoder = made(mixers)
    with torch.no_grad():
        whole = decoder(tokens())
        for split in ((1,) * 19, (7, 1, 1, 10), (18, 1)):
            state, parts = decoder.init_state(2), []
            for part in tokens().split(split, 1):
                y, state = decoder.step(part, state)
                parts.append(y)
            close(torch.cat(parts, 1), whole)
            assert state.nbytes == decoder.state_bytes((2, 19), torch.float64)
        chosen = state.select(torch.tensor([1, 1, 0]))
        following = tokens(4, batch=3, seed=2)
        y, _ = decoder.step(following, chosen)
        close(y, decoder(torch.cat([tokens()[[1, 1, 0]], following], 1))[:, 19:])
        # nothing of a sequence depends on the others of its batch
        close(decoder(tokens()[1:]), whole[1:])


@pytest.mark.parametrize("mixers", MIXED.values(), ids=MIXED)
def test_every_parameter_has_the_gradient_that_recomputing_has(mixers):
    decoder = made(mixers).train()
    twin = deepcopy(decoder)
    twin.set_grad_checkpointing()
    for network in (decoder, twin):
        network(tokens()).square().mean().backward()
    for one, two in zip(decoder.parameters(), twin.parameters(), strict=True):
        assert one.grad.any()
        close(two.grad, one.grad)


def test_a_decoder_that_reads_its_own_text_is_standard():
    for mixers in (TEXT, (TEXT, STANDARD)):
        decoder = made(mixers)
        text = tokens(40, batch=1, seed=8)
        decoder.fix_text(text[0])
        assert torch.equal(decoder.text, text[0])
        plain = like(decoder, STANDARD)
        close(decoder(text), plain(text))
        close(decoder(text[:, :7]), plain(text[:, :7]))
        assert (decoder(tokens(40)) - plain(tokens(40))).abs().max() > 1e-3


def test_static_embeddings_are_standard_in_the_first_layer():
    for depth, same in ((1, True), (2, False)):
        decoder, plain = (made(m, depth=depth) for m in (STATIC, STANDARD))
        plain.load_state_dict(decoder.state_dict())
        difference = (decoder(tokens()) - plain(tokens())).abs().max()
        assert bool(difference < 1e-12) is same


def test_the_sequence_beside_is_read_by_the_same_layers():
    """By hand, layer by layer: a hybrid, whose second layer reads the noise as it reads everything."""
    decoder = made((NOISE, STANDARD), depth=4)
    x, beside = decoder.embed(tokens()), decoder.blocks[0].mixer.by_itself(torch.zeros(1, 19, 32).double(), 0)
    for i, block in enumerate(decoder.blocks):
        mixed = []
        for h in (x, beside):
            given = (block.norm1(beside),) if i % 2 == 0 else ()
            between = h + block.mixer(block.norm1(h), *given)
            mixed.append(between + block.mlp(block.norm2(between)))
        x, beside = mixed
    close(decoder(tokens()), torch.nn.functional.linear(decoder.norm(x), decoder.embed.weight))


def test_nothing_is_read_beside_that_no_later_layer_asks_for():
    """The first layer is called twice where the second one asks, and once where no later one does."""
    sizes = {"depth": 2, "num_heads": 4, "kv_heads": 4}
    one, both = (made((*m,), **sizes) for m in ((NOISE, STANDARD), (STANDARD, NOISE)))
    size = (1, 16)
    tokens_of = torch.zeros(size, dtype=torch.int64)
    calls = {}
    for name, decoder in (("one", one), ("both", both)):
        called = []
        for block in decoder.blocks:
            block.register_forward_hook(lambda m, i, o, called=called: called.append(m))
        decoder(tokens_of)
        calls[name] = [called.count(block) for block in decoder.blocks]
    assert calls == {"one": [1, 1], "both": [2, 1]}
    assert total_macs(one.blocks[0].mixer, (1, 16, 32)) == one.blocks[0].mixer.macs((1, 16, 32))


@pytest.mark.parametrize("mixers", [m for n, m in MIXED.items() if n != "static"])
def test_maps_that_are_fixed_change_nothing(mixers):
    decoder = made(mixers)
    with torch.no_grad():
        whole = decoder(tokens())
        before = decoder.state_bytes((2, 19))
        decoder.fix_maps(24)
        close(decoder(tokens()), whole)
        state, parts = decoder.init_state(2), []
        for part in tokens().split((7, 1, 11), 1):
            y, state = decoder.step(part, state)
            parts.append(y)
        close(torch.cat(parts, 1), whole)
        assert "beside" not in state.held
        assert state.nbytes == decoder.state_bytes((2, 19), torch.float64)
        assert decoder.state_bytes((2, 19)) < before
        with pytest.raises(InvalidInput, match="fixed for 24 positions, and the sequence has 25"):
            decoder(tokens(25))
        # again and longer, and released by hand and by training
        decoder.fix_maps(30)
        close(decoder(tokens(25))[:, :19], whole)
        decoder.release_maps()
        close(decoder(tokens(31))[:, :19], whole)
        decoder.fix_maps(24)
        decoder.train()
        decoder(tokens(31))


def test_generation_reads_the_other_sequence_on():
    decoder = made((TEXT, NOISE, STANDARD))
    greedy = {"count": 12, "sampling": Sampling(temperature=0)}
    found = torch.stack(list(generate(decoder, tokens(5), **greedy)), 1)
    read = tokens(5)
    with torch.no_grad():
        for i in range(12):
            following = decoder(read)[:, -1].argmax(-1)
            assert torch.equal(following, found[:, i])
            read = torch.cat([read, following[:, None]], 1)
    # a policy is for layers that keep by one, and the others keep all
    narrow = list(generate(decoder, tokens(5), **greedy, policy=KeepWindow(2)))
    assert len(narrow) == 12
    with pytest.raises(InvalidInput, match="fixed text of 40 tokens, and the sequence has 41"):
        list(generate(decoder, tokens(30), count=20))


def test_a_text_of_another_vocabulary():
    small = create_decoder("decoder_pico", vocabulary=11, mixers=TEXT)
    assert int(small.text.max()) < 11
    assert "text" in small.state_dict()
    plain = create_decoder("decoder_pico")
    assert plain.text is None
    assert "text" not in plain.state_dict()
    for wrong, says in (
        (torch.zeros(39, dtype=torch.int64), r"must be int64 \(40,\) or longer, got torch.int64 \(39,\)"),
        (torch.zeros(40), "must be int64"),
        (torch.full((40,), 11), "from 0 to 10, got 11 to 11"),
    ):
        with pytest.raises(InvalidInput, match=says):
            small.fix_text(wrong)
    with pytest.raises(InvalidInput, match="no mixer makes queries and keys of a fixed text"):
        plain.fix_text(torch.zeros(40, dtype=torch.int64))
    with pytest.raises(InvalidInput, match="no layer has attention that is the same"):
        plain.fix_maps(3)
    with pytest.raises(InvalidInput, match="fixed text of 40 tokens, and the sequence has 41"):
        small.fix_maps(41)


def test_layers_are_skipped():
    decoder = made((NOISE, STANDARD))
    whole = decoder(tokens())
    less = without_layers(decoder, (1, 3, 5))
    assert torch.equal(decoder(tokens()), whole)
    assert [type(b.mixer).__name__ for b in less.blocks] == 2 * [STANDARD]
    x = decoder.embed(tokens())
    for i in (1, 3):
        x = decoder.blocks[i](x)
    close(less(tokens()), torch.nn.functional.linear(decoder.norm(x), decoder.embed.weight))
    # it is what its own fields make
    again = made(less.variant.mixers, depth=less.variant.depth)
    again.load_state_dict(less.state_dict())
    assert torch.equal(again(tokens()), less(tokens()))
    with pytest.raises(InvalidInput, match=r"was made by Decoder.*depth=5.*cannot be gone on with"):
        less.step(tokens(), decoder.init_state(2))


def test_mixers_are_skipped():
    decoder = made((NOISE, STANDARD))
    less = without_layers(decoder, (1, 3, 5), part="mixer")
    x = decoder.embed(tokens())
    for i, block in enumerate(decoder.blocks):
        x = block(x) if i % 2 else x + block.mlp(block.norm2(x))
    close(less(tokens()), torch.nn.functional.linear(decoder.norm(x), decoder.embed.weight))
    with torch.no_grad():
        y, state = less.step(tokens()[:, :9], less.init_state(2))
        close(torch.cat([y, less.step(tokens()[:, 9:], state)[0]], 1), less(tokens()))
    with pytest.raises(InvalidInput, match=r"was made by .*cannot be gone on with by _Nothing"):
        less.step(tokens(), decoder.init_state(2))
    for layers, says in (
        ((0,), "layers are from 1 to 5, got 0"),
        (range(1, 6), "all 5 layers would be skipped"),
    ):
        with pytest.raises(InvalidInput, match=says):
            without_layers(decoder, layers)
    with pytest.raises(UnknownName, match="unknown part of a layer 'mixr'; did you mean 'mixer'"):
        without_layers(decoder, (1,), part="mixr")


@pytest.mark.long
def test_it_compiles():
    decoder = made(MIXED["everything"]).float()
    torch._dynamo.reset()
    twin = torch.compile(decoder, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(twin(tokens()), decoder(tokens()), rtol=1e-4, atol=1e-4)
