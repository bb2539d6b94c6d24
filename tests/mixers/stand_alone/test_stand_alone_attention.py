"""Stand-alone self-attention: equal to a loop over its equation, golden outputs by a rule, and its limits."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.mixers import FullAttention2d, StandAloneAttention2d
from qna.ops import neighborhood_attention


def by_rule(shape, phase):
    """Values that no two places share, from a formula."""
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(1.7 * n + phase).view(shape)


def mixer_by_rule(dim=8, **options):
    mixer = StandAloneAttention2d(dim, **{"num_heads": 2, "kernel_size": (3, 5), **options}).double()
    with torch.no_grad():
        for phase, parameter in enumerate(mixer.parameters()):
            parameter.copy_(by_rule(parameter.shape, phase))
    return mixer


def loop(mixer, x):
    """The equation, one position at a time."""
    (rows, columns), h = mixer.kernel_size, mixer.num_heads
    q, k, v = mixer.qkv(x).unflatten(-1, (3, h, -1)).unbind(3)
    out = torch.zeros(*x.shape[:3], mixer.out_dim, dtype=x.dtype)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            scores, values = [], []
            for a in range(max(0, i - rows // 2), min(x.shape[1], i + rows // 2 + 1)):
                for b in range(max(0, j - columns // 2), min(x.shape[2], j + columns // 2 + 1)):
                    r = torch.cat(
                        [
                            mixer.row_embedding[a - i + rows // 2],
                            mixer.column_embedding[b - j + columns // 2],
                        ]
                    )
                    scores.append((q[:, i, j] * (k[:, a, b] + r)).sum(-1))
                    values.append(v[:, a, b])
            shares = torch.stack(scores).softmax(0)
            out[:, i, j] = torch.einsum("kbh,kbhd->bhd", shares, torch.stack(values)).flatten(1)
    return out


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (2, 9), (8, 3)])
@pytest.mark.parametrize("options", [{}, {"kernel_size": 7, "bias": True}, {"kernel_size": 1, "out_dim": 12}])
@torch.no_grad()
def test_equals_the_loop(size, options):
    mixer, x = mixer_by_rule(**options), by_rule((2, *size, 8), 0.5)
    torch.testing.assert_close(mixer(x), loop(mixer, x), rtol=1e-11, atol=1e-11)


@torch.no_grad()
def test_golden_outputs():
    y = mixer_by_rule(4, num_heads=1, kernel_size=3)(by_rule((1, 4, 5, 4), 0.5))
    torch.testing.assert_close(
        y[0, [0, 2], [0, 3]], torch.tensor(GOLDEN, dtype=torch.float64), rtol=1e-9, atol=0
    )


GOLDEN = [
    [-1.722447712336245, -1.4052180763079234, -0.7209384255363944, 0.1516539605917299],
    [-1.6328151846687318, -1.6841962171664688, -1.2956567442536682, -0.5686852264514614],
]


@torch.no_grad()
def test_without_embeddings_it_is_centred_local_attention():
    mixer, x = mixer_by_rule(), by_rule((2, 5, 7, 8), 0.5)
    mixer.row_embedding.zero_()
    mixer.column_embedding.zero_()
    q, k, v = mixer.qkv(x).unflatten(-1, (3, 2, -1)).unbind(3)
    expected = neighborhood_attention(q, k, v, kernel_size=(3, 5), border="mask", scale=1.0)
    torch.testing.assert_close(mixer(x), expected.flatten(-2), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_a_window_over_the_whole_map_without_embeddings_is_full_attention():
    mixer, x = mixer_by_rule(kernel_size=9), by_rule((2, 4, 5, 8), 0.5)
    mixer.row_embedding.zero_()
    mixer.column_embedding.zero_()
    full = FullAttention2d(8, num_heads=2).double()
    full.qkv.weight.copy_(mixer.qkv.weight)
    full.qkv.weight[:8] *= (8 // 2) ** 0.5  # scores are not divided here
    full.out.weight.copy_(torch.eye(8))
    torch.testing.assert_close(mixer(x), full(x), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_it_moves_with_the_map():
    mixer, x = mixer_by_rule(), by_rule((1, 9, 11, 8), 0.1)
    y, moved = mixer(x), mixer(x.roll((1, 2), (1, 2)))
    torch.testing.assert_close(moved[:, 2:-1, 4:-2], y[:, 1:-2, 2:-4], rtol=1e-11, atol=1e-11)


@torch.no_grad()
def test_embeddings_alone_tell_offsets():
    """With keys of zero a position that prefers one offset copies the value there."""
    mixer, x = mixer_by_rule(num_heads=1), by_rule((1, 5, 7, 8), 0.1)
    mixer.qkv.weight[8:16] = 0
    mixer.qkv.weight[:8] = 0
    mixer.qkv.weight = torch.nn.Parameter(mixer.qkv.weight)
    mixer.row_embedding.zero_()
    mixer.column_embedding.zero_()
    mixer.row_embedding[2, 0] = mixer.column_embedding[0, 0] = 1  # one row down, two columns to the left
    mixer.qkv.bias = torch.nn.Parameter(torch.zeros(24, dtype=torch.float64))
    mixer.qkv.bias[[0, 4]] = 200.0
    value = mixer.qkv(x)[..., 16:]
    torch.testing.assert_close(mixer(x)[:, :-1, 2:], value[:, 1:, :-2], rtol=1e-12, atol=1e-12)


def test_in_a_resnet50_it_saves_the_parameters_that_the_abstract_tells():
    """29 % fewer: every 3 x 3 convolution (9 C^2) gives way to queries, keys and values (3 C^2)."""
    whole = 25_557_032
    width_and_blocks = {64: 3, 128: 4, 256: 6, 512: 3}
    for width, blocks in width_and_blocks.items():
        mixer = StandAloneAttention2d(width, num_heads=8, kernel_size=7)
        whole += blocks * (sum(p.numel() for p in mixer.parameters()) - 9 * width**2)
    assert 1 - whole / 25_557_032 == pytest.approx(0.29, abs=0.01)


def test_rows_are_where_it_looks():
    mixer, x = mixer_by_rule(num_heads=1), by_rule((2, 4, 5, 8), 0.5)
    rows = mixer.attention_rows(x).dense(20)
    value = mixer.qkv(x)[..., 16:].flatten(1, 2)
    torch.testing.assert_close(mixer(x).flatten(1, 2), rows @ value, rtol=1e-11, atol=1e-11)
    torch.nn.init.zeros_(mixer.qkv.weight)
    received = mixer.attention_received(x)
    torch.testing.assert_close(received, torch.ones_like(received))


def test_gradients():
    mixer, x = mixer_by_rule(4, num_heads=1, kernel_size=3), by_rule((1, 3, 2, 4), 0.1).requires_grad_()
    names, weights = zip(*mixer.named_parameters(), strict=True)

    def call(x, *values):
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x, *weights), fast_mode=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kernel_size": 4}, r"kernel_size must be odd, got \(4, 4\)"),
        ({"num_heads": 8}, "8 heads of 8 channels have 1, an odd number"),
    ],
)
def test_wrong_arguments_are_named(options, says):
    with pytest.raises(InvalidInput, match=says):
        mixer_by_rule(**options)
