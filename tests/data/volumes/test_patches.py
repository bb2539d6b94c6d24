"""Patches are functions of seed and index, lie where they are drawn, and keep image and labels together."""

import numpy as np
import pytest
import torch

from qna.data.volumes import Grid, Patches, PatchPreparation, Volume, VolumesInMemory, whole
from qna.data.volumes.labelled import prepared, standardised


def volumes(*shapes, classes=2, empty=()):
    """Volumes whose voxels tell their place, with one voxel of each class."""
    made = []
    for number, shape in enumerate(shapes):
        labels = np.zeros(shape, dtype=np.uint8)
        if number not in empty:
            for k in range(1, classes):
                labels.reshape(-1)[7 * k % labels.size] = k
        voxels = 1 + np.arange(labels.size, dtype=np.float32).reshape(1, *shape)
        made.append(prepared(Volume(voxels, Grid(shape, np.diag([1.0, 2, 3, 1]))), labels))
    return VolumesInMemory(tuple(map(str, range(len(made)))), tuple(made), "")


def test_a_patch_follows_from_seed_and_index_alone():
    patches = Patches(volumes((9, 8, 7), (6, 9, 9)), 10)
    cut = PatchPreparation((4, 3, 5), flip=True, color=0.2)
    together = cut(patches, [3, 14, 5], seed=1)
    alone = [cut(patches, [index], seed=1) for index in (3, 14, 5)]
    for name in ("images", "labels", "indices", "voxel_ml"):
        expected = torch.cat([getattr(one, name) for one in alone])
        assert torch.equal(getattr(together, name), expected)
    assert together.images.shape == (3, 1, 4, 3, 5)
    assert together.labels.dtype == torch.int64
    assert together.voxel_ml.tolist() == [0.006] * 3
    assert not torch.equal(cut(patches, [3], seed=2).images, alone[0].images)


def test_patches_are_parts_of_the_volume_with_their_labels():
    data = volumes((9, 8, 7), classes=4)
    cut, whole_image = PatchPreparation((4, 3, 5)), data.open(0).image
    where = {float(v): i for i, v in enumerate(whole_image.reshape(-1))}
    for index in range(20):
        batch = cut(Patches(data, 20), [index])
        start = np.unravel_index(where[float(batch.images[0, 0, 0, 0, 0])], (9, 8, 7))
        part = tuple(slice(s, s + n) for s, n in zip(start, (4, 3, 5), strict=True))
        assert torch.equal(batch.images[0, 0], whole_image[0][part])
        assert torch.equal(batch.labels[0], data.open(0).classes[part].long())


def counted(foreground, classes=2, shape=(40, 40, 40), draws=300):
    """In which part of the patches each class is."""
    patches = Patches(volumes(shape, classes=classes), draws)
    batch = PatchPreparation((5, 5, 5), foreground)(patches, range(draws))
    return [float((batch.labels == k).flatten(1).any(1).float().mean()) for k in range(1, classes)]


def test_foreground_is_balanced():
    assert counted(1.0) == [1.0]
    # 5 deviations of 300 draws, beside the odd patch that meets it by chance
    assert counted(0.5)[0] == pytest.approx(0.5, abs=0.15)
    assert counted(0.0)[0] < 0.05
    # of 3 classes each is in a third, the ends of their small distance aside: they lie 7 voxels apart
    each = counted(1.0, classes=4)
    assert each == pytest.approx([1 / 3] * 3, abs=0.15)


def test_the_voxel_that_is_drawn_lies_anywhere_in_the_patch():
    labels = np.zeros((30, 30, 30), dtype=np.uint8)
    labels[15, 15, 15] = 1
    volume = prepared(Volume(np.ones((1, 30, 30, 30), np.float32), Grid((30, 30, 30), np.eye(4))), labels)
    patches = Patches(VolumesInMemory(("a",), (volume,), ""), 200)
    batch = PatchPreparation((3, 4, 5), 1.0)(patches, range(200))
    found = {tuple(place) for place in batch.labels.nonzero()[:, 1:].tolist()}
    assert len(found) > 50
    assert [{place[axis] for place in found} for axis in range(3)] == [set(range(n)) for n in (3, 4, 5)]


