from pathlib import Path

import pytest
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.eval import CORRUPTIONS
from qna.eval.corruptions import corruption


def scene(count=3, channels=3, size=32):
    """Smooth images with edges and texture, in [0, 0.8]."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 4, 4, generator=g)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    fine = torch.rand(count, channels, size, size, generator=g)
    images = 0.6 * smooth + 0.2 * fine
    images[..., size // 2 :, size // 3 : size // 2] *= 0.3
    return images.mul(255).round() / 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damage_grows_with_severity_on_every_image(name, channels):
    images = scene(channels=channels)
    before = torch.zeros(len(images))
    for severity in (1, 2, 3, 4, 5):
        damaged = corruption(name)(images, severity, range(len(images)))
        error = (damaged - images).square().mean((1, 2, 3))
        assert (error > before).all()
        before = error
        assert damaged.shape == images.shape
        assert damaged.min() >= 0
        assert damaged.max() <= 1
        # as stored in 8 bits
        torch.testing.assert_close(damaged * 255, (damaged * 255).round(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_pixels_follow_from_the_image_and_its_index_alone(name):
    images, damage = scene(), corruption(name)
    together = damage(images, 3, [4, 9, 2])
    torch.manual_seed(123)
    alone = damage(images[1:2], 3, [9])
    assert torch.equal(together[1:2], alone)
    assert torch.equal(together, damage(images, 3, [4, 9, 2]))


def test_noise_differs_between_images_and_has_the_level_that_the_table_says():
    grey = torch.full((2, 3, 64, 64), 0.5)
    noise = CORRUPTIONS["noise"](grey, 2, [0, 1]) - 0.5
    assert not torch.equal(noise[0], noise[1])
    level = CORRUPTIONS["noise"].levels[1]
    # 24,576 values: the estimate of a standard deviation is good to 1 / sqrt(2 n), here 5 of them
    assert noise.std() == pytest.approx(level, rel=5 / (2 * noise.numel()) ** 0.5)


def test_blur_keeps_a_flat_image_and_the_mean_inside():
    assert torch.equal(
        CORRUPTIONS["blur"](torch.full((1, 1, 16, 16), 51 / 255), 5, [0]),
        torch.full((1, 1, 16, 16), 51 / 255),
    )
    dot = torch.zeros(1, 1, 65, 65)
    dot[..., 32, 32] = 1
    spread = CORRUPTIONS["blur"].apply(dot, 2 / 65, [0])
    assert spread.sum() == pytest.approx(1, rel=1e-5)
    offsets = torch.arange(65) - 32
    # its second moment is sigma^2 of 2 pixels, cut at 4 sigma
    assert float((spread[0, 0].sum(0) * offsets.square()).sum()) == pytest.approx(4, rel=0.01)


def test_what_does_not_exist_is_refused():
    with pytest.raises(UnknownName, match="unknown corruption 'blurr'; did you mean 'blur'"):
        corruption("blurr")
    with pytest.raises(InvalidInput, match="severity must be one of 1, 2, 3, 4, 5, got 6"):
        CORRUPTIONS["blur"](scene(), 6, range(3))


def test_the_guide_shows_the_levels():
    guide = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    for name, kind in CORRUPTIONS.items():
        assert f"| `{name}` | {kind.unit} | {' | '.join(map(str, kind.levels))} |" in guide
