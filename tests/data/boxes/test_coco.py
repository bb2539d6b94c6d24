"""Annotations in COCO's format: what is read, where images are looked for, and what is refused."""

import json
import shutil

import pytest
import torch
from PIL import Image

from qna._core.errors import InvalidInput
from qna.data.boxes import load_coco
from qna.data.images.decoding import UnreadableImage
from qna.data.places import MissingData


def content():
    """Three images, the last without a box; categories whose numbers have gaps, as COCO's."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 20},
            {"id": 3, "file_name": "b.png", "width": 30, "height": 30},
            {"id": 9, "file_name": "c.png", "width": 8, "height": 8},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [10, 5, 20, 10], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0.5, 0, 39.5, 20], "iscrowd": 1},
            # rounded beyond the border, as in COCO itself
            {"id": 5, "image_id": 3, "category_id": 2, "bbox": [-0.4, 1, 31, 4]},
        ],
    }


@pytest.fixture
def folder(tmp_path):
    """The layout of `qna data stamps`; both parts alike."""
    for part in ("train", "val"):
        (tmp_path / part / "images").mkdir(parents=True)
        for image in content()["images"]:
            Image.new("RGB", (image["width"], image["height"])).save(
                tmp_path / part / "images" / image["file_name"]
            )
        (tmp_path / part / "annotations.json").write_text(json.dumps(content()))
    return tmp_path


def test_labels_follow_the_categories_numbers_and_boxes_are_corners(folder):
    data = load_coco(folder)
    assert data.classes == ("cat", "dog")
    files = data.train
    assert files.names == ("a.png", "b.png", "c.png")
    assert files.sizes == ((20, 40), (30, 30), (8, 8))
    first, second, third = files.boxes
    assert first.corners.tolist() == [[10, 5, 30, 15], [0.5, 0, 40, 20]]
    assert first.labels.tolist() == [1, 0]
    assert first.crowd.tolist() == [False, True]
    assert first.apart().labels.tolist() == [1]
    torch.testing.assert_close(second.corners, torch.tensor([[0.0, 1, 30, 5]]))
    assert third.corners.shape == (0, 4)
    image, boxes = files.open(0)
    assert image.size == (40, 20)
    assert boxes is first


def test_an_image_of_another_size_is_unreadable(folder):
    Image.new("RGB", (20, 40)).save(folder / "train" / "images" / "a.png")
    with pytest.raises(UnreadableImage, match=r"a.png: 20 x 40 pixels, and its boxes are of 40 x 20"):
        load_coco(folder).train.open(0)


def move_to_coco(folder):
    (folder / "annotations").mkdir()
    for part in ("train", "val"):
        (folder / part / "annotations.json").rename(folder / "annotations" / f"instances_{part}2017.json")
        (folder / part / "images").rename(folder / f"{part}2017")
        (folder / part).rmdir()
        # COCO has others beside
        (folder / "annotations" / f"captions_{part}2017.json").write_text("{}")


def test_the_layout_of_coco_itself(folder):
    stamps = load_coco(folder).train
    move_to_coco(folder)
    data = load_coco(folder)
    assert data.train.paths[0] == folder / "train2017" / "a.png"
    assert data.train.digest == stamps.digest


@pytest.mark.parametrize("inside", ["", "train2017"])
def test_images_may_be_elsewhere(folder, inside, tmp_path):
    move_to_coco(folder)
    elsewhere = tmp_path / "elsewhere" / inside
    shutil.copytree(folder / "train2017", elsewhere)
    shutil.rmtree(folder / "train2017")
    with pytest.raises(InvalidInput, match=r"names the image 'a.png', which is in none of .*--images-dir"):
        load_coco(folder)
    shutil.copytree(
        folder / "val2017", tmp_path / "elsewhere" / ("val2017" if inside else ""), dirs_exist_ok=True
    )
    assert load_coco(folder, tmp_path / "elsewhere").train.paths[0] == elsewhere / "a.png"


def test_the_digest_sees_boxes_and_no_place(folder, tmp_path):
    before = load_coco(folder).train.digest
    moved = tmp_path / "moved"
    shutil.copytree(folder / "train", moved / "train")
    shutil.copytree(folder / "val", moved / "val")
    assert load_coco(moved).train.digest == before
    spoil(folder, lambda c: c["annotations"][0].update(bbox=[10, 5, 20, 11]))
    assert load_coco(folder).train.digest != before


def spoil(folder, change):
    told = content()
    change(told)
    (folder / "train" / "annotations.json").write_text(json.dumps(told))


BOX = "box 1"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.pop("categories"), "no file of COCO's annotations.* has no list 'categories'"),
        (lambda c: c["images"].clear(), "has no images"),
        (lambda c: c["images"].append(3), "entry 3 of 'images' must be an object, got 3"),
        (lambda c: c["images"][1].pop("width"), "width of entry 1 of 'images' must be int, got None"),
        (lambda c: c["images"][1].update(width=0), "image 3 is 0 x 30 pixels"),
        (lambda c: c["images"][1].update(id=7), "two entries of 'images' have the id 7"),
        (lambda c: c["images"][1].update(file_name="a.png"), "two entries of 'images' are called 'a.png'"),
        (
            lambda c: c["images"][1].update(file_name="z.png"),
            "image 3 is 'z.png', which is not in .*--images-dir",
        ),
        (lambda c: c["categories"][1].update(id=18), "two entries of 'categories' have the id 18"),
        (lambda c: c["categories"][1].update(name="dog"), "two entries of 'categories' are called 'dog'"),
        (lambda c: c["annotations"][1].update(id=1), "two entries of 'annotations' have the id 1"),
        (
            lambda c: c["annotations"][0].update(image_id=8),
            f"{BOX} belongs to image 8, which is not in the file",
        ),
        (
            lambda c: c["annotations"][0].update(category_id=1),
            f"{BOX} has category 1, none of the 2 in the file",
        ),
        (lambda c: c["annotations"][0].update(iscrowd=2), f"{BOX}: iscrowd must be 0 or 1, got 2"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), f"{BOX} must be four finite numbers"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, "3", 4]), f"{BOX} must be four finite numbers"),
        (
            lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 4]),
            "is not JSON: NaN is not a number",
        ),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 4]), rf"{BOX} has no area: \[1, 2, 0, 4\]"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, -4]), rf"{BOX} has no area: \[1, 2, 3, -4\]"),
        (
            lambda c: c["annotations"][0].update(bbox=[30, 5, 12, 4]),
            rf"{BOX} lies outside its image of 40 x 20 pixels: \[30, 5, 12, 4\] .* --drop-bad-boxes",
        ),
        (lambda c: c["annotations"][0].update(bbox=[-0.9, 2, 0.5, 4]), f"{BOX} has no area inside its image"),
        (lambda c: c["annotations"].clear(), "has no box"),
        (lambda c: [a.update(iscrowd=1) for a in c["annotations"]], r"has no box \(crowds do not count\)"),
        (
            lambda c: c["categories"][1].update(name="cow"),
            "same categories, but only one of them has 'cat' as number 2",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(folder, change, says):
    spoil(folder, change)
    with pytest.raises(InvalidInput, match=says) as caught:
        load_coco(folder)
    assert "\n" not in str(caught.value)


def test_bad_boxes_are_left_out_where_one_says_so(folder):
    spoil(
        folder,
        lambda c: (
            c["annotations"][0].update(bbox=[1, 2, 0, 4]),
            c["annotations"][1].update(bbox=[90, 2, 9, 4]),
        ),
    )
    data = load_coco(folder, drop_bad_boxes=True)
    assert [len(boxes.labels) for boxes in data.train.boxes] == [0, 1, 0]
    assert data.origin.endswith("; 2 bad boxes left out")
    # what is no box at all stays an error
    spoil(folder, lambda c: c["annotations"][0].update(bbox=[1]))
    with pytest.raises(InvalidInput, match="must be four finite numbers"):
        load_coco(folder, drop_bad_boxes=True)


def test_missing_and_ambiguous_files_are_named(folder, tmp_path):
    with pytest.raises(
        MissingData, match=r"looked for annotations/instances_train\*.json or .*qna data stamps"
    ):
        load_coco(tmp_path / "nowhere")
    (folder / "val" / "annotations.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"val/annotations.json is not JSON"):
        load_coco(folder)
    move_to_coco(folder)
    (folder / "annotations" / "instances_train2014.json").write_text("{}")
    with pytest.raises(
        InvalidInput, match=r"2 files of annotations for train: instances_train2014.json, .*; leave one"
    ):
        load_coco(folder)
