"""Prompts that are read by blocks: the policy, the mixer, and decoding, which is dense."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.mixers import CausalAttention1d, ProxyAttention1d
from qna.mixers.causal.policies import policy_of
from qna.models.decoder import create_decoder
from qna.models.decoder.generation import Sampling, generate
from qna.parts.block_choice import attend_chosen
from qna.parts.proxy_prefill import ProxyPrefill
from tests.mixers.contract import randomise


def made(cls=ProxyAttention1d, **more):
    mixer = cls(16, num_heads=4, kv_heads=2, **more).double().eval()
    randomise(mixer, 3)
    with torch.no_grad():
        # attention that is far from even
        mixer.heads.query.weight *= 4
    return mixer


SPARSE = {"block": 8, "gamma": 0.5, "least": 16}


def x(length, seed=1):
    return torch.randn(2, length, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def test_a_prompt_is_the_chosen_blocks_and_steps_are_dense():
    mixer, dense = made(**SPARSE), made(CausalAttention1d)
    given = x(60)
    assert torch.equal(mixer(given), dense(given))
    y, state = mixer.step(given[:, :50], mixer.init_state(2))
    query, key, value = mixer.project(given[:, :50], 0)
    expected = mixer.joined(attend_chosen(query, key, value, mixer.policy), given[:, :50])
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)
    assert (y - dense(given)[:, :50]).abs().max() > 1e-3
    # keys and values of one layer do not depend on what was attended
    later, state = mixer.step(given[:, 50:57], state)
    torch.testing.assert_close(later, dense(given)[:, 50:57], rtol=0, atol=1e-12)
    for i in range(57, 60):
        later, state = mixer.step(given[:, i : i + 1], state)
        torch.testing.assert_close(later, dense(given)[:, i : i + 1], rtol=0, atol=1e-12)


@torch.no_grad()
def test_everything_kept_is_full_attention_and_a_short_prompt_is_dense():
    dense, given = made(CausalAttention1d), x(50)
    for more in ({**SPARSE, "gamma": 1.0}, {**SPARSE, "least": 64}):
        mixer = made(**more)
        y, _ = mixer.step(given, mixer.init_state(2))
        torch.testing.assert_close(y, dense(given), rtol=0, atol=1e-12)
    mixer = made(**SPARSE)
    y, _ = mixer.step(given[:, :16], mixer.init_state(2))
    assert torch.equal(y, dense(given[:, :16]))


@torch.no_grad()
def test_the_policy_does_the_same_in_attention_that_stands_already():
    mixer, dense, given = made(**SPARSE), made(CausalAttention1d), x(50)
    policy = policy_of("proxy:block=8,gamma=0.5,least=16")
    assert policy == ProxyPrefill(**SPARSE) == mixer.policy
    (one, _), (two, state) = (
        m.step(given, s) for m, s in ((mixer, mixer.init_state(2)), (dense, dense.policy_state(2, policy)))
    )
    assert torch.equal(one, two)
    assert state.nbytes == dense.state_bytes((2, 50, 16), torch.float64)
    dense.load_state_dict(mixer.state_dict())


def test_generation_reads_the_prompt_by_blocks():
    torch.manual_seed(0)
    network = create_decoder("decoder_pico").eval()
    prompt = torch.randint(0, 256, (1, 80))
    greedy = Sampling(temperature=0)

    def run(policy):
        return torch.stack([*generate(network, prompt, count=6, sampling=greedy, policy=policy)])

    everything = ProxyPrefill(block=8, gamma=1.0, least=0)
    assert torch.equal(run(everything), run(None))
    assert run(ProxyPrefill(block=8, gamma=0.3, least=0)).shape == (6, 1)


def test_proxies_that_do_not_fit_the_heads_are_refused_when_it_is_built():
    with pytest.raises(InvalidInput, match="3 proxies do not divide 4 heads of queries along 2 of keys"):
        made(**SPARSE, proxies=3)
