"""Halo attention: equal to timm's, to a dense oracle at both borders, and its limits."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from qna._core.errors import InvalidInput
from qna._core.third_party import import_vision
from qna.mixers import FullAttention2d, HaloAttention2d, WindowAttention2d
from qna.ops import neighborhood_attention
from tests.mixers.focal.test_modulation import Held


def random_mixer(dim=8, *, seed=0, **options):
    torch.manual_seed(seed)
    mixer = HaloAttention2d(dim, **{"num_heads": 2, "block_size": 4, "halo_size": 1, **options}).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(std=0.7)
    return mixer


def a_map(*size, dim=8, batch=2):
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, *size, dim, generator=g, dtype=torch.float64)


def timms(mixer):
    """timm's module, maps (B, C, H, W), with the same weights."""
    module = import_vision("timm.layers.halo_attn", extra="models", purpose="a comparison")
    theirs = module.HaloAttn(
        mixer.dim,
        mixer.out_dim,
        stride=mixer.stride,
        num_heads=mixer.num_heads,
        dim_head=mixer.key_dim // mixer.num_heads,
        block_size=mixer.block_size,
        halo_size=mixer.halo_size,
        qkv_bias=mixer.q.bias is not None,
        scale_pos_embed=mixer.scale_embeddings,
    ).double()
    names = {"row_embedding": "pos_embed.height_rel", "column_embedding": "pos_embed.width_rel"}
    theirs.load_state_dict(
        {
            names.get(name, name): t[:, :, None, None] if name.endswith("weight") else t
            for name, t in mixer.state_dict().items()
        }
    )
    return theirs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"stride": 2, "scale_embeddings": True, "halo_size": 2},
        {"out_dim": 20, "key_dim": 4, "bias": True},
        {"halo_size": 0, "block_size": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(8, 8), (4, 12)])
@torch.no_grad()
def test_equals_timms(options, size):
    mixer, x = random_mixer(tables="window", **options), a_map(*size)
    expected = timms(mixer)(x.movedim(-1, 1)).movedim(1, -1)
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-12 * expected.std().item())


