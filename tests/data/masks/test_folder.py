"""Which images and masks belong together, what a mask may hold, and what is refused in one sentence."""

import numpy as np
import pytest
from PIL import Image

from qna._core.errors import InvalidInput
from qna.data.masks import colours, load_masked_folder, save_mask
from qna.data.masks.decoding import read_mask
from qna.data.places import MissingData
from tests.data.masks.conftest import put


def test_a_folder_with_two_parts(folder):
    data = load_masked_folder(folder)
    assert data.classes == ("sky", "sea", "land")
    assert [p.stem for p in data.train.images] == ["a", "b", "c"]
    assert [p.stem for p in data.held_out.images] == ["x", "y"]
    assert data.train.pixels == (72, 72, 72)  # and as many are ignored
    assert data.palette == ((0, 0, 0), (250, 0, 0), (0, 250, 0))
    image, mask = data.train.open(2)
    assert image.size == (12, 8)
    assert mask.tolist()[0] == [0] * 6 + [1] * 6
    assert mask.tolist()[7] == [2] * 6 + [255] * 6
    assert data.ignore == 255
    assert load_masked_folder(folder).train.digest == data.train.digest != data.held_out.digest


def test_any_change_of_a_mask_or_name_changes_the_digest(folder):
    before = load_masked_folder(folder).train.digest
    blocks = np.array([[0, 1], [2, 255]]).repeat(4, 0).repeat(6, 1)
    blocks[0, 0] = 1
    put(folder / "train", "a", blocks)
    after = load_masked_folder(folder).train.digest
    assert after != before
    for kind in ("images", "masks"):
        (folder / "train" / kind / "a.png").rename(folder / "train" / kind / "aa.png")
    assert load_masked_folder(folder).train.digest not in (before, after)


def test_a_folder_without_parts_holds_out_by_name(tmp_path):
    blocks = np.array([[0, 1]]).repeat(4, 0).repeat(4, 1)
    for number in range(30):
        put(tmp_path, f"{number}", blocks)
    held_out = {p.stem for p in load_masked_folder(tmp_path).held_out.images}
    assert 2 <= len(held_out) <= 10
    # others do not move those that are there
    for number in range(30, 40):
        put(tmp_path, f"{number}", blocks)
    data = load_masked_folder(tmp_path)
    assert {p.stem for p in data.held_out.images if int(p.stem) < 30} == held_out
    assert len(data.train) + len(data.held_out) == 40
    # without classes.txt they go by their numbers
    assert data.classes == ("0", "1")


def test_colours_are_those_of_pascal_voc():
    # aeroplane, bicycle, person, tvmonitor
    found = colours(21)
    assert [found[n] for n in (0, 1, 2, 15, 20)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (192, 128, 128),
        (0, 64, 128),
    ]
    assert len(set(colours(256))) == 256


def test_a_written_mask_is_read_back(tmp_path):
    classes = np.array([[0, 1, 2], [2, 1, 255]], dtype=np.uint8)
    own = ((9, 8, 7), (1, 2, 3), (4, 5, 6))
    save_mask(tmp_path / "a.png", classes, own)
    values, palette = read_mask(tmp_path / "a.png")
    assert np.array_equal(values, classes)
    assert palette == (*own, *colours(256)[3:])


def refuse(folder, says, **options):
    with pytest.raises(InvalidInput, match=says) as refused:
        load_masked_folder(folder, **options)
    assert "\n" not in str(refused.value)


def test_what_does_not_fit_is_refused(folder):
    masks = folder / "train" / "masks"
    (masks / "b.png").rename(masks / "z.png")
    refuse(folder, r"train/images/b.png has no mask: .*train/masks/b.png is not there")
    put(folder / "train", "b", np.zeros((4, 4)))
    refuse(folder, r"masks/z.png is the mask of no image in .*train/images")
    (masks / "z.png").unlink()
    put(folder / "train", "b", np.zeros((4, 6)), size=(4, 4))
    refuse(folder, r"images/b.png has 4 x 4 pixels and its mask .*b.png 6 x 4; they must be equal")
    put(folder / "train", "b", np.zeros((4, 6)), suffix="bmp")
    refuse(folder, r"b.bmp and .*b.png have the same name but for the suffix")


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("RGB", "b.png is no mask: its pixels are RGB and not one number"),
        ("RGBA", "b.png is no mask: its pixels are RGBA"),
        ("I;16", "b.png is no mask: its pixels are I;16"),
        ("broken", r"the mask .*b.png cannot be read as a PNG"),
    ],
)
def test_files_that_are_no_masks(folder, mode, says):
    path = folder / "train" / "masks" / "b.png"
    if mode == "broken":
        path.write_bytes(path.read_bytes()[:60])
    else:
        Image.new(mode, (12, 8)).save(path)
    refuse(folder, says)


def test_numbers_that_are_no_class(folder):
    put(folder / "val", "x", np.array([[0, 7]]))
    said = (
        r"val/masks/x.png holds the number 7 in 1 pixels, which is none of 3 classes \(0 to 2\); .*--ignore 7"
    )
    refuse(folder, said)
    put(folder / "val", "x", np.array([[0, 1]]))
    refuse(folder, r"train/masks/a.png holds the number 255 in 24 pixels.*--ignore 255", ignore=100)
    refuse(folder, r"ignore=2 is the number of class 'land' in .*: give pixels .* from 3 to 255", ignore=2)
    refuse(folder, "ignore must be one of the 256 numbers of a mask's pixels, got 256", ignore=256)


def test_one_class_is_nothing_to_tell_apart(tmp_path):
    for part in ("train", "val"):
        put(tmp_path / part, "a", np.array([[0, 255], [0, 255]]), mode="L")
    refuse(tmp_path, r"no two classes to tell apart: beside the number 255, .* hold the number 0 alone")


@pytest.mark.parametrize("text", ["a\n\nb\n", "a\na\n", "\n", "x\n" * 300])
def test_names_of_classes(folder, text):
    (folder / "classes.txt").write_text(text)
    refuse(folder, "classes.txt must name each of up to 256 classes on a line of its own")
    (folder / "classes.txt").unlink()
    assert load_masked_folder(folder).classes == ("0", "1", "2")


def test_missing_parts(tmp_path, folder):
    with pytest.raises(
        MissingData, match=r"nowhere' was not found: looked for train/images .*qna data stamps"
    ):
        load_masked_folder(tmp_path / "nowhere")
    for path in (folder / "val" / "images").iterdir():
        path.unlink()
    for path in (folder / "val" / "masks").iterdir():
        path.unlink()
    refuse(folder, r"has no images to hold out; it has 3 in all")
    (folder / "val" / "masks").rmdir()
    refuse(folder, r"val has images/ and no masks/ beside")
