"""The decoder: transformers' Llama in fp64 with all weights drawn; states; mixers in turn; refusals."""

from copy import deepcopy

import pytest
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna._core.third_party import import_vision
from qna.mixers import MIXERS
from qna.models import create
from qna.models.decoder import BYTES, DECODERS, VARIANTS, create_decoder
from qna.parts.kv_cache import KeepAll, KeepWindow
from tests.mixers.contract import randomise

CAUSAL = [name for name, row in MIXERS.items() if row.traits.causal]


def pico(**arguments):
    torch.manual_seed(0)
    return create_decoder("decoder_pico", **arguments).eval()


def tokens(n=9, batch=2, vocabulary=BYTES):
    return torch.randint(vocabulary, (batch, n), generator=torch.Generator().manual_seed(1))


class Turns(torch.nn.Module):
    """Cosines and sines as transformers' layers take them, in double precision: theirs are in single."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, x, position_ids):
        at = position_ids[..., None] * 10_000.0 ** -(torch.arange(0, self.dim, 2).double() / self.dim)
        at = torch.cat([at, at], -1)
        return at.cos(), at.sin()


@pytest.mark.parametrize(("dim", "heads", "kv_heads", "tied"), [(24, 4, 2, True), (20, 2, 2, False)])
def test_it_is_llama(dim, heads, kv_heads, tied):
    # with it transformers can be imported beside any torchvision
    import_vision("torchvision", extra="models", purpose="transformers")
    transformers = pytest.importorskip("transformers", reason="qna[dense] brings it")
    config = transformers.LlamaConfig(
        vocab_size=31,
        hidden_size=dim,
        intermediate_size=44,
        num_hidden_layers=3,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        rms_norm_eps=1e-6,
        tie_word_embeddings=tied,
        # eager softmax is in single precision
        attn_implementation="sdpa",
    )
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.model.rotary_emb = Turns(dim // heads)
    # theirs, and no other layer, goes through single precision; its formula is torch's own
    for layer in theirs.model.layers:
        layer.input_layernorm = torch.nn.RMSNorm(dim, eps=1e-6)
        layer.post_attention_layernorm = torch.nn.RMSNorm(dim, eps=1e-6)
    theirs.model.norm = torch.nn.RMSNorm(dim, eps=1e-6)
    randomise(theirs, 2)
    theirs.double()
    ours = create_decoder(
        "decoder_pico",
        vocabulary=31,
        dim=dim,
        depth=3,
        num_heads=heads,
        kv_heads=kv_heads,
        hidden=44,
        tied=tied,
    ).double()
    state = {"embed.weight": theirs.model.embed_tokens.weight, "norm.weight": theirs.model.norm.weight}
    if not tied:
        state["head.weight"] = theirs.lm_head.weight
    for i, layer in enumerate(theirs.model.layers):
        at, attention, mlp = f"blocks.{i}", layer.self_attn, layer.mlp
        state |= {
            f"{at}.norm1.weight": layer.input_layernorm.weight,
            f"{at}.norm2.weight": layer.post_attention_layernorm.weight,
            f"{at}.mixer.heads.query.weight": attention.q_proj.weight,
            f"{at}.mixer.heads.key.weight": attention.k_proj.weight,
            f"{at}.mixer.heads.value.weight": attention.v_proj.weight,
            f"{at}.mixer.out.weight": attention.o_proj.weight,
            f"{at}.mlp.gate.weight": mlp.gate_proj.weight,
            f"{at}.mlp.up.weight": mlp.up_proj.weight,
            f"{at}.mlp.down.weight": mlp.down_proj.weight,
        }
    ours.load_state_dict(state)
    for n in (11, 1):
        expected = theirs(tokens(n, vocabulary=31)).logits
        assert (ours(tokens(n, vocabulary=31)) - expected).abs().max() < 1e-9 * expected.std()


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters(name):
    variant = VARIANTS[name]
    with torch.device("meta"):
        decoder = create_decoder(name)
    assert sum(p.numel() for p in decoder.parameters()) == variant.parameters
    assert variant in DECODERS["decoder"].variants.values()


@pytest.mark.parametrize("name", CAUSAL)
def test_every_causal_mixer_goes_on(name):
    """Any split is the whole, in a decoder that is trained in one piece."""
    arguments = {k: v for k, v in MIXERS[name].example.arguments.items() if not k.endswith("heads")}
    decoder = pico(mixers=(name, arguments)).double()
    x = tokens(23)
    whole = decoder(x)
    assert whole.shape == (2, 23, BYTES)
    state, parts = decoder.init_state(2), []
    with torch.no_grad():
        for part in x.split((7, 1, 1, 14), 1):
            logits, state = decoder.step(part, state)
            parts.append(logits)
        assert (torch.cat(parts, 1) - whole).abs().max() < 1e-10
        assert state.length == 23
        assert state.nbytes == decoder.state_bytes((2, 23), torch.float64)
        chosen = state.select(torch.tensor([1]))
        assert (decoder.step(x[1:, :2], chosen)[0] - decoder.step(x[:, :2], state)[0][1:]).abs().max() < 1e-10
    whole.square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in decoder.parameters())


def test_mixers_take_turns():
    sliding = ("SlidingAttention1d", {"window": 5, "num_heads": 2, "kv_heads": 1})
    decoder = pico(depth=3, mixers=("CausalAttention1d", sliding))
    kinds = [type(block.mixer).__name__ for block in decoder.blocks]
    assert kinds == ["CausalAttention1d", "SlidingAttention1d", "CausalAttention1d"]
    assert decoder.blocks[1].mixer.window == 5
    assert decoder.blocks[1].mixer.heads.num_heads == 2
    assert decoder.blocks[0].mixer.heads.num_heads == 4
    assert create("decoder_pico", mixers=sliding).blocks[0].mixer.window == 5


def test_caches_by_policy():
    decoder, x = pico(depth=2, mixers=("CausalAttention1d", "CausalLinearAttention1d")), tokens(12)
    with torch.no_grad():
        plain, _ = decoder.step(x, decoder.init_state(2))
        every, _ = decoder.step(x, decoder.init_state(2, policy=KeepAll()))
        some, state = decoder.step(x, decoder.init_state(2, policy=KeepWindow(3)))
    assert torch.equal(plain, every)
    assert not torch.allclose(plain, some)
    assert state["block0"].nbytes < plain.numel()
    linear = pico(mixers="CausalLinearAttention1d")
    with pytest.raises(InvalidInput, match=r"KeepAll\(\) is for layers .* CausalLinearAttention1d do not"):
        linear.init_state(1, policy=KeepAll())


def test_recomputing_changes_nothing():
    decoder = pico().train()
    twin = deepcopy(decoder)
    twin.set_grad_checkpointing()
    for network in (decoder, twin):
        network(tokens()).square().mean().backward()
    for one, two in zip(decoder.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)


def test_what_decays():
    decoder = pico()
    exempt = decoder.no_weight_decay()
    assert {n for n, p in decoder.named_parameters() if n not in exempt} == {
        n for n in dict(decoder.named_parameters()) if "norm" not in n
    }


def test_what_is_refused():
    decoder = pico(max_length=8)
    with pytest.raises(InvalidInput, match=r"sequences have at most max_length=8 tokens, got 0 and then 9"):
        decoder(tokens(9))
    _, state = decoder.step(tokens(7), decoder.init_state(2))
    with pytest.raises(InvalidInput, match="got 7 and then 2"):
        decoder.step(tokens(2), state)
    with pytest.raises(InvalidInput, match="this state is of 2 sequences, got 1"):
        decoder.step(tokens(1, batch=1), state)
    other = pico(depth=3)
    with pytest.raises(
        InvalidInput, match=r"was made by Decoder.*depth=2.* gone on with by Decoder.*depth=3"
    ):
        other.step(tokens(1), state)
    heads = pico(kv_heads=4)
    with pytest.raises(InvalidInput, match=r"was made by CausalAttention1d.*kv_heads=2.*kv_heads=4"):
        heads.step(tokens(1), state)
    with pytest.raises(InvalidInput, match=r"tokens must be whole numbers \(B, N\), got torch.float32"):
        decoder(torch.zeros(2, 3))
    with pytest.raises(InvalidInput, match=r"only the batch may be empty, got \(2, 0\)"):
        decoder(tokens(0))
    with pytest.raises(
        InvalidInput, match="QnA1d is not causal and cannot be a decoder's mixer; these are: Ca"
    ):
        pico(mixers="QnA1d")
    with pytest.raises(
        UnknownName, match="unknown mixer 'CausalAttention'; did you mean 'CausalAttention1d'"
    ):
        pico(mixers="CausalAttention")
    with pytest.raises(UnknownName, match="unknown argument of SlidingAttention1d 'windows'; did you mean"):
        pico(mixers=("SlidingAttention1d", {"windows": 3}))
    with pytest.raises(UnknownName, match="unknown argument of decoder_pico 'widht'"):
        pico(widht=3)
    with pytest.raises(UnknownName, match="unknown decoder 'decoder_nan'; did you mean 'decoder_nano'"):
        create_decoder("decoder_nan")
    for wrong in ((), 3, (3,)):
        with pytest.raises(InvalidInput, match="mixers must"):
            pico(mixers=wrong)
    with pytest.raises(InvalidInput, match=r"must have numbers of at most 131,072"):
        pico(depth=10**6)