def dense(mixer, x):
    """One query at a time over its window, from the definition; offsets are positions of the map."""
    b, h, s = mixer.block_size, mixer.halo_size, mixer.stride
    query = mixer.q(x).unflatten(-1, (mixer.num_heads, -1))
    pairs = mixer.kv(x).unflatten(-1, (mixer.num_heads, -1))
    d = query.shape[-1]
    y = torch.zeros(len(x), -(-x.shape[1] // s), -(-x.shape[2] // s), mixer.out_dim, dtype=x.dtype)
    for i in range(0, x.shape[1], s):
        for j in range(0, x.shape[2], s):
            logits, values = [], []
            for a in range(i // b * b - h, i // b * b + b + h):
                for c in range(j // b * b - h, j // b * b + b + h):
                    inside = 0 <= a < x.shape[1] and 0 <= c < x.shape[2]
                    if not inside and mixer.border == "mask":
                        continue
                    pair = pairs[:, a, c] if inside else torch.zeros_like(pairs[:, 0, 0])
                    relative = (
                        mixer.row_embedding[a - i + b + h - 1] + mixer.column_embedding[c - j + b + h - 1]
                    )
                    q = query[:, i, j]
                    content = (q * pair[..., :d]).sum(-1) / d**0.5
                    logits.append(content + q @ relative * (d**-0.5 if mixer.scale_embeddings else 1))
                    values.append(pair[..., d:])
            shares = torch.stack(logits).softmax(0)
            y[:, i // s, j // s] = torch.einsum("kbh,kbhv->bhv", shares, torch.stack(values)).flatten(1)
    return y


@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (5, 7)),
        ({"stride": 2}, (7, 4)),
        ({"block_size": 3, "halo_size": 2, "scale_embeddings": True}, (4, 5)),
        ({"block_size": 6, "stride": 3, "out_dim": 6}, (7, 8)),
        ({}, (1, 1)),
    ],
    ids=str,
)
@torch.no_grad()
def test_equals_the_dense_oracle_at_any_size(border, options, size):
    mixer, x = random_mixer(border=border, **options), a_map(*size)
    torch.testing.assert_close(mixer(x), dense(mixer, x), rtol=1e-11, atol=1e-11)


@torch.no_grad()
def test_borders_differ_where_windows_hang_over_the_map():
    zero, mask = random_mixer(), random_mixer(border="mask")
    x = a_map(12, 12)
    difference = (zero(x) - mask(x)).abs().amax((0, 3))
    assert difference[4:8, 4:8].max() < 1e-12
    difference[4:8, 4:8] = 1
    assert difference.min() > 1e-5


@pytest.mark.parametrize("stride", [2, 4])
@torch.no_grad()
def test_a_strided_layer_is_the_whole_one_at_the_positions_kept(stride):
    strided, whole = random_mixer(stride=stride), random_mixer()
    x = a_map(9, 8)
    torch.testing.assert_close(strided(x), whole(x)[:, ::stride, ::stride], rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_timms_table_holds_rows_that_are_never_used():
    """The first 2 h: no key of a window lies so far before a query of its block."""
    window, offsets = random_mixer(tables="window"), random_mixer()
    offsets.load_state_dict(
        {n: t[2:] if "embedding" in n else t for n, t in window.state_dict().items()}
    )  # fmt: skip
    assert len(window.row_embedding) == 11
    assert len(offsets.row_embedding) == 9
    x = a_map(5, 7)
    assert torch.equal(window(x), offsets(x))
    with torch.enable_grad():
        window(x).sum().backward()
        offsets(x).square().sum().backward()
    used = window.row_embedding.grad.abs().sum(1) > 0
    assert used.tolist() == [False] * 2 + [True] * 9
    assert offsets.row_embedding.grad.abs().sum(1).all()


def without_embeddings(mixer):
    with torch.no_grad():
        mixer.row_embedding.zero_()
        mixer.column_embedding.zero_()
    return mixer


def same_weights(mixer, other):
    """Give a layer with one projection the weights of `mixer`, and an output projection that does nothing."""
    heads, c = mixer.num_heads, mixer.dim
    key, value = mixer.kv.weight.unflatten(0, (heads, 2, -1)).unbind(1)
    with torch.no_grad():
        other.qkv.weight.copy_(torch.cat([mixer.q.weight, key.flatten(0, 1), value.flatten(0, 1)]))
        other.out.weight.copy_(torch.eye(c))
    return other.double()


@torch.no_grad()
def test_one_block_without_a_halo_is_full_attention():
    mixer, x = without_embeddings(random_mixer(block_size=6, halo_size=0)), a_map(6, 6)
    full = same_weights(mixer, FullAttention2d(8, num_heads=2).double())
    torch.testing.assert_close(mixer(x), full(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("border", ["zero", "mask"])
@torch.no_grad()
def test_without_a_halo_it_is_attention_in_windows(border):
    mixer = without_embeddings(random_mixer(block_size=3, halo_size=0, border=border))
    windows = same_weights(
        mixer, WindowAttention2d(8, num_heads=2, window_size=3, border=border).double()
    )  # fmt: skip
    x = a_map(5, 7)
    torch.testing.assert_close(mixer(x), windows(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize(("block", "halo"), [(1, 2), (4, 1), (3, 2)])
@torch.no_grad()
def test_without_embeddings_it_is_neighborhood_attention_with_a_stride(border, block, halo):
    """Generalised neighbourhood attention of stride b and kernel b + 2 h; for b = 1 centred windows."""
    mixer = without_embeddings(random_mixer(block_size=block, halo_size=halo, border=border))
    x = a_map(13, 14)
    query = mixer.q(x).unflatten(-1, (2, -1))
    key, value = mixer.kv(x).unflatten(-1, (2, -1)).chunk(2, -1)
    expected = neighborhood_attention(
        query, key, value, kernel_size=block + 2 * halo, stride=block, border=border
    )
    torch.testing.assert_close(mixer(x), expected.flatten(-2), rtol=1e-12, atol=1e-12)
    # blocks in the middle need no border, so that clamping one changes nothing there
    clamped = neighborhood_attention(
        query, key, value, kernel_size=block + 2 * halo, stride=block, border="clamp"
    )
    whole_blocks = slice(4, 8) if block == 4 else slice(3, 9)
    middle = (slice(None), whole_blocks, whole_blocks)
    torch.testing.assert_close(mixer(x)[middle], clamped.flatten(-2)[middle], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("border", ["zero", "mask"])
def test_rows_are_where_it_looks(border):
    mixer, x = random_mixer(num_heads=1, border=border), a_map(5, 7)
    rows = mixer.attention_rows(x).dense(35)
    value = mixer.kv(x)[..., 8:].flatten(1, 2)
    torch.testing.assert_close(mixer(x).flatten(1, 2), rows @ value, rtol=1e-12, atol=1e-12)
    total = rows.sum(-1)
    if border == "mask":
        torch.testing.assert_close(total, torch.ones_like(total))
    else:
        assert total.max() < 1 + 1e-9
        assert total.min() < 0.5
    even = random_mixer(border=border)
    torch.nn.init.zeros_(even.q.weight)
    received = even.attention_received(x)
    torch.testing.assert_close(received, torch.ones_like(received))


@pytest.mark.parametrize("options", [{}, {"stride": 2, "border": "mask"}], ids=str)
def test_gradients(options):
    mixer, x = random_mixer(4, block_size=2, **options), a_map(3, 2, dim=4, batch=1).requires_grad_()
    names, weights = zip(*mixer.named_parameters(), strict=True)

    def call(x, *values):
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x, *weights), fast_mode=True)


def test_multiply_adds_are_those_of_the_flop_counter():
    mixer, size = (
        HaloAttention2d(8, num_heads=2, block_size=4, halo_size=1, out_dim=12, stride=2),
        (2, 8, 12, 8),
    )
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        mixer(torch.randn(size))
    assert counter.get_total_flops() == 2 * mixer.macs(size)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stride": 3}, "stride must divide block_size=4, got 3"),
        ({"halo_size": -1}, "halo_size must be an integer of at least 0, got -1"),
        ({"border": "clamp"}, "unknown border 'clamp'"),
        ({"tables": "rows"}, "unknown tables 'rows'"),
        ({"out_dim": 7}, "num_heads must divide dim, got num_heads=2 and dim=7"),
    ],
)
def test_wrong_arguments_are_named(options, says):
    with pytest.raises(InvalidInput, match=says):
        random_mixer(**options)


@pytest.mark.parametrize(
    "options", [{}, {"border": "mask"}, {"stride": 2, "out_dim": 16, "block_size": 8}], ids=str
)
@torch.no_grad()
def test_held_is_what_lives_at_the_worst_moment(options):
    mixer, x = random_mixer(**{"halo_size": 3, "block_size": 8, **options}), a_map(16, 24)
    with Held(x, *mixer.parameters()) as held:
        mixer(x)
    assert held.peak == pytest.approx(mixer.held(x.shape), rel=0.05)


@pytest.mark.parametrize("border", ["zero", "mask"])
def test_inference_does_not_form_the_scores(border):
    mixer, x = random_mixer(border=border).float(), a_map(6, 7).float()
    with torch.no_grad(), torch.profiler.profile() as profile:
        mixer(x)
    names = {event.key for event in profile.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names
    assert "aten::softmax" not in names


@torch.no_grad()
def test_a_graph_of_maps_that_blocks_do_not_fill_takes_those_that_they_do():
    mixer = random_mixer(stride=2, border="mask").eval()
    dynamic = (dict.fromkeys(range(3), torch.export.Dim.DYNAMIC),)
    run = torch.export.export(mixer, (a_map(13, 19),), dynamic_shapes=dynamic).module()
    for size in ((16, 20), (16, 21), (9, 20), (13, 23)):
        x = a_map(*size, batch=3)
        torch.testing.assert_close(run(x), mixer(x), rtol=1e-12, atol=1e-12)
