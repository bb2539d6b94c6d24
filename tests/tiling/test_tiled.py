"""Tiles give what the whole image gives, in float64, at sizes that nothing divides; memory does not grow."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qna
from qna._core.errors import InvalidInput
from qna.models import registry
from tests.mixers.contract import randomise

# some thousand products in float64
EPS = 1e-12


class Maps(nn.Module):
    """The maps of all stages and the normalised last one."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, x):
        last, maps = self.backbone.forward_intermediates(x)
        return {"last": last, "stages": maps}


def ours(**options):
    torch.manual_seed(0)
    model = registry.create("qna_vit_nano_16", num_classes=7, **options)
    randomise(model)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model.eval().double()


def image(*space, batch=2, channels=3):
    return torch.randn(
        batch, channels, *space, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def assert_equal(tiled, whole):
    assert tiled.shape == whole.shape
    torch.testing.assert_close(tiled, whole, rtol=0, atol=EPS * whole.abs().max().item())


@pytest.mark.parametrize(
    ("options", "space"),
    [
        ({}, (75, 53)),
        ({"stem": "resnet", "shortcut": "avgpool"}, (9, 150)),
        ({"downsample": "merge", "window_sizes": (4, 4, 3)}, (52, 61)),
    ],
    ids=str,
)
def test_maps_and_logits_of_qna_vit(options, space):
    model, x = ours(**options), image(*space)
    tiled = qna.tiled(Maps(model), tile=16)
    assert len(tiled.plan(x.shape, x.dtype)) > 1
    with torch.no_grad():
        whole, logits = Maps(model)(x), model(x)
    made = tiled(x)
    assert_equal(made["last"], whole["last"])
    for ours_, theirs in zip(made["stages"], whole["stages"], strict=True):
        assert_equal(ours_, theirs)
    # the mean over the last map is gathered
    assert_equal(qna.tiled(model, tile=16)(x), logits)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("convnext_atto", False),
        ("resnet18", True),
        pytest.param("resnet18", False, marks=pytest.mark.long),
        pytest.param("mobilenetv2_050", True, marks=pytest.mark.long),
        ("test_efficientnet", False),
    ],
)
@pytest.mark.slow
def test_networks_of_timm(name, features):
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, features_only=features).eval().double()
    x = image(140, 99, batch=1)
    if name == "test_efficientnet":
        with pytest.raises(InvalidInput, match=r"SqueezeExcite at '.*se': its call of .* brings a mean over"):
            qna.tiled(model, tile=32)(x)
        return
    with torch.no_grad():
        whole = model(x)
    made = qna.tiled(model, tile=32)(x)
    for part, expected in zip(made, whole, strict=True):
        assert_equal(part, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "space"),
    [pytest.param("resnet18", (320, 32), marks=pytest.mark.long), ("tu-qna_vit_tiny", (896, 32))],
)
def test_a_decoder_of_convolutions(encoder, space):
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    model = smp.Unet(encoder, encoder_weights=None, classes=3, decoder_channels=(32, 16, 8, 8, 4))
    model = model.eval().double()
    x = image(*space, batch=1)
    assert len(qna.tiled(model, tile=32).plan(x.shape, x.dtype)) > 2
    with torch.no_grad():
        whole = model(x)
    assert_equal(qna.tiled(model, tile=32)(x), whole)


