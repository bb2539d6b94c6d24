"""NIfTI in and out: where voxels lie is kept, and what is wrong with a file is one sentence."""

import nibabel
import numpy as np
import pytest

pytest.importorskip("nibabel", reason="qna[volumes] brings it")

from qna.data.volumes import UnreadableVolume, read_labels, read_volume, write_labels
from qna.data.volumes.nifti import require_same_place
from tests.data.volumes.files import OBLIQUE, picture, write


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_labels_come_back_where_they_were(tmp_path, suffix):
    voxels, labels = picture((4, 5, 1))
    image = write(tmp_path / "image.nii.gz", voxels)
    volume = read_volume([image])
    assert volume.voxels.shape == (1, 4, 5, 1)
    assert np.array_equal(volume.voxels[0], voxels)
    write_labels(tmp_path / f"out.{suffix}", labels, volume.grid)
    classes, grid = read_labels(tmp_path / f"out.{suffix}")
    assert np.array_equal(classes, labels)
    assert grid.same_place(volume.grid)
    written = nibabel.load(tmp_path / f"out.{suffix}")
    np.testing.assert_allclose(written.affine, OBLIQUE, rtol=1e-6)
    np.testing.assert_allclose(written.header.get_zooms(), np.sqrt((OBLIQUE[:3, :3] ** 2).sum(0)), rtol=1e-6)
    assert written.get_data_dtype() == np.uint8
    # the same file for the same labels
    write_labels(tmp_path / f"again.{suffix}", labels, volume.grid)
    assert (tmp_path / f"again.{suffix}").read_bytes() == (tmp_path / f"out.{suffix}").read_bytes()


def test_spacing_and_millilitres(tmp_path):
    grid = read_volume([write(tmp_path / "a.nii", picture()[0])]).grid
    np.testing.assert_allclose(grid.spacing, np.sqrt((OBLIQUE[:3, :3] ** 2).sum(0)), rtol=1e-6)
    assert grid.voxel_ml == pytest.approx(abs(np.linalg.det(OBLIQUE[:3, :3])) / 1000, rel=1e-6)
    assert grid.sideways == 0
    turned = np.diag([1, 2.0, 1, 1])[[2, 0, 1, 3]]
    assert read_volume([write(tmp_path / "b.nii", picture()[0], turned)]).grid.sideways == 2
    # a part's voxels lie where they lay
    np.testing.assert_allclose(grid.shifted((1, 2, 3)) @ [0, 0, 0, 1], grid.affine @ [1, 2, 3, 1])


def test_channels_last_or_in_files(tmp_path):
    both = np.stack([picture(seed=n)[0] for n in range(2)], -1)
    four = read_volume([write(tmp_path / "four.nii", both)])
    files = read_volume([write(tmp_path / f"one_{n}.nii", both[..., n]) for n in range(2)])
    assert four.voxels.shape == (2, 6, 7, 5)
    assert np.array_equal(four.voxels, files.voxels)
    assert read_volume([write(tmp_path / "single.nii", both[..., :1])]).voxels.shape == (1, 6, 7, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_one_sentence(tmp_path, value):
    voxels, _ = picture()
    voxels[0, 0, :2] = value
    with pytest.raises(
        UnreadableVolume, match=r"holds 2 of 210 voxels that are NaN or infinite: replace them"
    ):
        read_volume([write(tmp_path / "a.nii.gz", voxels)])


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ([0, 0, 0], r"its axes are 0, \S+, \S+ mm a voxel"),
        ([np.nan, 0, 0], "its axes are nan"),
        (OBLIQUE[:3, 1], "two of its axes run along each other"),
    ],
)
def test_a_wrong_affine_is_said(tmp_path, column, why):
    affine = OBLIQUE.copy()
    affine[:3, 0] = column
    image = nibabel.Nifti1Image(picture()[0], np.eye(4))
    image.header.set_sform(affine, code=1)
    image.header["qform_code"] = 0
    image.header["pixdim"][1:4] = 1
    (tmp_path / "a.nii").write_bytes(
        bytes(image.header.binaryblock) + b"\0" * 4 + image.get_fdata(dtype=np.float32).tobytes("F")
    )
    with pytest.raises(UnreadableVolume, match=f"the affine of .*a.nii is wrong: {why}.*; set it anew"):
        read_volume([tmp_path / "a.nii"])


def test_labels_that_lie_elsewhere_are_said(tmp_path):
    voxels, labels = picture()
    image = write(tmp_path / "image.nii", voxels)
    grid = read_volume([image]).grid
    moved = OBLIQUE.copy()
    moved[0, 3] += 1
    for name, affine, told in (
        ("moved", moved, r"its affine is .*31\.0.* in the place of .*30\.0.*"),
        ("cut", OBLIQUE, "5 x 7 x 5 voxels in the place of 6 x 7 x 5"),
    ):
        kept = labels[1:] if name == "cut" else labels
        path = write(tmp_path / f"{name}.nii", kept, affine)
        with pytest.raises(UnreadableVolume, match=f"lie elsewhere than their image.*{told}; resample"):
            require_same_place(path, read_labels(path)[1], image, grid)
    # what headers round away is not elsewhere
    near = OBLIQUE + 1e-5
    near[3] = OBLIQUE[3]
    path = write(tmp_path / "near.nii", labels, near)
    require_same_place(path, read_labels(path)[1], image, grid)


def test_channels_that_lie_elsewhere_are_said(tmp_path):
    files = [write(tmp_path / f"{n}.nii", picture()[0], OBLIQUE * (1 + n)) for n in range(2)]
    with pytest.raises(UnreadableVolume, match=r"1\.nii lies elsewhere than .*0\.nii: its affine is"):
        read_volume(files)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.full((2, 2, 2), 0.5, np.float32), "holds 0.5, and labels are whole numbers from 0 to 255"),
        (np.full((2, 2, 2), -1, np.int16), "holds -1, and"),
        (np.full((2, 2, 2), 256, np.int16), "holds 256, and"),
        (np.full((2, 2, 2), np.nan, np.float32), "holds nan, and"),
        (np.full((2, 2, 2), np.inf, np.float32), "holds inf, and"),
        (np.zeros((2, 2, 2, 2), np.uint8), "has 2 channels, and labels have one number a voxel"),
        (np.zeros((2, 2), np.uint8), r"has the shape \(2, 2\), and a volume has three axes"),
    ],
)
def test_what_is_no_label_is_said(tmp_path, values, told):
    with pytest.raises(UnreadableVolume, match=told):
        read_labels(write(tmp_path / "a.nii", values))


def test_whole_numbers_may_be_stored_as_others(tmp_path):
    classes, _ = read_labels(write(tmp_path / "a.nii", np.arange(8, dtype=np.float64).reshape(2, 2, 2)))
    assert classes.dtype == np.uint8
    assert classes.tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]


def test_files_that_are_none_are_said(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"no volume")
    with pytest.raises(UnreadableVolume, match="is no NIfTI file that can be read"):
        read_volume([tmp_path / "a.nii.gz"])
    with pytest.raises(UnreadableVolume, match=r"there is no file .*b\.nii"):
        read_volume([tmp_path / "b.nii"])
    path = write(tmp_path / "c.nii.gz", picture((20, 20, 20), lesion=None)[0])
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(UnreadableVolume, match=r"the voxels of .*c\.nii\.gz cannot be read"):
        read_volume([path])
