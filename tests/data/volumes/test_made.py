"""Volumes that are made: hemispheres of the template, and lesions of known sizes in them."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from qna.data.volumes import Lesions, compose, load_lesions, load_mni152, read_template
from qna.data.volumes.template import hemisphere, tissues

VOXEL = 4


@pytest.fixture(scope="module")
def template():
    return read_template(VOXEL)


@pytest.fixture(scope="module")
def fine():
    return read_template(1)


def test_the_template_lies_where_it_lay(template, fine):
    coarse = template
    assert fine["t1"].grid.shape == (197, 233, 189)
    assert coarse["t1"].grid.shape == (49, 58, 47)
    assert coarse["t1"].grid.spacing == (4, 4, 4)
    # the mean of the 64 voxels that a coarse one covers, found by millimetres
    middle = coarse["t1"].grid.affine @ [20, 30, 25, 1]
    found = (np.linalg.inv(fine["t1"].grid.affine) @ middle)[:3]
    part = tuple(slice(round(f - 1.5), round(f + 2.5)) for f in found)
    assert fine["t1"].voxels[0][part].mean() == pytest.approx(coarse["t1"].voxels[0, 20, 30, 25], rel=1e-5)
    for volume in fine.values():
        assert volume.voxels.min() == 0
        assert volume.voxels.max() == 1


def test_hemispheres_are_mirror_images_and_that_is_said(fine):
    left, right = (hemisphere(fine["t1"], side) for side in ("left", "right"))
    assert np.array_equal(left.voxels, right.voxels[:, ::-1])
    assert (left.grid.affine @ [97, 0, 0, 1])[0] == -1
    assert (right.grid.affine @ [0, 0, 0, 1])[0] == 1
    data = load_mni152(voxel=VOXEL, patches=7)
    assert data.mirrored
    assert "one brain" in data.origin
    assert "mirror image" in data.origin


def test_tissues(template):
    classes = tissues(template)
    counts = np.bincount(classes.reshape(-1)) * template["t1"].grid.voxel_ml
    # about a litre and a half of brain
    assert 1200 < counts[1] + counts[2] < 2200
    assert (template["gm"].voxels[0][classes == 1] > 0.5).all()
    assert (template["wm"].voxels[0][classes == 2] > 0.5).all()
    data = load_mni152(voxel=VOXEL, patches=7)
    assert (len(data.train), len(data.held_out)) == (7, 1)
    assert data.classes == ("background", "grey matter", "white matter")
    volume = data.train.volumes.open(0)
    assert volume.classes.unique().tolist() == [0, 1, 2]
    # white matter is brighter in T1
    image = volume.image[0]
    assert image[volume.classes == 2].mean() > image[volume.classes == 1].mean()


def sizes(volume):
    """Millilitres of each lesion."""
    pieces, count = ndimage.label(volume.classes.numpy(), structure=np.ones((3, 3, 3)))
    return count, np.bincount(pieces.reshape(-1))[1:] * volume.grid.voxel_ml


def test_lesions_follow_from_their_seed(template):
    first, again, other = (compose(template, "left", seed, Lesions()) for seed in (1, 1, 2))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.classes, again.classes)
    assert not torch.equal(first.classes, other.classes)
    right = compose(template, "right", 1, Lesions())
    assert right.classes.shape != first.classes.shape or not torch.equal(first.classes, right.classes.flip(0))


def test_lesions_have_all_sizes_and_never_touch():
    fine = read_template(2)
    drawn, found = Lesions(fewest=4, most=4), []
    for seed in range(12):
        volume = compose(fine, "left", seed, drawn)
        count, millilitres = sizes(volume)
        assert count <= 4
        found += millilitres.tolist()
        brain = hemisphere(fine["gm"], "left").voxels[0] + hemisphere(fine["wm"], "left").voxels[0]
        assert brain[volume.classes.numpy() == 1].min() > 0.5
    assert 40 <= len(found) <= 48
    assert max(found) <= 15 + 0.008
    # evenly in the logarithm: 72 % of it lies below 3 ml
    assert 0.45 < np.mean(np.array(found) < 3) < 0.92
    assert np.mean(np.array(found) < 0.3) > 0.1
    assert np.mean(np.array(found) > 5) > 0.05


def test_a_lesion_has_the_size_that_was_drawn(template):
    drawn = Lesions(smallest=6.4, largest=6.4, fewest=1, most=1)
    # 100 voxels of 0.064 ml, less what the brain cuts off from the middle
    found = [sizes(compose(template, "left", seed, drawn))[1].tolist() for seed in range(8)]
    assert all(len(one) == 1 for one in found)
    assert np.median([one[0] for one in found]) == pytest.approx(6.4)


def test_lesions_are_brighter_than_their_place(template):
    drawn = Lesions(smallest=6, largest=12, fewest=1, most=1, faintest=0.3, noise=0, shading=0)
    volume = compose(template, "left", 3, drawn)
    base = torch.from_numpy(hemisphere(template["t1"], "left").voxels)
    # standardised, so that brightness is known but for a slope and an offset: where there is none it fits
    inside = (volume.classes == 1)[None]
    far = torch.from_numpy(~ndimage.binary_dilation(inside[0].numpy(), iterations=2))[None] & (base > 0)
    slope, offset = np.polyfit(base[far].numpy(), volume.image[far].numpy(), 1)
    brighter = (volume.image[inside] - offset) / slope - base[inside]
    assert brighter.min() > 0.15
    assert brighter.max() < 0.51


def test_the_data_set():
    data = load_lesions(volumes=3, held_out=2, voxel=VOXEL, patches=10, seed=0)
    assert (len(data.train.volumes), len(data.train), len(data.held_out)) == (3, 12, 2)
    assert data.classes == ("background", "lesion")
    other = load_lesions(volumes=3, held_out=2, voxel=VOXEL, patches=10, seed=1)
    assert data.held_out.digest != other.held_out.digest
    # more volumes leave those before as they were
    more = load_lesions(volumes=4, held_out=2, voxel=VOXEL, patches=10, seed=0)
    assert torch.equal(more.train.volumes.open(2).image, data.train.volumes.open(2).image)
