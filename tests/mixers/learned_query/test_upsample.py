"""QnAUpsample1d, 2d and 3d: what they can represent, and their definition by loops."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

import qna
from qna._core.errors import InvalidInput
from qna.export import export_onnx

LAYERS = {1: qna.QnAUpsample1d, 2: qna.QnAUpsample2d, 3: qna.QnAUpsample3d}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
# e^-10000 is 0 in every dtype, and finite as the kernels want it
NEVER = -1e4


def layer(axes=2, dim=12, seed=0, **arguments):
    """A layer in fp64 with random values in every parameter."""
    torch.manual_seed(seed)
    mixer = LAYERS[axes](dim, **{"num_heads": 3, **arguments}).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) * 0.5)
    return mixer


def example(*space, dim=12, batch=2, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *space, dim, generator=g, dtype=torch.float64)


def nearest(factor, kernel):
    """Weights (factor, kernel) of the taps of one axis, for each sub-pixel."""
    weights = torch.zeros(factor, kernel, dtype=torch.float64)
    weights[:, (kernel - 1) // 2] = 1
    return weights


def linear(factor, kernel):
    """The same: sub-pixel r lies (r + 1/2) / factor - 1/2 from the centre of its position."""
    middle = (kernel - 1) // 2
    taps = torch.arange(kernel, dtype=torch.float64) - middle
    places = (torch.arange(factor, dtype=torch.float64) + 0.5) / factor - 0.5
    return (1 - (taps - places[:, None]).abs()).clamp_min(0)


@torch.no_grad()
def interpolator(weights_of, axes, factor, kernel, **arguments):
    """A layer whose attention is an interpolation by biases alone, and which passes its channels on."""
    mixer = layer(axes, factor=factor, kernel_size=kernel, **arguments)
    mixer.project.key.zero_()
    mixer.project.value.weight.copy_(torch.eye(12))
    mixer.out.weight.copy_(torch.eye(12))
    each = [weights_of(f, k) for f, k in zip(mixer.factor, mixer.kernel_size, strict=True)]
    for place, taps in itertools.product(
        itertools.product(*map(range, mixer.factor)), itertools.product(*map(range, mixer.kernel_size))
    ):
        number = 0
        for r, f in zip(place, mixer.factor, strict=True):
            number = number * f + r
        weight = math.prod(float(w[r, t]) for w, r, t in zip(each, place, taps, strict=True))
        mixer.project.position.table[(*taps, number)] = math.log(weight) if weight else NEVER
    return mixer


def interpolate(x, factor, mode):
    scale = tuple(map(float, factor))
    return F.interpolate(x.movedim(-1, 1), scale_factor=scale, mode=mode).movedim(1, -1)


SHAPES = [
    (1, (1,), 2, 3),
    (1, (7,), 5, 3),
    (2, (1, 1), 2, 3),
    (2, (1, 5), 2, 3),
    (2, (4, 7), (2, 3), 3),
    (2, (5, 3), 4, (3, 5)),
    (3, (2, 3, 4), (2, 1, 3), 3),
]


@pytest.mark.parametrize(("axes", "space", "factor", "kernel"), SHAPES, ids=str)
@pytest.mark.parametrize("backend", ["reference", None])
@torch.no_grad()
def test_biases_alone_make_it_nearest_up_sampling(axes, space, factor, kernel, backend):
    mixer = interpolator(nearest, axes, factor, kernel, backend=backend)
    x = example(*space)
    # one share is 1 and the others are 0: no rounding
    assert torch.equal(mixer(x), interpolate(x, mixer.factor, "nearest"))


@pytest.mark.parametrize(("axes", "space", "factor", "kernel"), SHAPES, ids=str)
@pytest.mark.parametrize("backend", ["reference", None])
@torch.no_grad()
def test_biases_alone_make_it_linear_up_sampling_to_the_borders(axes, space, factor, kernel, backend):
    """Beyond the border torch repeats the last position; here what is inside is brought to a sum of 1.

    The two weights of an axis are those of the window's centre and of one neighbour. Where the neighbour is
    outside, to repeat the centre gives it both weights, and so does the division by its own.
    """
    mixer = interpolator(linear, axes, factor, kernel, backend=backend)
    x = example(*space)
    torch.testing.assert_close(mixer(x), interpolate(x, mixer.factor, LINEAR[axes]), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("axes", "factor", "kernel"), [(1, 3, 4), (2, (2, 3), (3, 2)), (3, (2, 1, 4), 3)], ids=str
)
@torch.no_grad()
def test_biases_begin_as_a_gaussian_around_each_sub_pixel(axes, factor, kernel):
    mixer = LAYERS[axes](6, num_heads=2, factor=factor, kernel_size=kernel)
    table = mixer.project.position.table
    for number, place in enumerate(itertools.product(*map(range, mixer.factor))):
        for taps in itertools.product(*map(range, mixer.kernel_size)):
            away = sum(
                (t - (k - 1) // 2 - ((r + 0.5) / f - 0.5)) ** 2
                for t, k, r, f in zip(taps, mixer.kernel_size, place, mixer.factor, strict=True)
            )
            assert table[(*taps, number)].tolist() == pytest.approx([-3 * away] * 2, rel=1e-6, abs=1e-6)


@torch.no_grad()
def test_a_map_decides_its_own_weights_where_scores_are_not_equal():
    mixer, x = interpolator(linear, 2, 2, 3), example(4, 5)
    mixer.project.key.normal_()
    assert (mixer(x) - interpolate(x, (2, 2), "bilinear")).abs().max() > 0.1


def loop_output(mixer, x):
    """The layer from its definition: keys are formed, one output and one head at a time."""
    p, h, (fy, fx), (ky, kx) = mixer.project, mixer.num_heads, mixer.factor, mixer.kernel_size
    d = mixer.out_dim // h
    query = p.query / (p.query.norm(dim=-1, keepdim=True) + 1e-6) / math.sqrt(d)
    B, H, W, _ = x.shape
    keys = torch.einsum("byxc,hdc->byxhd", x, p.key)
    values = p.value(x).unflatten(-1, (d, h))
    out = torch.zeros(B, H * fy, W * fx, d, h, dtype=x.dtype)
    for y, z, head in itertools.product(range(H * fy), range(W * fx), range(h)):
        r = y % fy * fx + z % fx
        logits, seen = [], []
        for ty, tx in itertools.product(range(ky), range(kx)):
            v, u = y // fy + ty - (ky - 1) // 2, z // fx + tx - (kx - 1) // 2
            if 0 <= v < H and 0 <= u < W:
                logits.append(keys[:, v, u, head] @ query[r, head] + p.position.table[ty, tx, r, head])
                seen.append(values[:, v, u, :, head])
        for share, value in zip(torch.stack(logits).softmax(0), seen, strict=True):
            out[:, y, z, :, head] += share[:, None] * value
    return mixer.out(out.flatten(-2))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"factor": (2, 3), "kernel_size": (3, 2)},
        {"factor": (3, 1), "kernel_size": (4, 5), "out_dim": 20, "bias": True},
        {"factor": 2, "kernel_size": 9, "num_heads": 12},
    ],
    ids=str,
)
@torch.no_grad()
def test_equals_the_definition(arguments):
    mixer, x = layer(**arguments), example(3, 5)
    torch.testing.assert_close(mixer(x), loop_output(mixer, x), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_each_sub_pixel_has_its_own_query_and_bias():
    mixer, x = layer(factor=(2, 3)), example(3, 4)
    before = mixer(x)
    for parameter in (mixer.project.position.table, mixer.project.query):
        for r in range(6):
            one = parameter.select(-3 if parameter.ndim == 3 else -2, r)
            kept = one.clone()
            one.mul_(-1)
            moved = (mixer(x) - before).abs().amax((0, -1)) > 1e-9
            one.copy_(kept)
            expected = torch.zeros(6, 12, dtype=torch.bool)
            expected[r // 3 :: 2, r % 3 :: 3] = True
            assert torch.equal(moved, expected)


@torch.no_grad()
def test_a_factor_of_one_is_qna_with_one_query():
    mixer, x = layer(factor=1, kernel_size=(3, 5)), example(4, 7)
    plain = qna.QnA2d(12, num_heads=3, kernel_size=(3, 5), num_queries=1, query_weight="none").double()
    plain.load_state_dict(mixer.state_dict())
    assert torch.equal(mixer(x), plain(x))


@pytest.mark.parametrize("backend", ["reference", None])
def test_gradcheck(backend):
    mixer = layer(dim=6, num_heads=2, factor=(2, 1), backend=backend)
    names, values = zip(*mixer.named_parameters(), strict=True)

    def call(x, *parameters):
        return torch.func.functional_call(mixer, dict(zip(names, parameters, strict=True)), (x,))

    x = example(2, 3, dim=6, batch=1).requires_grad_()
    assert torch.autograd.gradcheck(call, (x, *values), fast_mode=True)


@torch.no_grad()
def test_attention_is_shown_for_every_output():
    mixer, x = layer(factor=(2, 3), kernel_size=(3, 2)), example(3, 4)
    shares = mixer.attention_map(x)
    assert shares.shape == (2, 6, 12, 1, 3, 3, 2)
    torch.testing.assert_close(shares.sum((-1, -2)), torch.ones_like(shares[..., 0, 0]))
    # the output at row 1, column 11: sub-pixel (1, 2) of the window at (0, 3), whose last column lies outside
    scores, _, bias, _ = mixer.attention_inputs(x)
    logits = scores[:, 0:2, 3, 5] + bias[1:, 0, 5]  # (B, rows, h)
    assert (shares[:, 1, 11, 0, :, 0] == 0).all()
    assert (shares[:, 1, 11, 0, :, :, 1] == 0).all()
    expected = logits.softmax(1).movedim(1, -1)
    torch.testing.assert_close(shares[:, 1, 11, 0, :, 1:, 0], expected, rtol=1e-12, atol=1e-12)


def test_macs_and_elements_by_hand():
    mixer = qna.QnAUpsample2d(8, num_heads=2, factor=(2, 3), kernel_size=(3, 5), out_dim=12)
    n, outputs, queries, heads = 2 * 4 * 5, 2 * 8 * 15, 6, 3
    projections = n * 8 * (12 + queries * heads) + outputs * 12 * 12
    attention = n * queries * 12 + n * 15 * queries * (12 + heads)
    assert mixer.macs((2, 4, 5, 8)) == projections + attention + queries * heads * 4 * 8
    # attended and output, which is more than values and scores
    assert mixer.held((2, 4, 5, 8)) == 2 * outputs * 12


@pytest.mark.parametrize("factor", [0, (2, 2, 2), 1.5])
def test_a_factor_that_is_none_is_named(factor):
    with pytest.raises(
        InvalidInput, match="factor must be an integer of at least 1, or one for each of 2 axes"
    ):
        qna.QnAUpsample2d(8, num_heads=2, factor=factor)


@pytest.mark.slow
@pytest.mark.parametrize(("axes", "factor"), [(1, 3), (2, (2, 3))])
def test_exports_to_onnx_for_any_size(axes, factor, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    mixer = layer(axes, factor=factor).float().eval()
    sizes = ("height", "width")[:axes]
    # the exporter holds the file to the module at two sizes
    made = export_onnx(mixer, tmp_path / "upsample.onnx", ("batch", *sizes, 12))
    assert made.path.exists()
