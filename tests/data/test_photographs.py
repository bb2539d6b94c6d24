"""Folders, tar files, shards and hub data sets: what is read, and what damage does."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from qna._core.errors import InvalidInput, UnknownName
from qna.data import (
    Photo,
    Preparation,
    TrainingOrder,
    UnreadableImage,
    evaluation_batches,
    load_data,
    training_batches,
)
from qna.data.images import hub

COLOURS = {"blue": (0, 0, 250), "red": (250, 0, 0)}


def picture(colour, size=(20, 14), kind="PNG"):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path):
    """train/ and val/ with blue and red images; names do not sort like the order of writing."""
    for part, count in (("train", 4), ("val", 2)):
        for name, colour in reversed(COLOURS.items()):
            place = tmp_path / "photos" / part / name
            place.mkdir(parents=True)
            for i in range(count):
                (place / f"{i}.png").write_bytes(picture(colour))
    (tmp_path / "photos" / "train" / "red" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def colours(images):
    """(label, blue or red) of every image."""
    found = []
    for i in range(len(images)):
        image, label = images.open(i)
        r, _, b = np.asarray(image).reshape(-1, 3).mean(0)
        found.append((label, "red" if r > b else "blue"))
    return found


def test_a_folder_of_classes(folder):
    data = load_data(str(folder))
    assert data.classes == ("blue", "red")
    assert colours(data.train) == [(0, "blue")] * 4 + [(1, "red")] * 4
    assert colours(data.held_out) == [(0, "blue")] * 2 + [(1, "red")] * 2
    assert data.channels == 3


@pytest.mark.parametrize("name", ["validation", "test"])
def test_the_held_out_part_has_several_names(folder, name):
    (folder / "val").rename(folder / name)
    assert len(load_data(str(folder)).held_out) == 4


def test_photos_are_turned_upright(folder):
    photo, exif = Image.new("RGB", (20, 14), COLOURS["blue"]), Image.Exif()
    photo.paste(COLOURS["red"], (0, 0, 10, 14))
    exif[0x0112] = 6  # orientation: the left edge is the top of what the camera saw
    photo.save(folder / "val" / "red" / "0.jpg", exif=exif)
    image, _ = load_data(str(folder)).held_out.open(2)
    pixels = np.asarray(image)
    assert pixels.shape == (20, 14, 3)
    assert pixels[:8, :, 0].min() > 200
    assert pixels[12:, :, 0].max() < 50


def test_what_is_missing_from_a_folder_is_named(folder):
    (folder / "val").rename(folder / "elsewhere")
    with pytest.raises(InvalidInput, match=r"looked for val/ or validation/ or valid/ or test/ in .*photos"):
        load_data(str(folder))
    (folder / "elsewhere").rename(folder / "val")
    (folder / "val" / "green").mkdir()
    with pytest.raises(InvalidInput, match=r"val has a class that .*train does not have: 'green'"):
        load_data(str(folder))
    for path in (folder / "train").rglob("*.png"):
        path.unlink()
    (folder / "val" / "green").rmdir()
    with pytest.raises(InvalidInput, match="train has no images in folders of classes"):
        load_data(str(folder))


def test_options_that_a_folder_cannot_use_are_refused(folder, tmp_path):
    with pytest.raises(InvalidInput, match="is a folder, so data_dir and download cannot be used with it"):
        load_data(str(folder), tmp_path, download=True)


def test_a_place_that_is_not_there_is_unknown_data(tmp_path):
    with pytest.raises(UnknownName, match="unknown data"):
        load_data(str(tmp_path / "none"))


def view(size=8, *, replace=False, photo=None):
    return Preparation(size, (0.5,) * 3, (0.5,) * 3, photo or Photo(size), replace=replace)


@pytest.mark.parametrize("content", [b"", b"no image", picture((1, 2, 3))[:60], None])
def test_an_unreadable_image_is_named_and_left_out_of_evaluation(folder, content):
    data, path = load_data(str(folder)), folder / "val" / "blue" / "1.png"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=str(path)):
        data.held_out.open(1)
    batches = list(evaluation_batches(data.held_out, view(), 2))
    assert [b.indices.tolist() for b in batches] == [[0], [2, 3]]
    assert [len(b.images) for b in batches] == [1, 2]
    (line,) = batches[0].skipped
    assert line.startswith(f"{path}: ")
    # the same words each time, so that a run can count it once
    assert next(evaluation_batches(data.held_out, view(), 2)).skipped == [line]


def test_a_batch_of_unreadable_images_is_empty(folder):
    data = load_data(str(folder))
    for path in (folder / "val").rglob("*.png"):
        path.write_bytes(b"")
    batches = list(evaluation_batches(data.held_out, view(), 4))
    assert batches[0].images.shape == (0, 3, 8, 8)
    assert len(batches[0].skipped) == 4


def test_training_takes_the_next_image_in_its_place(folder):
    data = load_data(str(folder))
    (folder / "train" / "red" / "3.png").write_bytes(b"no image")  # the last: the first comes next
    order = TrainingOrder(8, 8, seed=0)
    (batch,) = training_batches(data.train, view(replace=True), order, epoch=0)
    expected = [0 if i == 7 else i for i in order.epoch(0)[0]]
    assert batch.indices.tolist() == expected
    assert batch.labels.tolist() == [int(i >= 4) for i in expected]
    assert len(batch.skipped) == 1


def test_training_without_any_readable_image_says_so(folder):
    data = load_data(str(folder))
    for path in (folder / "train").rglob("*.png"):
        path.write_bytes(b"")
    batches = training_batches(data.train, view(replace=True), TrainingOrder(8, 8, seed=0), epoch=0)
    with pytest.raises(InvalidInput, match=r"none of the 8 images can be read; .*\.png: "):
        next(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_random_framing_follows_from_seed_and_index(folder, workers):
    rng = np.random.default_rng(0)
    for path in (folder / "train").rglob("*.png"):
        Image.fromarray(rng.integers(0, 256, (14, 20, 3), dtype=np.uint8)).save(path)
    data = load_data(str(folder))
    varied = Photo(8, crop=(0.3, 1.0), color=0.4, policy="rand-m9-mstd0.5", mean=data.mean)
    state = torch.random.get_rng_state()

    def images(epoch, batch_size):
        order = TrainingOrder(8, batch_size, seed=3)
        batches = training_batches(data.train, view(photo=varied), order, epoch=epoch, workers=workers)
        return {int(i): x for b in batches for i, x in zip(b.indices, b.images, strict=True)}

    one, again, later = images(0, 8), images(0, 2), images(1, 8)
    assert all(torch.equal(one[i], again[i]) for i in range(8))
    assert sum(torch.equal(one[i], later[i]) for i in range(8)) <= 1
    # and nobody else's draws change
    assert torch.equal(torch.random.get_rng_state(), state)


def test_evaluation_frames_the_centre():
    wide = Image.new("RGB", (40, 20), (0, 0, 0))
    wide.paste((255, 255, 255), (10, 0, 30, 20))  # the centred square
    framed = np.asarray(Photo(10, crop_pct=1.0)(wide, 0))
    assert framed.shape == (10, 10, 3)
    assert framed[:, 1:-1].min() > 250
    # half of the side: 10 of 20 pixels, nothing of the border
    assert np.asarray(Photo(10, crop_pct=0.5)(wide, 0)).min() == 255


def asked_for(monkeypatch):
    """Sizes that images are resized to."""
    sizes, resize = [], Image.Image.resize

    def noted(image, size, *arguments, **options):
        sizes.append(tuple(size))
        return resize(image, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", noted)
    return sizes


@pytest.mark.parametrize("shape", [(20_000, 1), (1, 20_001), (20_001, 2), (3, 9_000)])
def test_no_shape_takes_more_than_sixteen_squares(shape, monkeypatch):
    sizes = asked_for(monkeypatch)
    framed = Photo(224, crop_pct=0.875)(Image.new("RGB", shape, (9, 8, 7)), 0)
    assert framed.size == (224, 224)
    assert framed.getcolors() == [(224 * 224, (9, 8, 7))]
    # a pixel more keeps the middle in its place
    assert all(w * h <= 17 * 256 * 256 for w, h in sizes)


def framed_whole(image):
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    return np.asarray(CenterCrop(32)(Resize(36, interpolation=InterpolationMode.BICUBIC)(image)), dtype=int)


@pytest.mark.parametrize("shape", [(40, 25), (25, 40), (160, 10), (10, 160)])
def test_an_image_that_is_not_very_long_is_resized_whole(shape):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*shape[::-1], 3), dtype=np.uint8))
    assert np.array_equal(Photo(32, crop_pct=32 / 36)(image, 0), framed_whole(image))


@pytest.mark.parametrize("shape", [(400, 10), (403, 10), (10, 302), (7, 401)])
def test_the_middle_of_a_very_long_image_stays_in_its_place(shape):
    width, height = shape
    along = np.arange(max(shape)) - (max(shape) - 1) / 2
    # 12 levels from a pixel to the next, about the middle
    levels = np.clip(128 + 12 * along, 0, 255).round().astype(np.uint8)
    image = Image.fromarray(
        np.broadcast_to(levels if width > height else levels[:, None], shape[::-1]).copy()
    )
    difference = np.abs(np.asarray(Photo(32, crop_pct=32 / 36)(image, 0), dtype=int) - framed_whole(image))
    # the resized length is a whole number and so is the middle: half a pixel each, of 12 x 10 / 36 levels
    assert difference.max() <= 12 * min(shape) / 36 + 1


def test_an_unknown_policy_is_named():
    with pytest.raises(InvalidInput, match=r"unknown augmentation policy 'random-m9'.*rand-m9-mstd0.5"):
        Photo(8, policy="random-m9")(Image.new("L", (9, 9)), 0)


def test_a_grey_image_stays_grey_under_a_policy():
    image = Photo(8, policy="rand-m9-n3", mean=(0.5,))(Image.new("L", (9, 9), 77), 0)
    assert (image.mode, image.size) == ("L", (8, 8))


@pytest.fixture
def shards(tmp_path, write_tar):
    """Two training shards and one held-out shard as WebDataset writes them; class 10 sorts after class 2."""
    place = tmp_path / "shards"
    place.mkdir()
    for name, keys in (("train-0", "ab"), ("train-1", "c"), ("val-0", "d")):
        members = []
        for key in keys:
            colour, label = (("red", b"10"), ("blue", b"2"))[key in "ad"]
            members += [(f"x/{key}.v1.jpg", picture(COLOURS[colour], kind="JPEG")), (f"x/{key}.cls", label)]
        write_tar(place / f"{name}.tar", members)
    return place


@pytest.mark.parametrize("prefix", ["wds/", ""])
def test_shards(shards, prefix):
    data = load_data(f"{prefix}{shards}")
    assert data.classes == ("2", "10")
    assert colours(data.train) == [(0, "blue"), (1, "red"), (1, "red")]
    assert colours(data.held_out) == [(0, "blue")]


def test_tar_files_of_folders(tmp_path, write_tar):
    for part in ("train", "val"):
        write_tar(tmp_path / f"{part}.tar", [(f"{c}/0.png", picture(rgb)) for c, rgb in COLOURS.items()])
    data = load_data(str(tmp_path))
    assert data.classes == ("blue", "red")
    assert colours(data.held_out) == [(0, "blue"), (1, "red")]


def test_damaged_tar_files_are_named(shards, write_tar):
    write_tar(shards / "val-0.tar", [("a.png", picture((0, 0, 0)))])
    with pytest.raises(InvalidInput, match=r"val-0.tar: a.png has no .cls member and no folder"):
        load_data(str(shards))
    (shards / "train-1.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(InvalidInput, match=r"train-1.tar is not an uncompressed tar file"):
        load_data(str(shards))
    (shards / "val-0.tar").unlink()
    (shards / "train-1.tar").unlink()
    with pytest.raises(InvalidInput, match=r"looked for val\*.tar or"):
        load_data(f"wds/{shards}")


class Rows:
    """What timm's reader of hub data sets offers."""

    def __init__(self, split):
        self.class_to_idx = {"red": 1, "blue": 0}
        self.rows = [("red", 1), ("blue", 0)] * (2 if split == "train" else 1)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        name, label = self.rows[index]
        assert index != 3  # a row without an image
        return io.BytesIO(picture(COLOURS[name])), label

    def iter_targets(self):
        return iter([label for _, label in self.rows])


def test_hub_data(monkeypatch, tmp_path):
    asked = []

    def create_reader(name, root, split):
        asked.append((name, root, split))
        if split not in ("train", "test"):
            raise ValueError(f"Unknown split {split}")
        return Rows(split)

    monkeypatch.setattr(hub, "timm_readers", lambda: SimpleNamespace(create_reader=create_reader))
    data = load_data("hfds/someone/colours", tmp_path)
    assert data.classes == ("blue", "red")
    assert colours(data.held_out) == [(1, "red"), (0, "blue")]
    assert {split for _, _, split in asked} == {"train", "val", "validation", "valid", "test"}
    assert {(name, root) for name, root, _ in asked} == {("hfds/someone/colours", str(tmp_path))}
    with pytest.raises(UnreadableImage, match="hfds/someone/colours train row 3: no image in row 3"):
        data.train.open(3)


def test_hub_data_without_its_package_says_so():
    pytest.importorskip("timm")
    try:
        import datasets  # noqa: F401
    except ImportError:
        with pytest.raises(InvalidInput, match="needs the package 'datasets': pip install datasets"):
            load_data("hfds/someone/colours")
    else:
        pytest.skip("the package is installed")
