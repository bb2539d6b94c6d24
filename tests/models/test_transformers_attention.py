"""Llama of transformers, made from a configuration, whose prompts are read by blocks."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.parts.proxy_blocks import ProxyBlocks

transformers = pytest.importorskip("transformers", reason="qna[dense] brings it")
proxy = pytest.importorskip("qna.models.transformers_attention")

EVERYTHING = "qna_everything"
SPARSE = ProxyBlocks(block=8, stride=2, gamma=0.4, least=8)


@pytest.fixture(scope="module")
def llama():
    proxy.register_proxy_attention(ProxyBlocks(block=8, gamma=1.0), EVERYTHING)
    assert proxy.register_proxy_attention(SPARSE) == "qna_proxy"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        pad_token_id=96,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = transformers.LlamaForCausalLM(config).eval().double()
    with torch.no_grad():
        for layer in model.model.layers:
            # attention that is far from even
            layer.self_attn.q_proj.weight.mul_(30)
    return model


def tokens(length=61):
    return torch.randint(0, 96, (2, length), generator=torch.Generator().manual_seed(1))


def masks(length=61):
    left, right = torch.ones(2, length, dtype=torch.int64), torch.ones(2, length, dtype=torch.int64)
    left[0, :9] = 0
    right[0, -9:] = 0
    return {"none": None, "left": left, "right": right}


@torch.no_grad()
def logits(model, name, mask=None, given=None):
    model.set_attn_implementation(name)
    out = model(tokens() if given is None else given, attention_mask=mask).logits
    return out if mask is None else out[mask.bool()]


@pytest.mark.parametrize("which", ["none", "left", "right"])
def test_all_blocks_are_transformers_own_attention(llama, which):
    mask = masks()[which]
    expected = logits(llama, "sdpa", mask)
    assert (logits(llama, EVERYTHING, mask) - expected).abs().max() < 1e-9 * expected.std()
    assert (logits(llama, "qna_proxy", mask) - expected).abs().max() > 1e-3 * expected.std()
    if which != "left":
        # whose softmax is in single precision, and NaN where a row is all padding
        eager = logits(llama, "eager", mask)
        assert (logits(llama, EVERYTHING, mask) - eager).abs().max() < 1e-5 * eager.std()


def test_padding_changes_nothing(llama):
    given, mask = tokens(), masks()["left"]
    whole = logits(llama, "qna_proxy", mask, given)
    alone = logits(llama, "qna_proxy", None, given[:1, 9:])[0]
    # positions count padding, and transformers turns by angles in single precision
    assert (whole[: 61 - 9] - alone).abs().max() < 1e-4 * alone.std()


@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("which", ["none", "left"])
def test_generation_with_a_cache(llama, cache, which):
    mask = masks()[which]
    mask = torch.ones_like(tokens()) if mask is None else mask

    def generated(name):
        llama.set_attn_implementation(name)
        more = {"cache_implementation": cache} if cache else {}
        return llama.generate(tokens(), attention_mask=mask, max_new_tokens=6, do_sample=False, **more)[
            :, 61:
        ]

    expected = generated("sdpa")
    assert torch.equal(generated(EVERYTHING), expected)
    # a prompt goes sparsely into a cache that grows, and densely into one of fixed size
    assert torch.equal(generated("qna_proxy"), expected) == (cache == "static")


def test_steps_behind_a_prompt_see_all_of_it(llama):
    """Every step over the whole cache: as the same model with keys and values of the sparse prompt."""
    llama.set_attn_implementation("qna_proxy")
    with torch.no_grad():
        first = llama(tokens()[:, :60], use_cache=True)
        sparse = llama(tokens()[:, 60:], cache=first.past_key_values).logits
        again = llama(tokens()[:, :60], use_cache=True)
        llama.set_attn_implementation("sdpa")
        dense = llama(tokens()[:, 60:], cache=again.past_key_values).logits
    torch.testing.assert_close(sparse, dense, rtol=0, atol=1e-12)


def test_what_is_no_plain_prompt_is_refused_in_one_sentence(llama):
    gaps = torch.ones(2, 61, dtype=torch.int64)
    gaps[1, 20] = 0
    with pytest.raises(InvalidInput, match=r"sequence 1 has 60 of 61 positions with gaps"):
        logits(llama, "qna_proxy", gaps)
    gaps[1] = 0
    with pytest.raises(InvalidInput, match=r"sequence 1 has 0 of 61 positions"):
        logits(llama, "qna_proxy", gaps)
    with pytest.raises(InvalidInput, match=r"takes a mask of padding \(B, N\), got one of pairs"):
        llama(tokens(), attention_mask=torch.zeros(2, 1, 61, 61, dtype=torch.float64))
    llama.train()
    try:
        with pytest.raises(InvalidInput, match=r"trains nothing; call model\.eval\(\)"):
            llama(tokens())
    finally:
        llama.eval()


def test_windows_are_refused():
    proxy.register_proxy_attention(SPARSE)
    config = transformers.MistralConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=16, attn_implementation="qna_proxy",
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="masks pairs in another way"):
        transformers.MistralForCausalLM(config).eval()(tokens())
