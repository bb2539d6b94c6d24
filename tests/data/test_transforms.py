import math

import pytest
import torch

from qna._core.seeds import uniforms
from qna.data import Jitter, Preparation, TensorImages

LEFT, MIDDLE, RIGHT = 0.0, 0.5, 1.0 - 2**-24  # draws for -1, 0 and 1 times the largest movement


def draws(angle=MIDDLE, zoom=MIDDLE, x=MIDDLE, y=MIDDLE, mirror=RIGHT):
    return torch.tensor([[angle, zoom, x, y, mirror]])


def stored(pixels):
    return TensorImages(pixels, torch.zeros(len(pixels), dtype=torch.int64))


def spot(row, column, size=9):
    image = torch.zeros(1, 1, size, size)
    image[0, 0, row, column] = 1
    return image


def where(image):
    """Centre of mass (row, column)."""
    rows, columns = torch.meshgrid(*[torch.arange(float(n)) for n in image.shape[-2:]], indexing="ij")
    total = image.sum()
    return float((image * rows).sum() / total), float((image * columns).sum() / total)


def test_evaluation_standardises_and_leaves_the_size_alone():
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)
    out = Preparation(8, mean, std)(stored(pixels), [0, 1]).images
    expected = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(out, expected)


def test_enlarging_keeps_flat_images_flat():
    pixels = torch.full((1, 1, 8, 8), 51, dtype=torch.uint8)
    out = Preparation(30, (0.0,), (1.0,))(stored(pixels), [0]).images
    torch.testing.assert_close(out, torch.full((1, 1, 30, 30), 0.2))


@pytest.mark.parametrize(
    ("jitter", "draw", "expected"),
    [
        (Jitter(), draws(LEFT, LEFT, LEFT, LEFT, LEFT), (2, 3)),
        (Jitter(shift=1 / 9), draws(x=LEFT), (2, 4)),  # looking left moves the image right
        (Jitter(shift=1 / 9), draws(y=LEFT), (3, 3)),
        (Jitter(flip=True), draws(mirror=LEFT), (2, 5)),
        (Jitter(flip=True), draws(mirror=RIGHT), (2, 3)),
        (Jitter(rotate=180), draws(angle=RIGHT), (6, 5)),
        (Jitter(rotate=90), draws(angle=RIGHT), (5, 2)),
    ],
)
def test_movements(jitter, draw, expected):
    assert where(jitter(spot(2, 3), draw)) == pytest.approx(expected, abs=1e-4)


def test_zoom_is_a_factor_about_the_centre():
    square = torch.zeros(1, 1, 257, 257)
    square[..., 96:161, 96:161] = 1
    larger = Jitter(zoom=1.0)(square, draws(zoom=RIGHT)).sum()
    smaller = Jitter(zoom=1.0)(square, draws(zoom=LEFT)).sum()
    # twice and half the side of a 65x65 square, to a pixel
    assert math.sqrt(larger) == pytest.approx(130, abs=1)
    assert math.sqrt(smaller) == pytest.approx(32.5, abs=1)


def test_draws_are_uniform_and_belong_to_their_index():
    sample = uniforms(7, range(20_000), 3)
    assert torch.equal(sample[[5, 11]], uniforms(7, [5, 11], 3))
    assert not torch.equal(sample, uniforms(8, range(20_000), 3))
    assert sample.min() >= 0
    assert sample.max() < 1
    # five standard deviations of a mean, of a variance and of a correlation of 20,000 uniforms
    assert (sample.mean(0) - 1 / 2).abs().max() < 5 * math.sqrt(1 / 12 / 20_000)
    assert (sample.var(0) - 1 / 12).abs().max() < 5 * math.sqrt((1 / 80 - 1 / 144) / 20_000)
    correlation = torch.corrcoef(sample.T) - torch.eye(3)
    assert correlation.abs().max() < 5 / math.sqrt(20_000)
