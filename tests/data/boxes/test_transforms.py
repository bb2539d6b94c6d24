"""An image and its boxes move together, and a batch tells where each of its images ends."""

import numpy as np
import pytest
import torch
from PIL import Image

from qna._core.errors import InvalidInput
from qna.data.boxes import BoxedFiles, Boxes, BoxPreparation, BoxVariation

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def lit(path, width, height, corners):
    """A dark image with a white box, whose corners are whole numbers."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    left, top, right, bottom = corners
    pixels[top:bottom, left:right] = 255
    Image.fromarray(pixels).save(path)


@pytest.fixture
def files(tmp_path):
    sizes, corners = ((20, 40), (60, 30)), ((10, 4, 30, 14), (5, 20, 25, 50))
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, (height, width), box in zip(paths, sizes, corners, strict=True):
        lit(path, width, height, box)
    boxes = tuple(Boxes.of([tuple(map(float, box)), (0, 0, 1, 1)], [1, 0], [False, True]) for box in corners)
    return BoxedFiles(tuple(paths), ("0", "1"), sizes, boxes)


def test_images_keep_their_ratio_and_the_mask_tells_where_they_are(files):
    batch = BoxPreparation(30, square=False, **PLAIN)(files, [0, 1])
    assert batch.images.shape == (2, 3, 30, 30)
    assert [tuple(m.nonzero().amax(0).add(1).tolist()) for m in batch.mask] == [(15, 30), (30, 15)]
    assert [int(m.sum()) for m in batch.mask] == [450, 450]
    assert not (batch.images * ~batch.mask[:, None]).any()
    # crowds are no targets, and stay in the truth
    assert [t["class_labels"].tolist() for t in batch.targets] == [[1], [1]]
    torch.testing.assert_close(batch.targets[0]["boxes"], torch.tensor([[0.5, 0.45, 0.5, 0.5]]))
    assert [b.labels.tolist() for b in batch.truth] == [[1, 0], [1, 0]]
    assert batch.sizes == [(20, 40), (60, 30)]


def test_squares_stretch(files):
    batch = BoxPreparation(32, square=True, **PLAIN)(files, [1])
    assert batch.images.shape == (1, 3, 32, 32)
    assert batch.mask.all()
    torch.testing.assert_close(batch.targets[0]["boxes"], torch.tensor([[0.5, 35 / 60, 20 / 30, 0.5]]))


def white(batch, place):
    """The box of what is light in an image, as parts of it: left, top, right, bottom."""
    height, width = batch.mask[place].nonzero().amax(0).add(1).tolist()
    rows, columns = (batch.images[place, 0, :height, :width] > 0.5).nonzero().T
    low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
    return torch.tensor([low[0] / width, low[1] / height, high[0] / width, high[1] / height])


def corners(target):
    centre, extent = target["boxes"][0].split(2)
    return torch.cat([centre - extent / 2, centre + extent / 2])


@pytest.mark.parametrize("square", [False, True])
def test_boxes_stay_around_what_they_are_around(files, square):
    view = BoxPreparation(60, square=square, variation=BoxVariation(crop=(0.3, 1.0), flip=True), **PLAIN)
    seen = set()
    for seed in range(12):
        batch = view(files, [0, 1], seed)
        for place, target in enumerate(batch.targets):
            if len(target["boxes"]):
                # resampling blurs an edge over a pixel on each side
                torch.testing.assert_close(corners(target), white(batch, place), atol=2.5 / 30, rtol=0)
                seen.add(tuple(corners(target).tolist()))
    assert len(seen) > 20


def test_half_of_the_images_are_mirrored(files):
    files.boxes[1].corners[0] = torch.tensor([0.0, 0, 10, 60])
    view = BoxPreparation(60, square=False, variation=BoxVariation(flip=True), **PLAIN)
    lefts = [round(float(corners(view(files, [1], seed).targets[0])[0]), 4) for seed in range(40)]
    assert set(lefts) == {0.0, round(20 / 30, 4)}
    # within four standard deviations of a fair coin
    assert abs(lefts.count(0.0) - 20) < 4 * 10**0.5


def test_how_an_image_varies_follows_from_the_seed_and_its_index(files):
    view = BoxPreparation(40, square=False, variation=BoxVariation((0.3, 1.0), True, 0.4), **PLAIN)
    together, alone, other = view(files, [0, 1], 3), view(files, [1], 3), view(files, [1], 4)
    height, width = alone.images.shape[2:]
    assert torch.equal(together.images[1, :, :height, :width], alone.images[0])
    assert torch.equal(together.targets[1]["boxes"], alone.targets[0]["boxes"])
    assert not torch.equal(alone.images, other.images)


def test_equal_images_of_a_batch_vary_each_in_its_way(files):
    twice = BoxedFiles(files.paths[:1] * 2, ("a", "b"), files.sizes[:1] * 2, files.boxes[:1] * 2)
    batch = BoxPreparation(40, square=False, variation=BoxVariation(crop=(0.3, 1.0)), **PLAIN)(twice, [0, 1])
    assert not torch.equal(batch.images[0], batch.images[1])


def test_an_image_that_cannot_be_read_is_named_and_replaced_only_in_training(files):
    files.paths[0].write_bytes(b"")
    batch = BoxPreparation(30, square=False, **PLAIN)(files, [0, 1])
    assert batch.indices.tolist() == [1]
    assert len(batch.skipped) == 1
    training = BoxPreparation(30, square=False, variation=BoxVariation(), **PLAIN)
    assert training(files, [0, 1]).indices.tolist() == [1, 1]
    assert BoxPreparation(30, square=False, **PLAIN)(files, [0]).images.shape[0] == 0
    files.paths[1].write_bytes(b"")
    with pytest.raises(InvalidInput, match="none of the 2 images can be read"):
        training(files, [0])