def test_a_volume_without_classes_gives_patches_from_anywhere():
    patches = Patches(volumes((9, 8, 7), empty=(0,)), 40)
    batch = PatchPreparation((3, 3, 3), 1.0)(patches, range(40))
    assert not batch.labels.any()
    assert len(batch.images[:, 0, 0, 0, 0].unique()) > 10


@pytest.mark.parametrize("shape", [(1, 9, 9), (5, 4, 3), (2, 2, 9), (1, 1, 1)])
def test_short_axes_are_filled_up_behind(shape):
    data = volumes(shape)
    batch = PatchPreparation((4, 4, 4), 1.0)(Patches(data, 3), [0, 1, 2])
    assert batch.images.shape == (3, 1, 4, 4, 4)
    inside = tuple(slice(min(n, 4)) for n in shape)
    outside = torch.ones(4, 4, 4, dtype=torch.bool)
    outside[inside] = False
    assert not batch.images[:, 0, outside].any()
    assert not batch.labels[:, outside].any()
    assert (batch.labels == 1).flatten(1).sum(1).tolist() == [1] * 3


def test_flips_are_left_to_right_and_of_half():
    labels = np.zeros((4, 4, 4), dtype=np.uint8)
    labels[0, 1, 2] = 1
    voxels = labels[None] + 1.0
    # the last axis runs from left to right
    grid = Grid((4, 4, 4), np.eye(4)[[2, 1, 0, 3]])
    data = VolumesInMemory(("a",), (prepared(Volume(voxels.astype(np.float32), grid), labels),), "")
    batch = PatchPreparation((4, 4, 4), flip=True)(Patches(data, 100), range(100))
    places = batch.labels.nonzero()[:, 1:].tolist()
    assert {tuple(p) for p in places} == {(0, 1, 2), (0, 1, 1)}
    assert 25 < sum(p[2] == 1 for p in places) < 75
    assert torch.equal(batch.images[:, 0].flatten(1).argmax(1), batch.labels.flatten(1).argmax(1))


def test_color_changes_images_alone():
    patches = Patches(volumes((9, 8, 7)), 5)
    plain, varied = (PatchPreparation((9, 8, 7), color=c)(patches, range(5)) for c in (0.0, 0.3))
    assert torch.equal(plain.labels, varied.labels)
    for a, b in zip(plain.images, varied.images, strict=True):
        slope = (b[0, 0, 0, 1] - b[0, 0, 0, 0]) / (a[0, 0, 0, 1] - a[0, 0, 0, 0])
        torch.testing.assert_close(b, a * slope + (b - a * slope).mean(), rtol=1e-4, atol=1e-4)
        assert 0.7 <= slope <= 1.3
        assert abs((b - a * slope).mean()) <= 0.3


def test_a_volume_whole():
    data = volumes((9, 8, 7), (2, 1, 3))
    batch = whole(data, [1])
    assert batch.images.shape == (1, 1, 2, 1, 3)
    assert batch.labels.shape == (1, 2, 1, 3)
    assert batch.indices.tolist() == [1]


def test_what_is_cut_off_stays_0():
    voxels = np.array([0, 2, 4, 0, 6, 0], np.float32).reshape(1, 1, 2, 3)
    image = standardised(np.concatenate([voxels, np.full_like(voxels, 5)]))
    expected = torch.tensor([0, -1.2247, 0, 0, 1.2247, 0]).view(1, 2, 3)
    torch.testing.assert_close(image[0], expected, rtol=0, atol=1e-4)
    # one value alone has no deviation
    assert not image[1].any()
