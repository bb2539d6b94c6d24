"""QnA1d, QnA2d and QnA3d against the formulas of the paper, mode by mode."""

import math

import pytest
import torch
import torch.nn.functional as F

import qna
from qna.mixers.learned_query.position import POSITIONS
from qna.mixers.learned_query.query_weight import QUERY_WEIGHTS
from qna.ops import packed_learned_query_attention

SPACES = {1: (9,), 2: (5, 8), 3: (3, 4, 5)}
LAYERS = {1: qna.QnA1d, 2: qna.QnA2d, 3: qna.QnA3d}


def layer(axes=2, dim=12, seed=0, **arguments):
    """A layer in fp64 with random values in every parameter."""
    torch.manual_seed(seed)
    mixer = LAYERS[axes](dim, **{"num_heads": 3, "kernel_size": 3, **arguments}).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) * 0.5)
    return mixer


def example(axes=2, dim=12, batch=2, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *SPACES[axes], dim, generator=g, dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def loop_output(mixer, x, position, query_weight):
    """The layer from its definition: keys are formed, one position and one head at a time."""
    p, L, h = mixer.project, mixer.num_queries, mixer.num_heads
    d, heads_fastest = mixer.out_dim // h, (-1, mixer.out_dim // h, h)
    query = p.query / (p.query.norm(dim=-1, keepdim=True) + 1e-6) / math.sqrt(d)
    B, H, W, _ = x.shape
    kh, kw = mixer.kernel_size
    out = torch.zeros(B, -(-H // mixer.stride[0]), -(-W // mixer.stride[1]), d, h, dtype=x.dtype)
    keys = torch.einsum("byxc,hdc->byxhd", x, p.key)
    values = (x @ p.value.weight.T).reshape(B, H, W, *heads_fastest[1:])
    if p.value.bias is not None:
        values = values + p.value.bias.view(heads_fastest[1:])
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            for head in range(h):
                for l in range(L):
                    logits, taps = [], []
                    for ty in range(kh):
                        for tx in range(kw):
                            y = (
                                i * mixer.stride[0]
                                + ty * mixer.dilation[0]
                                - mixer.dilation[0] * (kh - 1) // 2
                            )
                            z = (
                                j * mixer.stride[1]
                                + tx * mixer.dilation[1]
                                - mixer.dilation[1] * (kw - 1) // 2
                            )
                            if 0 <= y < H and 0 <= z < W:
                                score = keys[:, y, z, head] @ query[l, head]
                                logits.append(score + position(query, ty, tx, l, head))
                                taps.append((query_weight(ty, tx, l, head), values[:, y, z, :, head]))
                    shares = torch.stack(logits).softmax(0)
                    for share, (weight, value) in zip(shares, taps, strict=True):
                        out[:, i, j, :, head] += weight * share[:, None] * value
    return out.flatten(-2) @ mixer.out.weight.T + (0 if mixer.out.bias is None else mixer.out.bias)


POSITION_FORMULAS = {
    "relative": lambda m, q, ty, tx, l, h: m.table[ty, tx, l, h],
    "contextual": lambda m, q, ty, tx, l, h: (
        (q[l] * m.weight[:, :, ty * m.kernel[1] + tx, h]).sum() + m.bias[ty * m.kernel[1] + tx, h]
    ),
    "absolute": lambda m, q, ty, tx, l, h: q[l, h] @ m.table[ty, tx, l, h],
    "none": lambda m, q, ty, tx, l, h: 0.0,
}
WEIGHT_FORMULAS = {
    "normal": lambda m, ty, tx, l, h: m.table[ty, tx, l, h],
    "elementwise": lambda m, ty, tx, l, h: m.table[l, h],
    "posneg": lambda m, ty, tx, l, h: 1.0 if 2 * (l * m.shape[-1] + h) < math.prod(m.shape[-2:]) else -1.0,
    "ones": lambda m, ty, tx, l, h: m.table[ty, tx, l, h],
    "avg": lambda m, ty, tx, l, h: 1 / m.shape[-2],
    "none": lambda m, ty, tx, l, h: 1.0,
}


@pytest.mark.parametrize(
    ("position", "query_weight", "arguments"),
    [
        *[(p, "normal", {}) for p in POSITIONS],
        *[("relative", w, {"kernel_size": (2, 3)}) for w in QUERY_WEIGHTS],
        ("relative", "normal", {"stride": 2, "bias": True}),
        ("contextual", "elementwise", {"stride": (2, 1), "dilation": (1, 2), "num_queries": 3}),
        ("relative", "posneg", {"num_queries": 1, "kernel_size": 7}),
    ],
)
@torch.no_grad()
def test_equals_the_definition(position, query_weight, arguments):
    mixer, x = layer(position=position, query_weight=query_weight, **arguments), example()
    expected = loop_output(
        mixer,
        x,
        lambda *a: POSITION_FORMULAS[position](mixer.project.position, *a),
        lambda *a: WEIGHT_FORMULAS[query_weight](mixer.project.query_weight, *a),
    )
    close(mixer(x), expected)


def test_formula_tables_name_every_mode():
    assert set(POSITION_FORMULAS) == set(POSITIONS)
    assert set(WEIGHT_FORMULAS) == set(QUERY_WEIGHTS)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 9])
def test_same_keeps_the_map(axes, kernel_size):
    mixer, x = layer(axes, kernel_size=kernel_size), example(axes)
    assert mixer(x).shape == x.shape


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_strides_double_the_channels_and_the_heads(axes):
    mixer, x = layer(axes, stride=2), example(axes)
    assert mixer(x).shape == (2, *[-(-n // 2) for n in x.shape[1:-1]], 24)
    assert mixer.num_heads == 6
    assert mixer.project.query.shape == (2, 6, 4)


@pytest.mark.parametrize("kernel_size", [2, 3, 5])
@torch.no_grad()
def test_strided_is_every_second_window(kernel_size):
    mixer, x = layer(stride=2, out_dim=12, kernel_size=kernel_size), example()
    dense = layer(kernel_size=kernel_size)
    dense.load_state_dict(mixer.state_dict())
    close(mixer(x), dense(x)[:, ::2, ::2])


@torch.no_grad()
def test_kernel_one_is_two_projections():
    mixer, x = layer(kernel_size=1, num_queries=1, query_weight="none", bias=True), example()
    close(mixer(x), mixer.out(mixer.project.value(x)))


@torch.no_grad()
def test_without_query_and_bias_it_is_average_pooling():
    mixer, x = layer(query_weight="avg", position="none"), example()
    mixer.project.query.zero_()
    value = mixer.project.value(x).movedim(-1, 1)
    mean = F.avg_pool2d(value, 3, stride=1, padding=1, count_include_pad=False).movedim(1, -1)
    close(mixer(x), mixer.out(mean))


@torch.no_grad()
def test_without_query_and_bias_the_weights_are_a_depthwise_convolution():
    mixer, x = layer(position="none"), example()
    mixer.project.query.zero_()
    value = mixer.project.value(x).movedim(-1, 1)
    # (k, k, L, h) -> one kernel per channel; channels run over (d, h)
    kernel = mixer.project.query_weight.table.sum(-2).movedim(-1, 0).repeat(4, 1, 1).unsqueeze(1)
    count = F.conv2d(torch.ones_like(value[:, :1]), torch.ones(1, 1, 3, 3, dtype=x.dtype), padding=1)
    convolved = F.conv2d(value, kernel, padding=1, groups=12) / count
    close(mixer(x), mixer.out(convolved.movedim(1, -1)))


@torch.no_grad()
def test_one_huge_bias_shifts_the_map():
    mixer, x = layer(query_weight="avg"), example()
    mixer.project.position.table.zero_()
    mixer.project.position.table[0, 2] = 1e4  # the tap above and to the right
    shifted = F.pad(mixer.project.value(x), (0, 0, 0, 1, 1, 0))[:, :-1, 1:]
    inside = (slice(None), slice(1, None), slice(0, -1))
    close(mixer(x)[inside], mixer.out(shifted)[inside])


@torch.no_grad()
def test_interior_moves_with_the_map():
    mixer, x = layer(), torch.randn(1, 9, 9, 12, dtype=torch.float64)
    moved = mixer(x.roll((1, 2), (1, 2)))[:, 3:-2, 4:-2]
    close(moved, mixer(x)[:, 2:-3, 2:-4])


@torch.no_grad()
def test_linear_in_the_query_weights():
    mixer, x = layer(), example()
    table, first = mixer.project.query_weight.table, mixer(x)
    before, more = table.clone(), torch.randn_like(table)
    table.copy_(more)
    second = mixer(x)
    table.copy_(2 * before - 3 * more)
    close(mixer(x), 2 * first - 3 * second)


@torch.no_grad()
def test_a_constant_in_the_position_bias_cancels():
    mixer, x = layer(), example()
    before = mixer(x)
    mixer.project.position.table += 1e4 * torch.randn(2, 3, dtype=torch.float64)
    # fp64 keeps 1e4 to 1e-12
    torch.testing.assert_close(mixer(x), before, rtol=0, atol=1e-9)


@pytest.mark.parametrize("position", POSITIONS)
@torch.no_grad()
def test_no_mode_depends_on_the_batch(position):
    mixer, x = layer(position=position), example(batch=3)
    close(mixer(x)[1:2], mixer(x[1:2]))


@torch.no_grad()
def test_normalised_query_ignores_its_length():
    mixer, x = layer(), example()
    before = mixer(x)
    mixer.project.query *= 7
    torch.testing.assert_close(mixer(x), before, rtol=0, atol=1e-5)  # the norm's 1e-6
    free = layer(normalize_query=False)
    free_before = free(x)
    free.project.query *= 7
    assert not torch.allclose(free(x), free_before, atol=1e-3)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "arguments", [{}, {"stride": 2, "kernel_size": 4}, {"dilation": 2, "kernel_size": 9}]
)
@torch.no_grad()
def test_attention_map_times_the_values_is_the_output(axes, arguments):
    mixer, x = layer(axes, **arguments), example(axes)
    attention = mixer.attention_map(x)
    out_space = mixer(x).shape[1:-1]
    assert attention.shape == (2, *out_space, 2, mixer.num_heads, *mixer.kernel_size)
    close(attention.flatten(-axes).sum(-1), torch.ones(2, *out_space, 2, mixer.num_heads, dtype=x.dtype))
    _, value, _, weight = mixer.attention_inputs(x)
    weighted = attention * weight.movedim((-2, -1), (0, 1))
    margins = [m for k, e in zip(reversed(mixer.kernel_size), reversed(mixer.dilation), strict=True)
               for m in (e * (k - 1) // 2, e * k)]  # fmt: skip
    padded = F.pad(value, [0, 0, 0, 0, *margins])
    out = 0
    for tap in torch.ones(mixer.kernel_size).nonzero().tolist():
        index = tuple(
            torch.arange(o) * s + t * e
            for o, s, t, e in zip(out_space, mixer.stride, tap, mixer.dilation, strict=True)
        )
        at_tap = padded[(slice(None), *torch.meshgrid(*index, indexing="ij"))]
        out = out + weighted[(..., *tap)].sum(-2).unsqueeze(-1) * at_tap
    close(mixer.out(out.transpose(-1, -2).flatten(-2)), mixer(x))


def test_attention_map_is_zero_where_a_window_has_no_position():
    mixer = layer(1, kernel_size=2, dilation=2)
    assert not mixer.attention_map(torch.randn(1, 1, 12, dtype=torch.float64)).any()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("query_weight", ["normal", "elementwise", "avg", "none"])
@pytest.mark.parametrize("bias", [False, True])
def test_fuse_changes_nothing_but_the_parameters(position, query_weight, bias):
    mixer, x = layer(position=position, query_weight=query_weight, bias=bias), example()
    expected = mixer(x).detach()
    fused = mixer.fuse()
    assert fused is mixer
    close(fused(x).detach(), expected)
    assert {n for n, p in fused.named_parameters() if p.requires_grad} == (
        {"out.weight", "out.bias"} if bias else {"out.weight"}
    )
    assert not [n for n in fused.state_dict() if "key" in n or n.endswith(".query") or "value" in n]
    close(fused.fuse()(x).detach(), expected)


def test_scores_and_values_share_one_buffer_with_heads_fastest():
    mixer, x = layer(num_queries=3), example()
    scores, value, _, _ = mixer.attention_inputs(x)
    pixel = 12 + 3 * 3
    assert value.shape == (2, 5, 8, 3, 4)
    assert value.stride() == (5 * 8 * pixel, 8 * pixel, pixel, 1, 3)
    assert scores.shape == (2, 5, 8, 3, 3)
    assert scores.stride() == (5 * 8 * pixel, 8 * pixel, pixel, 3, 1)
    assert scores.data_ptr() == value.data_ptr() + 12 * value.element_size()


def test_the_score_product_is_formed_once_however_large_the_batch():
    from torch.utils.flop_counter import FlopCounterMode

    mixer, counts = layer(), {}
    for batch in (1, 5):
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            mixer(example(batch=batch))
        counts[batch] = counter.get_flop_counts()["Global"]
    product = {batch: sum(v for k, v in c.items() if "bmm" in str(k)) for batch, c in counts.items()}
    assert product[1] == product[5] == 2 * 12 * 12 * 2


def test_the_op_sees_what_the_layer_was_given(monkeypatch):
    mixer, x, seen = layer(stride=2, dilation=(1, 2), backend="reference"), example(), {}

    def spy(*inputs, **window):
        seen.update(window)
        return packed_learned_query_attention(*inputs, **window)

    monkeypatch.setattr("qna.mixers.learned_query.windows.packed_learned_query_attention", spy)
    mixer(x)
    assert seen == {"stride": (2, 2), "dilation": (1, 2), "factor": (1, 1), "backend": "reference"}


def test_initial_values():
    torch.manual_seed(0)
    mixer = qna.QnA2d(256, num_heads=16, kernel_size=3, bias=True)
    project = mixer.project
    lecun = 256**-0.5
    for weight in (project.key, project.value.weight, mixer.out.weight):
        assert weight.std().item() == pytest.approx(lecun, rel=0.02)  # 65536 draws: 0.3 %
        assert weight.abs().max() <= 2 * lecun / 0.8796
    assert project.query.std().item() == pytest.approx(0.8796 * 0.25, rel=0.1)  # 512 draws: 3 %
    assert project.query.abs().max() <= 0.5
    assert project.query_weight.table.std().item() == pytest.approx(0.02, rel=0.2)  # 288 draws: 4 %
    assert not project.position.table.any()
    assert not project.value.bias.any()
    assert not mixer.out.bias.any()


def test_decay_exempts_the_tables_only():
    mixer = layer(bias=True)
    assert mixer.no_weight_decay() == {"project.position.table", "project.query_weight.table"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"out_dim": 10},
            r"out_dim must be a multiple of the head dim 4 \(dim // num_heads\), got 10; try 8",
        ),
        ({"kernel_size": 0}, "kernel_size must be an integer of at least 1"),
        ({"kernel_size": (3, 3, 3)}, "one for each of 2 axes"),
        ({"stride": -1}, "stride must be an integer of at least 1"),
        ({"num_queries": 0}, "num_queries must be an integer of at least 1, got 0"),
        ({"position": "relativ"}, "unknown position 'relativ'; did you mean 'relative'"),
        ({"query_weight": "normals"}, "unknown query_weight 'normals'; did you mean 'normal'"),
        ({"num_heads": 0}, "num_heads must be an integer of at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        qna.QnA2d(12, **{"num_heads": 3, "kernel_size": 3, **arguments})
