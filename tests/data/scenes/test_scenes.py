"""Scenes of stamps that are known: what is written is what was pasted, and what is held out was not."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from qna._core.errors import InvalidInput, UnknownName
from qna.cli import main
from qna.data.masks import load_masked_folder
from qna.data.places import MissingData
from qna.data.scenes import SceneOptions, compose, find_photographs, find_stamps, sources, write_scenes
from qna.data.scenes.writing import run_lengths


@pytest.fixture
def sources_of_ours(tmp_path):
    """Discs and bars, each stamp in a colour of its own, and grey photographs."""
    for kind in ("disc", "bar"):
        folder = tmp_path / "stamps" / kind
        folder.mkdir(parents=True)
        for number in range(5):
            stamp = Image.new("RGBA", (60, 40))
            colour = (250, 50 * number, 0, 255) if kind == "disc" else (0, 50 * number, 250, 255)
            draw = ImageDraw.Draw(stamp)
            draw.ellipse((5, 5, 50, 35), fill=colour) if kind == "disc" else draw.rectangle(
                (5, 15, 50, 25), fill=colour
            )
            stamp.save(folder / f"{number}.png")
    (tmp_path / "photos").mkdir()
    for number in range(4):
        Image.new("RGB", (90, 70), (60 * number,) * 3).save(tmp_path / "photos" / f"{number}.png")
    return {"stamps": tmp_path / "stamps", "photos": tmp_path / "photos"}


@pytest.fixture
def written(sources_of_ours, tmp_path):
    options = SceneOptions(images=12, held_out=4, size=48, seed=1, **sources_of_ours)
    write_scenes(tmp_path / "scenes", options)
    return tmp_path / "scenes"


def test_masks_say_what_is_seen(written):
    data = load_masked_folder(written)
    assert data.classes == ("background", "bar", "disc")
    assert (len(data.train), len(data.held_out)) == (12, 4)
    assert min(data.train.pixels) > 0
    for index in range(12):
        image, mask = data.train.open(index)
        red, _, blue = np.asarray(image).astype(int).transpose(2, 0, 1)
        # photographs are grey; where opacity is between, colours mix
        told = np.where(red > blue + 125, 2, np.where(blue > red + 125, 1, 0))
        assert (told != mask).mean() < 0.03
        assert (told == mask)[mask > 0].mean() > 0.9


def test_boxes_and_codes_are_those_of_the_masks(written):
    coco = json.loads((written / "train" / "annotations.json").read_text())
    data = load_masked_folder(written)
    assert coco["categories"] == [{"id": 1, "name": "bar"}, {"id": 2, "name": "disc"}]
    by_image = {image["id"]: image for image in coco["images"]}
    assert len(by_image) == 12
    assert len({a["id"] for a in coco["annotations"]}) == len(coco["annotations"]) > 12
    masks = {path.name: data.train.open(i)[1] for i, path in enumerate(data.train.images)}
    covered = {name: np.zeros_like(mask) for name, mask in masks.items()}
    for annotation in coco["annotations"]:
        name = by_image[annotation["image_id"]]["file_name"]
        pixels = decoded(annotation["segmentation"])
        left, top, width, height = annotation["bbox"]
        rows, columns = np.nonzero(pixels)
        assert (columns.min(), columns.max() + 1) == (left, left + width)
        assert (rows.min(), rows.max() + 1) == (top, top + height)
        assert annotation["area"] == pixels.sum() >= 16
        assert (masks[name][pixels] == annotation["category_id"]).all()
        covered[name] += pixels
    # no pixel belongs to two objects, and few belong to one of which too little is seen
    assert max(c.max() for c in covered.values()) == 1
    left_out = sum(((masks[n] > 0) != (c > 0)).sum() for n, c in covered.items())
    assert left_out < 16 * len(masks)


def decoded(code):
    height, width = code["size"]
    values = np.repeat(np.arange(len(code["counts"])) % 2, code["counts"])
    return values.reshape(width, height).T.astype(bool)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools and NumPy 2
def test_codes_are_read_by_coco(written):
    mask_of = pytest.importorskip("pycocotools.mask")
    coco = json.loads((written / "val" / "annotations.json").read_text())
    for annotation in coco["annotations"]:
        code = annotation["segmentation"]
        theirs = mask_of.decode(mask_of.frPyObjects(code, *code["size"]))
        assert np.array_equal(theirs.astype(bool), decoded(code))


@pytest.mark.parametrize("first", [False, True])
def test_run_lengths(first):
    pixels = np.zeros((2, 3), dtype=bool)
    pixels[0, 0] = first
    pixels[1, 1:] = True
    assert run_lengths(pixels) == ([0, 1, 2, 1, 1, 1] if first else [3, 1, 1, 1])
    assert run_lengths(np.ones((2, 2), dtype=bool)) == [0, 4]


def test_a_scene_follows_from_its_number(sources_of_ours, tmp_path, written):
    more = SceneOptions(images=14, held_out=1, size=48, seed=1, **sources_of_ours)
    write_scenes(tmp_path / "more", more)
    for name in ("000003.png", "000011.png"):
        for kind in ("images", "masks"):
            a, b = (root / "train" / kind / name for root in (tmp_path / "more", written))
            assert a.read_bytes() == b.read_bytes()
    other = SceneOptions(images=4, held_out=1, size=48, seed=2, **sources_of_ours)
    write_scenes(tmp_path / "other", other)
    a, b = (root / "train" / "images" / "000003.png" for root in (tmp_path / "other", written))
    assert a.read_bytes() != b.read_bytes()


def test_held_out_scenes_show_other_stamps_and_photographs(written):
    data, greens, greys = load_masked_folder(written), {}, {}
    for part, files in (("train", data.train), ("val", data.held_out)):
        greens[part], greys[part] = set(), set()
        for index in range(len(files)):
            image, mask = files.open(index)
            pixels = np.asarray(image)
            greens[part] |= set(pixels[..., 1][(mask == 2) & (pixels[..., 0] > 245)].tolist())
            # the colour of most of the background
            greys[part].add(int(np.bincount(pixels[..., 0][mask == 0]).argmax()))
    # the fifth disc is 200 green, the fourth photograph 180 grey
    assert greys == {"train": {0, 60, 120}, "val": {180}}
    assert {g for g in greens["val"] if 195 < g < 205}
    assert not {g for g in greens["train"] if 195 < g < 205}


def test_a_stamp_that_is_hidden_is_no_object(sources_of_ours):
    _, stamps = find_stamps(sources_of_ours["stamps"])
    photographs = find_photographs(sources_of_ours["photos"])
    for seed in range(20):
        scene = compose(photographs, stamps, 48, 6, seed)
        assert len(scene.objects) <= 6
        seen = sum(found.pixels.astype(int) for found in scene.objects) if scene.objects else np.zeros((1,))
        assert seen.max() <= 1
        for found in scene.objects:
            assert (scene.mask[found.pixels] == found.label).all()


def test_what_cannot_be_composed_is_refused(sources_of_ours, tmp_path, written, monkeypatch):
    stamps = sources_of_ours["stamps"]
    with pytest.raises(InvalidInput, match="scenes holds something already; name a new folder"):
        write_scenes(written, SceneOptions(**sources_of_ours))
    (stamps / ".ipynb_checkpoints").mkdir()
    (stamps / "@eaDir").mkdir()
    assert find_stamps(stamps)[0] == ("bar", "disc")
    photographs = sorted(sources_of_ours["photos"].iterdir())
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in photographs:
        (broken / path.name).write_bytes(path.read_bytes()[:60])
    with pytest.raises(InvalidInput, match=r"a photograph cannot be read: .*broken/\d.png"):
        write_scenes(tmp_path / "new", SceneOptions(**{**sources_of_ours, "photos": broken}))
    with pytest.raises(UnknownName, match="unknown class of stamps 'disk'; did you mean 'disc'"):
        find_stamps(stamps, ("disk",))
    for path in list((stamps / "disc").iterdir())[1:]:
        Image.new("RGB", (5, 5)).save(path)
    with pytest.raises(InvalidInput, match=r"class 'disc' needs at least two PNG files .* got 1"):
        find_stamps(stamps)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match=r"at least two photographs, .* got 0"):
        find_photographs(tmp_path / "empty")
    with pytest.raises(InvalidInput, match=r"nowhere cannot be searched"):
        find_photographs(tmp_path / "nowhere")
    monkeypatch.setattr(sources, "TUX_PAINT", tmp_path / "nowhere")
    said = (
        r"'stamps' was not found: .* `apt-get install tuxpaint-stamps-default` or `qna data stamps --stamps"
    )
    with pytest.raises(MissingData, match=said):
        find_stamps(None)
    for name in ("images", "held_out", "size", "objects"):
        with pytest.raises(InvalidInput, match=rf"{name} must be at least \d+, got 0"):
            SceneOptions(**{name: 0})


def test_the_command(sources_of_ours, tmp_path, capsys):
    out = tmp_path / "out"
    options = [word for name, value in sources_of_ours.items() for word in (f"--{name}", str(value))]
    words = [
        "data",
        "stamps",
        "--out",
        str(out),
        "--images",
        "3",
        "--held-out",
        "2",
        "--size",
        "32",
        *options,
    ]
    assert main([*words, "--classes", "disc"]) == 0
    assert "3 scenes to train on and 2 held out" in capsys.readouterr().out
    assert load_masked_folder(out).classes == ("background", "disc")
    assert main([*words]) == 2
    assert "holds something already" in capsys.readouterr().err


def test_the_photographs_of_scikit_image_are_there():
    pytest.importorskip("skimage")
    found = find_photographs(None)
    assert len(found) == 12
    for path in found:
        with Image.open(path) as image:
            assert min(image.size) >= 100