def chain(generator, axes):
    """A random network of local layers with a shortcut somewhere."""

    def pick(*choices):
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    conv, transposed = (getattr(nn, f"{kind}{axes}d") for kind in ("Conv", "ConvTranspose"))
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[axes]

    def layer():
        k = pick(1, 2, 3, 5)
        return pick(
            conv(2, 2, k, stride=pick(1, 2, 3), padding=pick(0, (k - 1) // 2, k // 2), dilation=1),
            conv(2, 2, k, dilation=2, padding="same"),
            getattr(nn, f"MaxPool{axes}d")(k, stride=pick(1, 2), padding=k // 2, ceil_mode=pick(True, False)),
            transposed(2, 2, k + 1, stride=pick(1, 2, 3), padding=pick(0, 1)),
            nn.Upsample(scale_factor=pick(2, 3), mode=pick("nearest", mode)),
            nn.Sequential(nn.Tanh(), Twice(conv(2, 2, 3, padding=1))),
        )

    return nn.Sequential(*(layer() for _ in range(5)))


class Twice(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(self.inner(x))


def try_chains(seeds):
    tried = 0
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        axes = 1 + seed % 3
        network = chain(generator, axes).eval().double()
        most = {1: 90, 2: 40, 3: 20}[axes]
        space = torch.randint(most // 2, most, (axes,), generator=generator).tolist()
        tile = int(torch.randint(1, most // 3, (), generator=generator))
        x = image(*space, batch=1, channels=2)
        try:
            with torch.no_grad():
                whole = network(x)
        except RuntimeError:  # a map became smaller than a window
            continue
        if whole.numel() > 1e6:
            continue
        tiled = qna.tiled(network, tile=tile)
        assert_equal(tiled(x), whole)
        tried += len(tiled.plan(x.shape, x.dtype)) > 1
    return tried


def test_random_networks():
    assert try_chains(range(10)) >= 5


@pytest.mark.long
def test_more_random_networks():
    assert try_chains(range(10, 400)) >= 150


def test_fewer_pixels_of_halo_leave_seams_of_the_right_size():
    network, x = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))).double(), image(40, 40)
    with torch.no_grad():
        whole = network(x)
    for halo in (0, 1, 4):
        tiled = qna.tiled(network, tile=20, halo=halo)
        seams = (tiled(x) - whole).abs().amax((0, 1)) > EPS
        # a convolution takes the seam one position further in
        expected = torch.zeros(40, dtype=torch.bool)
        expected[16 + halo : 24 - halo] = True
        assert torch.equal(seams, expected[:, None] | expected)
    assert qna.tiled(network, tile=20, halo=0).plan(x.shape, x.dtype).overhead == 1
    # never more than all that counts
    plans = [qna.tiled(network, tile=20, halo=halo).plan(x.shape, x.dtype) for halo in (1000, "exact")]
    assert plans[0].cuts == plans[1].cuts


def test_the_halo_is_what_the_layers_need_and_no_pixel_more():
    network = nn.Sequential(
        nn.Conv2d(1, 1, 5, padding=2), nn.Conv2d(1, 1, 3, dilation=4, padding=4), nn.Conv2d(1, 1, 2)
    )
    plan = qna.tiled(network, tile=10).plan((1, 1, 40, 30))
    assert plan.period == (1, 1)
    # 2 + 4, and one more behind by the kernel of two
    assert plan.halo == ((6, 7), (6, 7))
    assert plan.largest == (23, 23)
    assert len(plan) == 12
    # a stride of 4 and windows of 3 repeat after 12 pixels
    strided = nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=4), ToLast(), qna.WindowAttention2d(8, num_heads=2, window_size=3)
    )
    assert qna.tiled(strided, tile=5).plan((1, 1, 50, 50)).period == (12, 12)
    assert qna.tiled(strided, tile=5).plan((1, 1, 48, 48)).halo == ((0, 0), (0, 0))


class Cropped(nn.Module):
    """Cuts the borders off, so that padding falls on pixels that are not the image's first and last."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        return self.conv(x[:, :, 5:-4, 7:])


class DeadEnd(nn.Module):
    """Makes a coarse map, of which nothing comes out."""

    def forward(self, x):
        F.max_pool2d(x, 8)
        return x.tanh()


@pytest.mark.parametrize(("build", "space"), [(Cropped, (40, 31)), (DeadEnd, (43, 34))])
def test_every_map_on_the_way_lies_in_the_tile(build, space):
    network, x = build().double(), image(*space)
    with torch.no_grad():
        whole = network(x)
    assert_equal(qna.tiled(network, tile=10)(x), whole)


class ToLast(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


def test_pixels_may_come_from_a_file_and_results_go_to_one(tmp_path):
    class FromBytes(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 2, 3, stride=2, padding=1)

        def forward(self, x):
            return self.conv(x / 255)

    network = FromBytes()
    pixels = np.memmap(tmp_path / "pixels", np.uint8, "w+", shape=(1, 3, 50, 61))
    pixels[:] = np.random.default_rng(0).integers(0, 256, pixels.shape)
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=(1, 2, 25, 31))
    done = []
    tiled = qna.tiled(network, tile=(20, 30), notify=lambda *counts: done.append(counts))
    assert tiled(pixels, out=out) is out
    assert done == [(n, 9) for n in range(1, 10)]
    with torch.no_grad():
        whole = network(torch.from_numpy(np.array(pixels)))
    torch.testing.assert_close(torch.from_numpy(np.array(out)), whole)
    # and a tensor of another dtype, in which the results are stored
    half = torch.empty(1, 2, 25, 31, dtype=torch.bfloat16)
    tiled(pixels, out=half)
    assert torch.equal(half, whole.bfloat16())


def test_processes_share_the_tiles_of_one_image(tmp_path):
    """Each in its turn, one of them stopped and gone on with: every tile is done once."""
    torch.manual_seed(0)
    network, x = nn.Conv2d(3, 2, 5, stride=2, padding=2).eval(), image(37, 52, batch=1).float()
    reads = []
    # how it is cut is found without data
    network.register_forward_pre_hook(lambda _, inputs: reads.append(not inputs[0].is_meta))
    out = [np.memmap(tmp_path / "out", np.float32, "w+", shape=(1, 2, 19, 26))]
    out += [np.memmap(tmp_path / "out", np.float32, "r+", shape=(1, 2, 19, 26)) for _ in range(2)]
    told = []
    tiled = qna.tiled(network, tile=10, notify=lambda done, total: told.append((done, total)))
    count = len(tiled.plan(x.shape))
    assert count == 24
    reads.clear()
    tiled(x, out=out[0], only=lambda n: n % 2 == 0)
    assert told == [(n + 1, 12) for n in range(12)]
    # the other process is stopped after tile 9
    tiled(x, out=out[1], only=lambda n: n % 2 == 1 and n < 10)
    tiled(x, out=out[2], only=lambda n: n % 2 == 1 and n >= 10)
    assert sum(reads) == count
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(np.array(out[0])), network(x))


def test_a_part_of_the_tiles_that_makes_no_result_is_refused():
    x = image(32, 32, batch=1)
    with pytest.raises(InvalidInput, match="only some of the tiles need out="):
        qna.tiled(nn.Conv2d(3, 2, 3).double().eval(), tile=8)(x, only=lambda n: True)
    model = ours()
    with pytest.raises(InvalidInput, match="QnAViT gives something made of a mean over the whole map, which"):
        qna.tiled(model, tile=16)(x, out=model(x).detach(), only=lambda n: True)


class Depends(nn.Module):
    """Does to maps above a size what it does not below."""

    def forward(self, x):
        return x * 2 if x.shape[-1] > 30 else x * 3


class MeanInside(nn.Module):
    """A layer that tells its reach and takes a mean itself; the network takes one after it."""

    out_dim = 3

    def reach(self, size):
        return (qna.parts.reach.Reach.of_window(3, before=1),)

    def forward(self, x):
        return F.avg_pool1d(x.movedim(-1, 1), 3, 1, 1).movedim(1, -1) + 0 * x.mean(-1, keepdim=True)


def test_means_inside_layers_that_tell_their_reach_are_left_alone():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = MeanInside()

        def forward(self, x):
            y = self.layer(x.movedim(1, -1))
            return y.mean(1), y.mean(1) + y[:, 1:].mean(dim=1)

    x = image(37)
    for made, whole in zip(qna.tiled(Net(), tile=5)(x), Net()(x), strict=True):
        assert_equal(made, whole)


def conv(size=3):
    return nn.Conv2d(3, 3, size)


@pytest.mark.parametrize(
    ("build", "shape", "options", "told"),
    [
        (conv, (1, 3, 40, 40), {"tile": 0}, "tile must be an integer of at least 1"),
        (conv, (1, 3, 40, 40), {"tile": 2.5}, "tile must be an integer of at least 1"),
        (conv, (1, 3, 40, 40), {"tile": 8, "halo": "none"}, "halo must be 'exact' or pixels"),
        (conv, (1, 3, 40, 40), {"tile": 8, "halo": -1}, "of at least 0, got -1"),
        (conv, (1, 3, 40, 40), {"tile": (8, 8, 8)}, "tile has 3 sizes, and images"),
        (conv, (40, 40), {"tile": 8}, r"images must be \(B, C, \*space\)"),
        (conv, (1, 3, 0, 40), {"tile": 8}, "with at least one pixel, got"),
        (lambda: conv(5), (1, 3, 4, 40), {"tile": 8}, r"Conv2d cannot be run on \(1, 3, 4, 40\): "),
        (Depends, (1, 3, 40, 40), {"tile": 8}, r"Depends does not treat a tile of \(8, 8\) pixels as an"),
        (
            lambda: ours(global_pool="qnav1").float(),
            (1, 3, 40, 40),
            {"tile": 8},
            r"because of QnAPool2d at 'head\.pool\.attention': its call of add takes a tensor",
        ),
        (
            lambda: nn.Sequential(conv(), ToLast(), qna.create_mixer("FocalModulation2d", 3)),
            (1, 3, 40, 40),
            {"tile": 8},
            "because of FocalModulation2d at '2': its call of addcmul brings a mean over the whole map back",
        ),
    ],
)
def test_bad_input_is_one_sentence(build, shape, options, told):
    with pytest.raises(InvalidInput, match=told) as raised:
        qna.tiled(build(), **options)(torch.zeros(shape))
    assert "\n" not in str(raised.value)


def test_training_mode_and_wrong_out_are_refused():
    tiled = qna.tiled(nn.Conv2d(1, 2, 3), tile=4)
    with pytest.raises(
        InvalidInput, match=r"out must have the shapes .*\[\(1, 2, 7, 7\)\], got \[\(1, 2, 9, 9\)\]"
    ):
        tiled(torch.zeros(1, 1, 9, 9), out=torch.empty(1, 2, 9, 9))
    with pytest.raises(InvalidInput, match="Conv2d is in training mode; call eval"):
        tiled.train()(torch.zeros(1, 1, 9, 9))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image(tmp_path):
    peaks = []
    for side in (384, 768):
        run = subprocess.run(
            [sys.executable, "-m", "tests.tiling.peak", str(side), str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert run.returncode == 0, run.stderr
        peaks.append(int(run.stdout))
    small, large = peaks
    # four times the pixels, which alone are 5 MB more, and 36 tiles instead of 9
    assert 0 < large < small + 2e6
