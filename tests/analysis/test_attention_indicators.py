"""Indicators of attention: of matrices that are known, by loops, and layer by layer of networks."""

import math

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.analysis import attention_indicators, indicators_of
from qna.mixers import CausalAttention1d, create_mixer
from qna.models.decoder import create_decoder


def test_of_the_position_itself_of_the_first_and_of_all_alike():
    n = 6
    own = attention_indicators(torch.eye(n).expand(2, 3, n, n))
    assert (own.entropy, own.sink, own.head_diversity) == (0, 1 / n, 0)
    assert own.concentration == pytest.approx(n**0.5)
    assert own.local_focus == {0: 1, 1: 0, 2: 0, 3: 0}
    first = attention_indicators(torch.eye(n)[:1].expand(n, n)[None, None])
    assert (first.entropy, first.sink, first.head_diversity) == (0, 1, None)
    # of the pairs at a distance one looks at the first position
    assert first.local_focus == {d: pytest.approx(1 / (n - d)) for d in range(4)}
    even = torch.ones(n, n).tril()
    mean = attention_indicators((even / even.sum(-1, keepdim=True))[None, None])
    assert mean.entropy == pytest.approx(sum(math.log(i) for i in range(1, n + 1)))
    assert mean.concentration == pytest.approx(sum(1 / i for i in range(1, n + 1)) ** 0.5)
    assert mean.sink == pytest.approx(sum(1 / i for i in range(1, n + 1)) / n)
    # one head on the position itself, one on the first: where they differ they are 0 and 1
    both = torch.stack([torch.eye(n), torch.eye(n)[:1].expand(n, n)])[None]
    assert attention_indicators(both).head_diversity == pytest.approx(0.5 * 2 * (n - 1) / (n * (n + 1) / 2))


def test_by_loops():
    shares = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)).tril().double()
    shares = shares / shares.sum(-1, keepdim=True)
    found = attention_indicators(shares, distances=(0, 4))
    every = [(b, h) for b in range(2) for h in range(3)]
    pairs = [(i, j) for i in range(5) for j in range(i + 1)]
    entropy = [-sum(a * math.log(a) for a in shares[b, h].flatten().tolist() if a) for b, h in every]
    assert found.entropy == pytest.approx(sum(entropy) / 6)
    norms = [shares[b, h].norm().item() for b, h in every]
    assert found.concentration == pytest.approx(sum(norms) / 6)
    spread = [shares[b, :, i, j].var(correction=0).item() ** 0.5 for b in range(2) for i, j in pairs]
    assert found.head_diversity == pytest.approx(sum(spread) / 30)
    assert found.sink == pytest.approx(shares[:, :, :, 0].mean().item())
    assert found.local_focus[4] == pytest.approx(shares[:, :, 4, 0].mean().item())
    assert found.local_focus[0] == pytest.approx(
        sum(shares[b, h, i, i].item() for b, h in every for i in range(5)) / 30
    )
    negative = shares.clone()
    negative[0, 0, 3, 1] = -0.1
    assert attention_indicators(negative).entropy == -math.inf


def test_of_every_layer_of_a_decoder():
    torch.manual_seed(0)
    mixers = (
        "RandomQueryKey1d",
        "CausalAttention1d",
        "PositionwiseMlp1d",
        "StaticQueryKey1d",
        "KeyOnlyAttention1d",
    )
    decoder = create_decoder("decoder_pico", depth=5, mixers=mixers).train()
    tokens = torch.randint(257, (2, 12))
    found = indicators_of(decoder, tokens)
    assert decoder.training
    assert list(found) == [f"blocks.{i}.mixer" for i in (0, 1, 3, 4)]
    # by hand: what goes into the second layer
    decoder.eval()
    with torch.no_grad():
        x = decoder.embed(tokens)
        noise = decoder.blocks[0].mixer.by_itself(x, 0)
        x = decoder.blocks[0](x, noise)
        shares = decoder.blocks[1].mixer.attention_map(decoder.blocks[1].norm1(x))
    assert found["blocks.1.mixer"].entropy == pytest.approx(attention_indicators(shares).entropy, rel=1e-6)
    assert all(f.head_diversity is not None for f in found.values())
    # a map that is fixed is the map
    decoder.fix_maps(12)
    again = indicators_of(decoder, tokens)
    for name, one in found.items():
        assert again[name].entropy == pytest.approx(one.entropy, rel=1e-4)


def test_of_rows_where_maps_have_other_axes():
    mixer = create_mixer("QnA1d", 8, num_heads=2, kernel_size=3)
    found = indicators_of(mixer, torch.randn(2, 7, 8))[""]
    assert found.head_diversity is None
    assert found.local_focus[3] == 0
    assert found.local_focus[1] > 0.1


def test_what_is_refused():
    for wrong in (torch.zeros(3, 4, 4), torch.zeros(1, 2, 3, 4), torch.zeros(0, 2, 3, 3)):
        with pytest.raises(InvalidInput, match=r"attention must be \(B, heads, N, N\), none of them 0"):
            attention_indicators(wrong)
    with pytest.raises(InvalidInput, match="of 3 positions distances are from 0 to 2, got 3"):
        attention_indicators(torch.zeros(1, 2, 3, 3))
    mixer = CausalAttention1d(8, num_heads=2)
    assert indicators_of(mixer, torch.randn(1, 4, 8))[""].local_focus.keys() == {0, 1, 2, 3}
