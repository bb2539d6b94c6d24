"""Image and mask move together, and how they do follows from the seed and the position alone."""

import numpy as np
import pytest
import torch

from qna._core.errors import InvalidInput
from qna.data.masks import MaskPreparation, MaskVariation, load_masked_folder
from tests.data.masks.conftest import put

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "ignore": 255}
EVERYTHING = {
    "crop": {"crop": (0.3, 1.0), "flip": True},
    "movements": {"rotate": 40, "shift": 0.2, "zoom": 0.3, "flip": True},
}


@pytest.fixture
def files(tmp_path):
    """Images whose red is 40 times the class of the pixel, in fields that are large beside a pixel."""
    for number in range(4):
        fields = np.arange(6).reshape(2, 3) + number % 2
        for part in ("train", "val"):
            put(tmp_path / part, str(number), fields.repeat(20, 0).repeat(20, 1))
    return load_masked_folder(tmp_path).train


@pytest.mark.parametrize("kind", EVERYTHING)
def test_every_pixel_keeps_its_class(files, kind):
    prepare = MaskPreparation(32, **PLAIN, variation=MaskVariation(32, **EVERYTHING[kind]))
    batch = prepare(files, range(4), seed=3)
    assert batch.images.shape == (4, 3, 32, 32)
    assert batch.masks.shape == (4, 32, 32)
    told = (batch.images[:, 0] * 255 / 40).round().long()
    seen = batch.masks != 255
    # the image is interpolated and the mask is not, so that they differ along the borders of fields
    differ = (told != batch.masks)[seen].float().mean()
    assert differ < 0.25
    aligned = (told == batch.masks)[seen].float().mean()
    # a mask that had not moved along would agree by chance: every sixth pixel of six fields
    assert aligned > 0.75
    if kind == "movements":
        assert (~seen).any()
        assert not batch.images[:, 0][~seen].max() > 40 * 6 / 255
    else:
        assert seen.all()


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (2, 33)])
def test_very_long_images_take_bounded_memory(tmp_path, shape):
    """Resized by its shorter side to 224 pixels, the first would take 3 GB."""
    classes = np.zeros(shape, np.uint8)
    classes.swapaxes(0, int(shape[1] > shape[0]))[max(shape) // 2 :] = 3
    for part in ("train", "val"):
        put(tmp_path / part, "long", classes)
    files = load_masked_folder(tmp_path).train
    judged = MaskPreparation(224, **PLAIN)(files, [0])
    assert sorted(judged.images.shape[2:]) == [max(1, round(16 * 224 * min(shape) / max(shape))), 16 * 224]
    assert judged.masks.shape == (1, *shape)
    prepare = MaskPreparation(32, **PLAIN, variation=MaskVariation(32))
    seen, agreed = set(), []
    for seed in range(20):
        batch = prepare(files, [0], seed)
        assert batch.images.shape == (1, 3, 32, 32)
        told = (batch.images[:, 0] * 255 / 40).round().long()
        agreed.append((told == batch.masks).float().mean().item())
        seen |= set(batch.masks.unique().tolist())
    # pieces come from anywhere
    assert seen == {0, 3}
    # where a piece shows the border of two pixels, the image is interpolated between them
    assert np.median(agreed) > 0.9


def test_what_comes_into_view_is_the_mean_colour(files):
    variation = MaskVariation(32, shift=0.5)
    mean = (0.2, 0.4, 0.6)
    batch = MaskPreparation(32, mean, (1.0,) * 3, 9, variation)(files, range(4), seed=1)
    outside = batch.masks == 9
    assert outside.any()
    # but for rounding to 8 bits and the pixels at the edge, which mix with what is inside
    inner = -torch.nn.functional.max_pool2d(-outside[:, None].float(), 3, 1, 1)[:, 0] > 0
    assert batch.images.permute(0, 2, 3, 1)[inner].abs().max() <= 1 / 255


def test_draws_follow_from_seed_and_position(files):
    prepare = MaskPreparation(24, **PLAIN, variation=MaskVariation(24, crop=(0.3, 1.0), flip=True, color=0.3))
    together, alone = prepare(files, [0, 1, 2], seed=5), prepare(files, [2], seed=5)
    assert torch.equal(together.images[2], alone.images[0])
    assert torch.equal(together.masks[2], alone.masks[0])
    other = prepare(files, [2], seed=6)
    assert not torch.equal(other.images, alone.images)
    # the global generator is left alone
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    prepare(files, [0], seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_colours_vary_and_the_mask_stays(files):
    prepare = MaskPreparation(40, **PLAIN, variation=MaskVariation(40, color=0.5))
    plain = MaskPreparation(40, **PLAIN, variation=MaskVariation(40))
    a, b = prepare(files, [1, 2, 3], seed=2), plain(files, [1, 2, 3], seed=2)
    assert torch.equal(a.masks, b.masks)
    assert not torch.allclose(a.images, b.images, atol=0.01)


def test_judged_images_are_whole_and_masks_as_stored(files):
    (batch,) = [MaskPreparation(20, **PLAIN)(files, [1])]
    assert batch.images.shape == (1, 3, 20, 30)
    assert batch.masks.shape == (1, 40, 60)
    assert batch.masks.unique().tolist() == [1, 2, 3, 4, 5, 6]
    assert MaskPreparation(40, **PLAIN)(files, [1]).images.shape == (1, 3, 40, 60)


def test_images_that_cannot_be_read(files):
    files.images[1].write_bytes(b"nothing")
    prepare = MaskPreparation(20, **PLAIN, variation=MaskVariation(20))
    batch = prepare(files, [0, 1], seed=1)
    assert batch.indices.tolist() == [0, 2]
    assert len(batch.skipped) == 1
    assert "not an image" in batch.skipped[0]
    judged = MaskPreparation(20, **PLAIN)(files, [1])
    assert (len(judged.masks), len(judged.skipped)) == (0, 1)
    for path in files.images:
        path.write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match="none of the 4 images can be read"):
        prepare(files, [3])
