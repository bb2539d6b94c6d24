"""Annotations in COCO's format: one JSON file per part, with images, categories and boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qna._core.errors import InvalidInput
from qna._core.files import read_bytes
from qna._core.typed_json import parse_json
from qna.data.boxes.labelled import BoxData, BoxedFiles, Boxes
from qna.data.images.folder import HELD_OUT_NAMES, IMAGENET_MEAN, IMAGENET_STD, TRAIN_NAMES
from qna.data.places import MissingData

# pixels by which a box may leave its image: those of COCO itself are rounded
_ROUNDING = 1.0
# bytes of a file; outlines of a hundred thousand images take hundreds of millions
_LARGEST = 2**30
# nothing is counted or measured beyond it, and floating point holds it
_LARGEST_NUMBER = 2**53


def load_coco(root: Path, images_dir: Path | None = None, *, drop_bad_boxes: bool = False) -> BoxData:
    """Return the images of a folder whose boxes are described in COCO's format.

    The annotations of a part, train or val (or validation, valid, test), are
    ``annotations/instances_PART*.json`` as in COCO itself, ``annotations/PART*.json`` or
    ``PART/annotations.json``. Its images are in `images_dir`, else in ``PART/images``, a folder called as
    the file without ``instances_`` (train2017), ``PART``, ``images``, or ROOT itself: the first of them that
    has the first image.

    Args:
        root: the folder.
        images_dir: where the images of both parts are, or where a folder of each is.
        drop_bad_boxes: leave out boxes outside their image or without area, instead of refusing them.

    Raises:
        MissingData: if a part has no annotations.
        InvalidInput: for the first thing in them that cannot be: `read_annotations` tells what; or if the
            parts differ in their categories, or nothing is left to learn or to judge.
    """
    files = [_annotations_of(root, names) for names in (TRAIN_NAMES, HELD_OUT_NAMES)]
    read = [
        read_annotations(
            path,
            lambda first, path=path, part=part: _folder(root, images_dir, path, part, first),
            drop_bad_boxes=drop_bad_boxes,
        )
        for part, path in files
    ]
    train, held_out = read
    if train.categories != held_out.categories:
        strange = set(train.categories.items()) ^ set(held_out.categories.items())
        number, name = min(strange)
        raise InvalidInput(
            f"{files[0][1]} and {files[1][1]} must have the same categories, but only one of them has "
            f"{name!r} as number {number}"
        )
    for (_, path), part in zip(files, read, strict=True):
        if not any(len(boxes.apart().labels) for boxes in part.images.boxes):
            raise InvalidInput(
                f"{path} has no box (crowds do not count), so nothing can be learned or judged"
            )
    dropped = sum(part.dropped for part in read)
    left_out = f"; {dropped:,} bad boxes left out" if dropped else ""
    return BoxData(
        str(root),
        tuple(train.categories[number] for number in sorted(train.categories)),
        train.images,
        held_out.images,
        IMAGENET_MEAN,
        IMAGENET_STD,
        f"images with boxes in {root}{left_out}",
    )


@dataclass(frozen=True)
class Annotations:
    """What one file says.

    Attributes:
        categories: names by number; labels are positions among the sorted numbers.
        images: all of them, also those without a box.
        dropped: boxes that were left out.
    """

    categories: dict[int, str]
    images: BoxedFiles
    dropped: int


def read_annotations(
    path: Path, folder_of: Callable[[str], Path], *, drop_bad_boxes: bool = False
) -> Annotations:
    """Read and check one file of annotations.

    Args:
        path: of the JSON file.
        folder_of: finds the folder of the images by the name of the first.
        drop_bad_boxes: leave out boxes outside their image or without area, and count them.

    Raises:
        InvalidInput: the file is not COCO's JSON; a number or a name comes twice; a box belongs to no image
            or category, has no area or lies outside its image; an image is not there.
    """
    try:
        text = read_bytes(path, _LARGEST)
    except OSError as error:
        raise InvalidInput(f"cannot read the annotations {path}: {error.strerror}") from None
    except InvalidInput as error:
        raise InvalidInput(f"cannot read the annotations {path}: {error}") from None
    content = parse_json(text, str(path))
    part = _Part(path, content if isinstance(content, dict) else {})
    categories = {entry["id"]: entry["name"] for entry in part.entries("categories", id=int, name=str)}
    part.require_names("categories", categories.values())
    label_of = {number: label for label, number in enumerate(sorted(categories))}
    images = part.entries("images", id=int, file_name=str, width=int, height=int)
    if not images:
        raise InvalidInput(f"{path} has no images")
    for entry in images:
        if min(entry["width"], entry["height"]) < 1:
            raise InvalidInput(f"{path}: image {entry['id']} is {entry['width']} x {entry['height']} pixels")
    names = [entry["file_name"] for entry in images]
    part.require_names("images", names)
    folder = folder_of(names[0])
    for entry in images:
        if not _is_file(folder / entry["file_name"]):
            raise InvalidInput(
                f"{path}: image {entry['id']} is {entry['file_name']!r:.200}, which is not in {folder}; say "
                "where the images are with --images-dir"
            )
    sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in images}
    found, dropped = _boxes_of(part, sizes, label_of, drop=drop_bad_boxes)
    return Annotations(
        categories,
        BoxedFiles(
            tuple(folder / name for name in names),
            tuple(names),
            tuple(sizes.values()),
            tuple(found[number] for number in sizes),
        ),
        dropped,
    )


def _boxes_of(
    part: _Part, sizes: Mapping[int, tuple[int, int]], label_of: Mapping[int, int], *, drop: bool
) -> tuple[dict[int, Boxes], int]:
    """The boxes of every image by its number, and how many were left out."""
    rows: dict[int, list[tuple[tuple[float, ...], int, bool]]] = {number: [] for number in sizes}
    dropped = 0
    for entry in part.entries("annotations", id=int, image_id=int, category_id=int, bbox=list):
        box, image, category = f"{part.path}: box {entry['id']}", entry["image_id"], entry["category_id"]
        if image not in sizes:
            raise InvalidInput(f"{box} belongs to image {image}, which is not in the file")
        if category not in label_of:
            raise InvalidInput(f"{box} has category {category}, none of the {len(label_of)} in the file")
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise InvalidInput(f"{box}: iscrowd must be 0 or 1, got {crowd!r}")
        try:
            corners = _corners(box, entry["bbox"], *sizes[image])
        except _BadBox:
            if not drop:
                raise
            dropped += 1
            continue
        rows[image].append((corners, label_of[category], bool(crowd)))
    return {
        number: Boxes.of([r[0] for r in of_image], [r[1] for r in of_image], [r[2] for r in of_image])
        for number, of_image in rows.items()
    }, dropped


class _BadBox(InvalidInput):
    """A box that no image can have."""


def _corners(box: str, numbers: Sequence[Any], height: int, width: int) -> tuple[float, ...]:
    """Left, top, right, bottom of COCO's left, top, width, height, clipped to the image."""
    # without truth values; a number that is beyond all others is no place, and may be too large for a float
    if len(numbers) != 4 or not all(type(n) in (int, float) and abs(n) < _LARGEST_NUMBER for n in numbers):
        raise InvalidInput(
            f"{box} must be four finite numbers, left, top, width, height, got {str(numbers)[:100]}"
        )
    left, top, across, down = map(float, numbers)
    mend = "mend it, or leave such boxes out with --drop-bad-boxes"
    if across <= 0 or down <= 0:
        raise _BadBox(f"{box} has no area: {numbers} (left, top, width, height); {mend}")
    right, bottom = left + across, top + down
    if min(left, top) < -_ROUNDING or right > width + _ROUNDING or bottom > height + _ROUNDING:
        raise _BadBox(
            f"{box} lies outside its image of {width} x {height} pixels: {numbers} (left, top, width, "
            f"height); {mend}"
        )
    clipped = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        raise _BadBox(f"{box} has no area inside its image of {width} x {height} pixels: {numbers}; {mend}")
    return clipped


