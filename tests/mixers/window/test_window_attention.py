"""WindowAttention2d against a loop over its windows, on maps that the window divides and on others."""

import pytest
import torch

import qna
from qna.mixers import FullAttention2d, WindowAttention2d

SIZES = [(6, 9), (5, 7), (1, 1), (2, 10), (3, 3), (7, 6)]


def mixer_and_map(size, window, dim=8, heads=2, bias=False):
    torch.manual_seed(0)
    mixer = qna.WindowAttention2d(dim, num_heads=heads, window_size=window, bias=bias).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64))
    return mixer, torch.randn(2, *size, dim, dtype=torch.float64)


def loop_output(mixer, x):
    """Self-attention of each window's own positions, no padding anywhere; also the shares per position."""
    (rows, columns), h = mixer.window_size, mixer.num_heads
    out, maps = torch.empty_like(x), {}
    for top in range(0, x.shape[1], rows):
        for left in range(0, x.shape[2], columns):
            window = x[:, top : top + rows, left : left + columns]
            places = [(i, j) for i in range(window.shape[1]) for j in range(window.shape[2])]
            q, k, v = mixer.qkv(window.flatten(1, 2)).unflatten(-1, (3, h, -1)).unbind(2)
            for a, (i, j) in enumerate(places):
                bias = torch.stack(
                    [mixer.position_table[i - y + rows - 1, j - z + columns - 1] for y, z in places]
                )
                logits = torch.einsum("bhd,bnhd->bnh", q[:, a], k) / q.shape[-1] ** 0.5 + bias
                shares = logits.softmax(1)
                maps[top + i, left + j] = shares
                out[:, top + i, left + j] = torch.einsum("bnh,bnhd->bhd", shares, v).flatten(1)
    return mixer.out(out), maps


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [3, (2, 3), 8, 1])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_equals_the_loop(size, window, bias):
    mixer, x = mixer_and_map(size, window, bias=bias)
    expected, _ = loop_output(mixer, x)
    torch.testing.assert_close(mixer(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_attention_map(size):
    mixer, x = mixer_and_map(size, (2, 3))
    attention = mixer.attention_map(x)
    rows, columns = min(2, size[0]), min(3, size[1])
    assert attention.shape == (2, *size, 2, rows, columns)
    torch.testing.assert_close(attention.sum((-1, -2)), torch.ones(2, *size, 2, dtype=torch.float64))
    _, maps = loop_output(mixer, x)
    for (i, j), shares in maps.items():
        got = attention[:, i, j].flatten(2)
        kept = got[got != 0].view(2, 2, -1)  # a share inside the map is never exactly 0 here
        torch.testing.assert_close(kept, shares.transpose(1, 2), rtol=1e-10, atol=1e-10)


def test_gradients():
    mixer, x = mixer_and_map((3, 5), 2, dim=4)
    assert torch.autograd.gradcheck(mixer, (x[:1].requires_grad_(),))


def test_padding_costs_no_copy_of_the_mask_per_image():
    mixer, x = mixer_and_map((5, 7), 3)
    *_, mask, _ = mixer._windows(x.expand(2, -1, -1, -1))
    assert mask.shape == (1, 2 * 3 * 2, 9, 9)  # windows * heads, without the batch


@pytest.mark.parametrize("space", [(6, 6), (5, 7)])
def test_inference_does_not_form_the_scores(space):
    mixer, x = mixer_and_map(space, 3)
    with torch.no_grad(), torch.profiler.profile() as profile:
        mixer(x)
    names = {event.key for event in profile.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names
    assert "aten::softmax" not in names


def test_decay_exempts_the_position_table():
    mixer, _ = mixer_and_map((3, 3), 3)
    assert mixer.no_weight_decay() == {"position_table"}


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="window_size must be an integer of at least 1"):
        qna.WindowAttention2d(8, num_heads=2, window_size=0)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own forward mode uses it
@pytest.mark.parametrize("size", [(4, 6), (5, 7)])  # tiled, and padded
def test_forward_mode_derivative(size):
    torch.manual_seed(0)
    mixer = qna.WindowAttention2d(8, num_heads=2, window_size=(2, 3)).double()
    torch.nn.init.normal_(mixer.position_table)
    x, direction = torch.randn(2, 2, *size, 8, dtype=torch.float64).unbind(0)
    _, derivative = torch.func.jvp(mixer, (x,), (direction,))
    step = 1e-5  # the error of the difference is of the order of its square
    difference = (mixer(x + step * direction) - mixer(x - step * direction)) / (2 * step)
    torch.testing.assert_close(derivative, difference, rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_onnx_where_one_window_covers_the_map(tmp_path):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason="qna[export] brings it")
    runtime = pytest.importorskip("onnxruntime", reason="qna[export] brings it")
    mixer, x = mixer_and_map((4, 4), 4)
    mixer, x = mixer.float(), x.float()
    batch = ({0: torch.export.Dim.DYNAMIC},)
    torch.onnx.export(mixer, (x,), dynamo=True, dynamic_shapes=batch, verbose=False).save(tmp_path / "m.onnx")
    session = runtime.InferenceSession(tmp_path / "m.onnx")
    more = torch.randn(5, 4, 4, 8)
    (found,) = session.run(None, {session.get_inputs()[0].name: more.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), mixer(more).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recorded", [(2, 11, 13), (2, 12, 16)], ids=str)
def test_a_graph_recorded_for_open_sizes_takes_maps_that_fill_windows_and_others(recorded):
    mixer = qna.WindowAttention2d(8, num_heads=2, window_size=4).eval()
    sizes = (dict.fromkeys(range(3), torch.export.Dim.DYNAMIC),)
    graph = torch.export.export(mixer, (torch.randn(*recorded, 8),), dynamic_shapes=sizes).module()
    for size in ((1, 12, 16), (3, 11, 13), (2, 9, 20)):
        x = torch.randn(*size, 8)
        torch.testing.assert_close(graph(x), mixer(x))


@torch.no_grad()
@pytest.mark.parametrize("border", ["mask", "zero"])
@pytest.mark.parametrize("space", [(6, 9), (5, 7), (2, 3)])
def test_without_position_bias_it_is_a_table_of_zeros(border, space):
    torch.manual_seed(0)
    options = {"num_heads": 2, "window_size": 3, "bias": True, "border": border}
    plain = WindowAttention2d(8, position_bias=False, **options).double()
    table = WindowAttention2d(8, **options).double()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    table.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, *space, 8).double()
    torch.testing.assert_close(plain(x), table(x), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(plain.attention_map(x), table.attention_map(x), rtol=1e-11, atol=1e-12)
    assert plain.no_weight_decay() == set()
    assert "position_table" not in plain.state_dict()


@torch.no_grad()
@pytest.mark.parametrize("border", ["mask", "zero"])
def test_a_window_of_the_map_without_position_bias_is_full_attention(border):
    torch.manual_seed(0)
    window = WindowAttention2d(
        8, num_heads=2, window_size=(4, 6), bias=True, border=border, position_bias=False
    ).double()
    full = FullAttention2d(8, num_heads=2, bias=True).double()
    full.load_state_dict(window.state_dict())
    x = torch.randn(2, 4, 6, 8).double()
    torch.testing.assert_close(window(x), full(x), rtol=1e-11, atol=1e-12)
