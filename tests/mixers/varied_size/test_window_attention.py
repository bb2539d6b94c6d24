"""Varied-size windows: equal to a loop, to the authors' outputs, and to plain windows at rest."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from qna._core.errors import InvalidInput, UnknownName
from qna.mixers import VariedSizeWindowAttention2d, WindowAttention2d


def by_rule(shape, phase):
    """Values that no two places share, from a formula."""
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(1.7 * n + phase).view(shape)


def mixer_by_rule(dim=8, **options):
    options = {"num_heads": 2, "window_size": 3, **options}
    mixer = VariedSizeWindowAttention2d(dim, **options).double()
    with torch.no_grad():
        for phase, parameter in enumerate(mixer.parameters()):
            parameter.copy_(by_rule(parameter.shape, phase))
    return mixer


def read(image, row, column):
    """Bilinear, an image (H, W, C) that is zero outside."""
    total = torch.zeros(image.shape[-1], dtype=image.dtype)
    for r in (int(row // 1), int(row // 1) + 1):
        for c in (int(column // 1), int(column // 1) + 1):
            if 0 <= r < image.shape[0] and 0 <= c < image.shape[1]:
                total += (1 - abs(row - r)) * (1 - abs(column - c)) * image[r, c]
    return total


def looped(mixer, x):
    """The definition, window by window, head by head, slot by slot."""
    rows, columns = mixer.window_size
    batch, height, width, _ = x.shape
    down, across = -(-height // rows), -(-width // columns)
    centred = mixer.padding == "centred"
    top = (down * rows - height) // 2 if centred else 0
    left = (across * columns - width) // 2 if centred else 0
    query, key, value = mixer.qkv(x).chunk(3, -1)
    d = mixer.out_dim // mixer.num_heads
    slots = [(a, b) for a in range(rows) for b in range(columns)]
    result = torch.zeros(batch, height, width, mixer.out_dim, dtype=x.dtype)
    for image in range(batch):
        for i in range(down):
            for j in range(across):
                at = [(i * rows + a - top, j * columns + b - left) for a, b in slots]
                inside = [(r, c) for r, c in at if 0 <= r < height and 0 <= c < width]
                mean = torch.stack([x[image, r, c] for r, c in inside]).sum(0) / len(slots)
                mean = torch.where(mean > 0, mean, 0.01 * mean)
                scale, offset = mixer.scales(mean).tolist(), mixer.offsets(mean).tolist()
                for h in range(mixer.num_heads):
                    part = slice(h * d, h * d + d)
                    places = []
                    for (r, c), (a, b) in zip(at, slots, strict=True):
                        move_x = offset[2 * h] * (across * columns - 1) / 2 / max(1, width // columns)
                        move_y = offset[2 * h + 1] * (down * rows - 1) / 2 / max(1, height // rows)
                        places.append((
                            r + (a - (rows - 1) / 2) * scale[2 * h + 1] + move_y,
                            c + (b - (columns - 1) / 2) * scale[2 * h] + move_x,
                        ))  # fmt: skip
                    keys = torch.stack([read(key[image, ..., part], *p) for p in places])
                    values = torch.stack([read(value[image, ..., part], *p) for p in places])
                    for (r, c), (a, b) in zip(at, slots, strict=True):
                        if (r, c) in inside:
                            bias = torch.stack(
                                [
                                    mixer.position_table[a - p + rows - 1, b - q + columns - 1, h]
                                    for p, q in slots
                                ]
                            )
                            # the scale is that of the input's channels
                            logits = keys @ query[image, r, c, part] / (mixer.dim // mixer.num_heads) ** 0.5
                            result[image, r, c, part] = (logits + bias).softmax(0) @ values
    return mixer.out(result)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((6, 9), {}),
        ((5, 7), {"window_size": (3, 4), "out_dim": 12}),
        ((7, 4), {"padding": "centred"}),
        ((2, 11), {"padding": "centred", "window_size": 4, "num_heads": 4, "bias": False}),
        ((1, 1), {}),
    ],
    ids=str,
)
@torch.no_grad()
def test_equals_a_loop(size, options):
    mixer, x = mixer_by_rule(**options), by_rule((2, *size, 8), 0.3)
    expected = looped(mixer, x)
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-12 * expected.abs().max().item())


# padding, size, channels -> the authors' two modules in float64, one position of the second image
GOLDEN = {
    ("end", (14, 14), 8): [-2.024867576882449, -2.834672359491492, -0.5280070344034994, 3.472054736275014],
    ("end", (9, 16), 12): [-0.4976959855940551, -6.1415063971500246, 0.3288171533985452, 6.429208869450906],
    ("centred", (16, 16), 8): [-5.852915489590697, -5.195729011913147, 0.8837166474002613, 7.277880677136008],
    ("centred", (9, 12), 4): [3.9301328400213316, 3.1560620581349776, 2.1001777595542226, 2.3311411527561177],
}


@pytest.mark.parametrize(("padding", "size", "out_dim"), GOLDEN, ids=str)
@torch.no_grad()
def test_golden_outputs_of_the_authors(padding, size, out_dim):
    mixer = mixer_by_rule(window_size=7, padding=padding, out_dim=out_dim)
    y = mixer(by_rule((2, *size, 8), 0.3))
    expected = torch.tensor(GOLDEN[padding, size, out_dim], dtype=torch.float64)
    torch.testing.assert_close(y[1, -2, -1, :4], expected, rtol=0, atol=1e-9 * y.std().item())


def plain(mixer, **options):
    """Attention inside windows with the weights of a varied-size one."""
    window = WindowAttention2d(
        mixer.dim, num_heads=mixer.num_heads, window_size=mixer.window_size, bias=True, **options
    ).double()
    state = {n: t for n, t in mixer.state_dict().items() if n.split(".")[0] not in ("scales", "offsets")}
    window.load_state_dict({"qkv.bias": torch.zeros(3 * mixer.dim), **state})
    return window


@pytest.mark.parametrize(
    ("size", "bias", "options"),
    [
        ((6, 9), True, {"border": "mask"}),
        # zeros outside are slots here too; only a bias would make them other keys there
        ((5, 7), False, {"border": "zero"}),
        ((2, 10), False, {"border": "zero"}),
    ],
)
@torch.no_grad()
def test_begins_as_plain_windows(size, bias, options):
    torch.manual_seed(0)
    mixer = VariedSizeWindowAttention2d(8, num_heads=2, window_size=3, bias=bias, zero_init=True).double()
    x = torch.randn(2, *size, 8, dtype=torch.float64)
    y = mixer(x)
    torch.testing.assert_close(y, plain(mixer, **options)(x), rtol=0, atol=1e-13 * y.abs().max().item())
    # not so where torch's own initial values stay
    torch.manual_seed(0)
    other = VariedSizeWindowAttention2d(8, num_heads=2, window_size=3, bias=bias).double()
    assert torch.equal(other.qkv.weight, mixer.qkv.weight)
    assert (other(x) - y).abs().max() > 1e-2 * y.std()


@torch.no_grad()
def test_windows_move_and_grow_by_their_offset_and_scale():
    mixer = VariedSizeWindowAttention2d(4, num_heads=2, window_size=3, zero_init=True)
    x = torch.randn(1, 9, 15, 4)
    at_rest = mixer.places(x)
    rows, columns = torch.arange(9.0).view(3, 3), torch.arange(15.0).view(5, 3)
    assert torch.equal(at_rest[..., 0], rows.view(3, 1, 3, 1).expand(1, 2, 3, 5, 3, 3))
    assert torch.equal(at_rest[..., 1], columns.view(5, 1, 3).expand(1, 2, 3, 5, 3, 3))
    # of the second head: wider by map over window, so that the middle window spans the map
    mixer.scales.bias[2], mixer.scales.bias[3] = 15 / 3 - 1, 9 / 3 - 1
    grown = mixer.places(x)
    assert torch.equal(grown[:, 0], at_rest[:, 0])
    middle = grown[0, 1, 1, 2]
    assert middle[:, 0, 0].tolist() == [1, 4, 7]
    assert middle[0, :, 1].tolist() == [2, 7, 12]
    # an offset is across, then down: half of the map over its windows
    mixer.offsets.bias[0], mixer.offsets.bias[1] = 1, 2
    moved = mixer.places(x)[0, 0] - at_rest[0, 0]
    torch.testing.assert_close(moved[..., 1], torch.full((3, 5, 3, 3), 14 / 2 / 5))
    torch.testing.assert_close(moved[..., 0], torch.full((3, 5, 3, 3), 2 * 8 / 2 / 3))


@torch.no_grad()
def test_a_map_that_is_turned_gives_what_is_turned():
    """Both axes are treated alike, also where the map is no square: down and across change places."""
    mixer, turned = mixer_by_rule(window_size=(3, 4)), mixer_by_rule(window_size=(4, 3))
    state = dict(mixer.state_dict())
    state["position_table"] = state["position_table"].transpose(0, 1)
    for name in ("scales.weight", "scales.bias", "offsets.weight", "offsets.bias"):
        state[name] = state[name].unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    turned.load_state_dict(state)
    x = by_rule((2, 6, 13, 8), 0.3)
    y = mixer(x)
    torch.testing.assert_close(turned(x.transpose(1, 2)).transpose(1, 2), y, rtol=0, atol=1e-12)


@torch.no_grad()
def test_centred_padding_is_that_of_a_map_padded_by_hand():
    centred = mixer_by_rule(padding="centred", bias=False)
    # an offset's unit is of the windows that fit into the map, of which padding makes more
    for parameter in centred.offsets.parameters():
        parameter.zero_()
    end = mixer_by_rule(padding="end", bias=False)
    end.load_state_dict(centred.state_dict())
    x = by_rule((2, 7, 10, 8), 0.3)
    by_hand = end(F.pad(x, (0, 0, 1, 1, 1, 1)))[:, 1:-1, 1:-1]
    # some fifty terms and their exponentials, in double
    torch.testing.assert_close(centred(x), by_hand, rtol=0, atol=1e-13 * by_hand.abs().max().item())
    assert (end(x) - by_hand).abs().max() > 1e-2


def test_gradients():
    """Also through where is read: places of this rule lie between positions, where reading is smooth."""
    mixer = mixer_by_rule(4, window_size=2)
    x = by_rule((2, 3, 4, 4), 0.1).requires_grad_()
    places = mixer.places(x)
    assert (places - places.round()).abs().min() > 1e-4
    names, weights = zip(*mixer.named_parameters(), strict=True)

    def call(x, *values):
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x, *weights), fast_mode=True)


@pytest.mark.parametrize("padding", ["end", "centred"])
@torch.no_grad()
def test_rows_of_one_head_times_values_are_the_layer(padding):
    mixer, x = mixer_by_rule(num_heads=1, padding=padding), by_rule((2, 5, 7, 8), 0.3)
    rows = mixer.attention_rows(x)
    values = mixer.qkv(x).chunk(3, -1)[2].flatten(1, 2)
    y = mixer.out(rows.dense(35) @ values)
    torch.testing.assert_close(y, mixer(x).flatten(1, 2), rtol=0, atol=1e-12)
    torch.testing.assert_close(mixer.attention_received(x).flatten(1), rows.dense(35).sum(1))
    # something is read outside the map, which is nobody's
    assert rows.shares.sum(-1).max() < 1 + 1e-12
    assert rows.shares.sum(-1).min() < 0.99


@torch.no_grad()
def test_shares_are_of_slots():
    mixer, x = mixer_by_rule(window_size=(2, 4)), by_rule((2, 5, 7, 8), 0.3)
    shares = mixer.attention_map(x)
    assert shares.shape == (2, 5, 7, 2, 2, 4)
    torch.testing.assert_close(shares.sum((-1, -2)), torch.ones(2, 5, 7, 2, dtype=torch.float64))
    plain_map = VariedSizeWindowAttention2d(8, num_heads=2, window_size=(2, 4), zero_init=True).double()
    received = plain_map.attention_received(by_rule((1, 4, 8, 8), 0.3))
    torch.testing.assert_close(received.mean(), torch.ones((), dtype=torch.float64))


def test_multiply_adds_are_those_of_the_flop_counter():
    mixer, size = mixer_by_rule(out_dim=12), (2, 5, 7, 8)
    with FlopCounterMode(display=False) as counter:
        mixer(by_rule(size, 0.3))
    assert counter.get_total_flops() == 2 * mixer.macs(size)


class Held(TorchDispatchMode):
    """Elements of all storages that are alive at once, at most; those of `known` tensors not counted."""

    def __init__(self, *known):
        super().__init__()
        self.seen = {t.untyped_storage()._cdata for t in known}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, tuple | list) else [out]
        for tensor in (t for t in made if isinstance(t, torch.Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.seen:
                self.seen.add(storage._cdata)
                elements = storage.nbytes() // tensor.element_size()
                self.now += elements
                weakref.finalize(storage, self._free, storage._cdata, elements)
        self.peak = max(self.peak, self.now)
        return out

    def _free(self, key, elements):
        self.seen.discard(key)
        self.now -= elements


@torch.no_grad()
def test_held_is_what_lives_at_the_worst_moment():
    mixer = mixer_by_rule(32, num_heads=2, window_size=4)
    # of one image too, which is not copied by itself
    for size in ((2, 16, 20, 32), (1, 16, 20, 32)):
        x = by_rule(size, 0.3)
        with Held(x, *mixer.parameters()) as held:
            mixer(x)
        assert held.peak == mixer.held(size)


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"padding": "start"}, UnknownName, "unknown padding 'start'"),
        ({"out_dim": 9}, InvalidInput, "num_heads must divide out_dim, got num_heads=2 and out_dim=9"),
        (
            {"window_size": 0},
            InvalidInput,
            "VariedSizeWindowAttention2d: window_size must be an integer of at least 1",
        ),
    ],
)
def test_what_is_refused(options, kind, told):
    with pytest.raises(kind, match=told):
        VariedSizeWindowAttention2d(8, **{"num_heads": 2, "window_size": 3, **options})
