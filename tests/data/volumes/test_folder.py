"""Folders of the user's volumes: the naming rule, the two parts, and what is wrong in one sentence."""

import numpy as np
import pytest

pytest.importorskip("nibabel", reason="qna[volumes] brings it")
import torch

from qna._core.errors import InvalidInput
from qna.data.volumes import UnreadableVolume, load_volume_folder
from tests.data.volumes.files import fill, picture, write


def two_parts(root):
    fill(root, ["a", "sub/b"], "train")
    return fill(root, ["c"], "val")


def test_train_and_val(tmp_path):
    data = load_volume_folder(two_parts(tmp_path), patches=5)
    assert (len(data.train.volumes), len(data.train), len(data.held_out)) == (2, 6, 1)
    assert data.classes == ("0", "1")
    assert data.channels == 1
    assert data.held_out.shapes == ((6, 7, 5),)
    volume = data.train.volumes.open(1)
    assert volume.image.shape == (1, 6, 7, 5)
    assert volume.image.mean().abs() < 1e-5
    assert volume.image.std() == pytest.approx(1, abs=0.01)
    assert volume.classes.sum() == 8
    assert len(volume.places[1]) == 8
    assert data.train.volumes.open(1) is volume


def test_one_folder_is_split_by_names(tmp_path):
    names = [f"case{n}" for n in range(12)]
    data = load_volume_folder(fill(tmp_path, names), patches=1)
    held_out = {data.held_out.name(i) for i in range(len(data.held_out))}
    assert 0 < len(held_out) < 12
    more = load_volume_folder(fill(tmp_path, [*names, "other"]), patches=1)
    assert held_out <= {more.held_out.name(i) for i in range(len(more.held_out))}


def test_channels_in_files_and_names_of_classes(tmp_path):
    two_parts(tmp_path)
    for path in tmp_path.glob("*/images/**/*.nii.gz"):
        stem = path.name.removesuffix(".nii.gz")
        path.rename(path.with_name(f"{stem}_0000.nii.gz"))
        write(path.with_name(f"{stem}_0001.nii"), picture(seed=9)[0])
    (tmp_path / "classes.txt").write_text("background\ntumour\noedema\n")
    data = load_volume_folder(tmp_path, patches=4)
    assert data.channels == 2
    assert data.classes == ("background", "tumour", "oedema")
    assert data.train.volumes.open(0).image.shape == (2, 6, 7, 5)


def test_an_empty_mask_is_a_mask_and_all_empty_is_nothing_to_learn(tmp_path):
    two_parts(tmp_path)
    write(tmp_path / "train/labels/a.nii.gz", picture(lesion=None)[1])
    data = load_volume_folder(tmp_path, patches=2)
    assert data.train.volumes.open(0).places == {}
    write(tmp_path / "train/labels/sub/b.nii.gz", picture(lesion=None)[1])
    with pytest.raises(
        InvalidInput, match="hold the number 0 alone: without a voxel of a class there is noth"
    ):
        load_volume_folder(tmp_path, patches=2)


def _channel_differs(root):
    voxels, _ = picture()
    write(root / "val/images/c.nii.gz", np.stack([voxels, voxels], -1))


def _number_without_class(root):
    (root / "classes.txt").write_text("background\nlesion\n")
    _, classes = picture()
    classes[0, 0, 0] = 7
    write(root / "train/labels/a.nii.gz", classes)


def _nan(root):
    voxels, _ = picture()
    voxels[1, 1, 1] = np.nan
    write(root / "train/images/a.nii.gz", voxels)


IMAGE, OTHER_IMAGE = "train/images/a.nii.gz", "train/images/a_0001.nii.gz"
# how a folder is made wrong, and what is said of it
WRONG = {
    "no labels": (
        lambda root: (root / "train/labels/a.nii.gz").unlink(),
        r"a\.nii\.gz has no labels: .*labels/a\.nii\.gz is not there",
    ),
    "no image": (
        lambda root: (root / IMAGE).unlink(),
        r"labels/a\.nii\.gz are the labels of no volume in .*images",
    ),
    "twice": (
        lambda root: write(root / "train/images/a.nii", picture()[0]),
        r"a\.nii and .*a\.nii\.gz have the same name but for the suffix",
    ),
    "channels differ": (
        _channel_differs,
        r"c\.nii\.gz has 2 channels, and .*a\.nii\.gz has 1: all volumes must have the same",
    ),
    "a channel is missing": (
        lambda root: (root / IMAGE).rename(root / OTHER_IMAGE),
        r"volume a has 1 channels and none is numbered 0000: .*a_0001\.nii\.gz is one of them",
    ),
    "whole and channels": (
        lambda root: write(root / OTHER_IMAGE, picture()[0]),
        "is a volume, and 1 more files name channels of a: keep one or the others",
    ),
    "no class": (
        _number_without_class,
        r"a\.nii\.gz holds the number 7 in 1 voxels, which is none of 2 classes \(0 to 1\); name more",
    ),
    "NaN": (
        _nan,
        r"a\.nii\.gz holds 1 of 210 voxels that are NaN or infinite: replace them by numbers first",
    ),
    "elsewhere": (
        lambda root: write(root / "train/labels/a.nii.gz", picture()[1], np.eye(4)),
        "lie elsewhere than their image",
    ),
    "no labels folder": (
        lambda root: (root / "train/labels").rename(root / "train/masks"),
        "has images/ and no labels/ beside",
    ),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_is_wrong_is_one_sentence(tmp_path, how):
    make, told = WRONG[how]
    make(two_parts(tmp_path))
    with pytest.raises(InvalidInput, match=told):
        load_volume_folder(tmp_path, patches=2)


def test_a_missing_part_is_said(tmp_path):
    with pytest.raises(
        InvalidInput, match="looked for train/images or training/images in it, with labels/ beside"
    ):
        load_volume_folder(tmp_path / "nowhere", patches=2)
    fill(tmp_path, ["a"], "train")
    with pytest.raises(InvalidInput, match="val/images or validation/images"):
        load_volume_folder(tmp_path, patches=2)


def test_what_becomes_unreadable_later_is_said(tmp_path):
    data = load_volume_folder(two_parts(tmp_path), patches=2)
    (tmp_path / "train/images/a.nii.gz").write_bytes(b"")
    with pytest.raises(UnreadableVolume, match=r"a\.nii\.gz"):
        data.train.volumes.open(0)
    assert torch.is_tensor(data.train.volumes.open(1).image)
