"""Generation: greedy is the argmax of the whole network; draws have the probabilities that they say."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.models.decoder import create_decoder
from qna.models.decoder.generation import Sampling, generate
from qna.parts.kv_cache import KeepWindow


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    decoder = create_decoder("decoder_pico", vocabulary=11).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return decoder


PROMPT = torch.tensor([[3, 1, 4], [1, 5, 9]])


def made(network, count=12, **options):
    return torch.stack(list(generate(network, PROMPT, count=count, **options)), 1)


def test_greedy_is_the_likeliest_of_the_whole_network(network):
    found = made(network, sampling=Sampling(temperature=0))
    tokens = PROMPT
    with torch.no_grad():
        for i in range(12):
            following = network(tokens)[:, -1].argmax(-1)
            assert torch.equal(following, found[:, i])
            tokens = torch.cat([tokens, following[:, None]], 1)
    assert len(found.unique()) > 1


def test_draws_follow_from_the_seed(network):
    first, again = (made(network, sampling=Sampling(seed=3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, made(network, sampling=Sampling(seed=4)))
    # it goes on as it is made
    parts = generate(network, PROMPT, count=12, sampling=Sampling(seed=3))
    assert torch.equal(next(parts), first[:, 0])


def test_caches_by_policy(network):
    greedy = Sampling(temperature=0)
    assert torch.equal(made(network, sampling=greedy), made(network, sampling=greedy, policy=KeepWindow(20)))
    narrow = made(network, sampling=greedy, policy=KeepWindow(1), count=20)
    assert not torch.equal(made(network, sampling=greedy, count=20), narrow)


def test_probabilities():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]]).log_softmax(-1)
    shares = logits.exp()[0]
    plain = Sampling().probabilities(logits)[0]
    torch.testing.assert_close(plain, shares)
    cold = Sampling(temperature=0.5).probabilities(logits)[0]
    torch.testing.assert_close(cold, shares.square() / shares.square().sum())
    two = Sampling(top_k=2).probabilities(logits)[0]
    torch.testing.assert_close(two, torch.tensor([0.0, shares[1], 0.0, shares[3]]) / (shares[1] + shares[3]))
    # the likeliest alone has .64, and with the second .88
    assert (Sampling(top_p=0.5).probabilities(logits)[0] > 0).tolist() == [False, True, False, False]
    torch.testing.assert_close(Sampling(top_p=0.7).probabilities(logits)[0], two)
    assert (Sampling(top_p=0.95).probabilities(logits)[0] > 0).tolist() == [False, True, True, True]
    # top_p is of what top_k leaves
    assert (Sampling(top_k=2, top_p=0.7).probabilities(logits)[0] > 0).sum() == 1
    assert Sampling(temperature=0).probabilities(logits).tolist() == [[0, 1, 0, 0]]
    assert Sampling(top_k=9).probabilities(logits)[0].allclose(shares)


def test_draws_have_their_probabilities():
    class Fixed(torch.nn.Module):
        def init_state(self, batch, **_):
            return None

        def step(self, tokens, state):
            logits = torch.tensor([0.1, 0.2, 0.7]).log()
            return logits.expand(*tokens.shape, 3), state

    prompt = torch.zeros(4000, 1, dtype=torch.int64)
    (drawn,) = generate(Fixed(), prompt, count=1, sampling=Sampling(seed=1))
    counts = drawn.bincount(minlength=3) / 4000
    # three standard deviations of the largest
    assert (counts - torch.tensor([0.1, 0.2, 0.7])).abs().max() < 3 * (0.21 / 4000) ** 0.5


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temperature": -1}, "temperature must be at least 0 and finite, got -1"),
        ({"temperature": float("nan")}, "temperature must be at least 0"),
        ({"top_k": 0}, "top_k must be an integer of at least 1, got 0"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1, got 0"),
        ({"temperature": 0, "top_p": 0.5}, "top_k and top_p change nothing"),
    ],
)
def test_what_is_refused(options, told):
    with pytest.raises(InvalidInput, match=told):
        Sampling(**options)


def test_a_count_of_none_is_refused(network):
    with pytest.raises(InvalidInput, match="count must be an integer of at least 1, got 0"):
        list(generate(network, PROMPT, count=0))
