"""What is said of a layer's positions is what a NaN in one shows, rule by rule; the rest is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qna._core.errors import InvalidInput
from qna.models._parts.merging import PatchMerging
from qna.parts.reach import Reach
from qna.tiling.follow import follow, name_of
from qna.tiling.places import needed
from tests.tiling.probe import seen_by_outputs


class Fn(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


LOCAL = {
    "gelu": F.gelu,
    "arithmetic": lambda x: (2 - x) / 3 + x * x**2 - (-x).abs(),
    "in place": lambda x: x.clone().mul_(3).relu_(),
    "residual": lambda x: x + F.avg_pool2d(x, 3, 1, 1),
    "convolution": nn.Conv2d(4, 3, (3, 5), padding=(1, 0)),
    "strided": nn.Conv2d(4, 3, 3, stride=(2, 3), padding=1, groups=1),
    "even kernel": nn.Conv2d(4, 4, 4, stride=2, padding=1, groups=2),
    "dilated": nn.Conv2d(4, 4, 2, dilation=3),
    "same": nn.Conv2d(4, 4, 3, padding="same"),
    "patches": nn.Conv2d(4, 4, 4, stride=4),
    "transposed": nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1),
    "transposed, dilated": nn.ConvTranspose2d(4, 3, 3, stride=3, padding=2, output_padding=1, dilation=2),
    "maximum": nn.MaxPool2d(3, stride=2, padding=1, dilation=1),
    "maximum, ceil": nn.MaxPool2d(2, ceil_mode=True),
    "mean": nn.AvgPool2d((2, 3), stride=(2, 1)),
    "nearest": nn.Upsample(scale_factor=3),
    "bilinear by 2": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear by 3": lambda x: F.interpolate(x, size=(33, 42), mode="bilinear"),
    "bilinear by 4 and 1": nn.Upsample(scale_factor=(4, 1), mode="bilinear"),
    "bicubic": nn.Upsample(scale_factor=2, mode="bicubic"),
    "to pixels": nn.PixelShuffle(2),
    "from pixels": lambda x: F.pixel_unshuffle(x[..., :10, :12], 2),
    "slices": lambda x: x[:, :, 1::2, 3:-1],
    "slices of channels": lambda x: x[:, 1:3][:, None, 0],
    "padding": lambda x: F.pad(x, (1, 2, 3, 0)),
    "batch norm": nn.BatchNorm2d(4).eval(),
    "layer norm and back": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).movedim(-1, 1),
    "norm of channels": lambda x: F.normalize(x) * x.softmax(1) + x.mean(1, keepdim=True) - x.sum(1)[:, None],
    "channel halves": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "channels in groups": lambda x: x.view(2, 2, 2, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
    "per channel": lambda x: x * torch.arange(4.0)[:, None, None],
}


@pytest.mark.parametrize("name", LOCAL)
def test_reach_is_what_a_nan_shows(name):
    function = LOCAL[name]
    network = (function if isinstance(function, nn.Module) else Fn(function)).double()
    shape = (2, 4, 11, 14)
    followed = follow(network, shape, torch.float64)
    ((made, layout),) = followed.outputs
    with torch.no_grad():
        result = network(torch.randn(shape, dtype=torch.float64))
    assert result.shape == made
    assert [made[axis] for axis in layout.axes] == list(layout.places.sizes)
    for axis in (0, 1):
        read, felt = (
            seen_by_outputs(network, shape, (-2, -1), axis, axes_out=layout.axes, spoil=spoil)
            for spoil in (torch.nan, 100.0)
        )
        for i in range(len(read)):
            needs = dict(needed({layout.places: (i, i)}, followed.maps, axis))
            low, high = needs[followed.image]
            if felt[i] is not None:  # else a position of padding alone
                assert low <= felt[i][0] <= felt[i][1] <= high, (axis, i)
                # a block of positions has one reach, though not every position of it sees all
                assert "transposed" in name or read[i][0] <= low <= high <= read[i][1], (axis, i)


def test_a_block_of_a_transposed_convolution_sees_what_it_is_said_to():
    network = LOCAL["transposed"].double()
    shown = seen_by_outputs(network, (1, 4, 9, 9), (-2, -1), 0)
    reach = Reach(1, -1, 0, 2, -1)
    for k in range(1, 9):
        block = [shown[i] for i in range(18) if (i + 1) // 2 == k]
        assert (min(s[0] for s in block), max(s[1] for s in block)) == (k - 1, k)
        assert reach.sources(2 * k - 1, 2 * k) == (k - 1, k)


@pytest.mark.parametrize(("stride", "size"), [(2, 13), (4, 13), (4, 14), (3, 12)])
def test_patches_begin_where_they_are_said_to(stride, size):
    merging = PatchMerging(3, stride=stride).double()
    shape = (1, size, 5, 3)
    for i, seen in enumerate(seen_by_outputs(merging, shape, (-3, -2), 0)):
        low, high = merging.reach(shape)[0].sources(i, i)
        assert seen == (max(low, 0), min(high, size - 1))


NOT_LOCAL = {
    "normalises by the statistics": nn.GroupNorm(2, 4),
    "its call of instance_norm": nn.InstanceNorm2d(4),
    "its call of matmul": lambda x: x @ x.transpose(-1, -2),
    "its call of roll brings one end": lambda x: x.roll(1, -1),
    "its call of flip has no rule": lambda x: x.flip(-1),
    "its call of max has no rule": lambda x: x.max(),
    "its call of amax runs over the whole map": lambda x: x.amax((2, 3)),
    "its call of softmax runs over the positions": lambda x: x.softmax(-1),
    "its call of layer_norm runs over the positions": nn.LayerNorm(14, elementwise_affine=False),
    "its call of linear runs over the positions": nn.Linear(14, 3),
    "divides the whole map into 2 parts": nn.AdaptiveAvgPool2d(2),
    "with values of its own for each position": lambda x: x + torch.zeros(11, 1),
    "brings a mean over the whole map back": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "stretches by align_corners": nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "resizes 11 positions to 13, no whole multiple": lambda x: F.interpolate(x, size=(13, 28)),
    "fills the border by mode 'reflect'": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "mixes up its axes": lambda x: x.flatten(2),
    "cuts the map apart": lambda x: x.chunk(2, 3),
    "puts maps together along their positions": lambda x: torch.cat([x, x], 2),
    "takes single positions": lambda x: x[..., 3],
    "are 1 x 1 and 2 x 2 pixels apart": lambda x: x[..., :5, :7] + F.avg_pool2d(x, 2),
    "takes parameters that are made of a map": lambda x: F.conv2d(x, x[:, :, :3, :3]),
    "runs over the channels": lambda x: F.avg_pool2d(x.permute(0, 2, 3, 1), 2),
    "gives a tensor that is not made of the image": lambda x: torch.zeros(3),
}


@pytest.mark.parametrize("why", NOT_LOCAL)
def test_what_is_not_local_is_refused_by_name(why):
    function = NOT_LOCAL[why]
    network = function if isinstance(function, nn.Module) else Fn(function)
    with pytest.raises(InvalidInput) as raised:
        follow(nn.Sequential(nn.Identity(), network), (2, 4, 11, 14), torch.float32)
    assert why in str(raised.value)
    if "not made of the image" not in why:
        assert f"because of {type(network).__name__} at '1': its call of " in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_a_network_cannot_be_run_on_is_one_sentence():
    with pytest.raises(
        InvalidInput, match=r"^Conv2d cannot be run on \(1, 3, 8, 8\): Invalid channel"
    ) as raised:
        follow(nn.Conv2d(4, 4, 3), (1, 3, 8, 8), torch.float32)
    assert "\n" not in str(raised.value)


def test_names_of_functions():
    x = torch.ones(1)
    names = {name_of(f) for f in (torch.add, x.add_, torch.Tensor.__radd__, torch.Tensor.__iadd__, x.add)}
    assert names == {"add"}
    assert name_of(torch.Tensor.__getitem__) == "getitem"
    assert name_of(torch.Tensor.__invert__) == "invert"