class _Part:
    """The lists of one file, checked."""

    def __init__(self, path: Path, content: dict[str, Any]):
        self.path, self.content = path, content

    def entries(self, key: str, **kinds: type) -> list[dict[str, Any]]:
        """The list called `key`, whose entries have fields of these kinds and numbers of their own."""
        found = self.content.get(key)
        if not isinstance(found, list):
            raise InvalidInput(
                f"{self.path} is no file of COCO's annotations: it needs the lists images, annotations and "
                f"categories, and has no list {key!r}"
            )
        seen = set()
        for place, entry in enumerate(found):
            if not isinstance(entry, dict):
                raise InvalidInput(
                    f"{self.path}: entry {place} of {key!r} must be an object, got {entry!r:.60}"
                )
            for name, kind in kinds.items():
                if type(entry.get(name)) is not kind:
                    raise InvalidInput(
                        f"{self.path}: {name} of entry {place} of {key!r} must be {kind.__name__}, got "
                        f"{entry.get(name)!r:.60}"
                    )
            for name, kind in kinds.items():
                if kind is int and abs(entry[name]) >= _LARGEST_NUMBER:
                    raise InvalidInput(
                        f"{self.path}: {name} of entry {place} of {key!r} must be less than 2**53"
                    )
            if entry["id"] in seen:
                raise InvalidInput(f"{self.path}: two entries of {key!r} have the id {entry['id']}")
            seen.add(entry["id"])
        return found

    def require_names(self, key: str, names: Iterable[str]) -> None:
        """Check that no name comes twice."""
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise InvalidInput(f"{self.path}: two entries of {key!r} are called {name!r:.200}")
            seen.add(name)


def _annotations_of(root: Path, names: Sequence[str]) -> tuple[str, Path]:
    """The part and its file."""
    for pattern in ("annotations/instances_{}*.json", "annotations/{}*.json", "{}/annotations.json"):
        for name in names:
            found = sorted(root.glob(pattern.format(name)))
            if len(found) > 1:
                several = ", ".join(path.name for path in found)
                raise InvalidInput(
                    f"{root} has {len(found)} files of annotations for {name}: {several}; leave one of them"
                )
            if found:
                return name, found[0]
    wanted = f"annotations/instances_{names[0]}*.json or {names[0]}/annotations.json"
    raise MissingData(str(root), wanted, [root], [f"qna data stamps --out {root}"])


def _folder(root: Path, images_dir: Path | None, annotations: Path, part: str, first: str) -> Path:
    """The folder that has the image `first`."""
    called = annotations.stem.removeprefix("instances_")
    inside = [f"{part}/images", called, part, "images", ""]
    base = root if images_dir is None else images_dir
    places = list(dict.fromkeys(base / name for name in (inside if images_dir is None else ["", *inside])))
    for place in places:
        if _is_file(place / first):
            return place
    looked = ", ".join(map(str, places))
    raise InvalidInput(
        f"{annotations} names the image {first!r:.200}, which is in none of {looked}; say where the images "
        "are with --images-dir"
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, or in a folder that is closed
        return False
