"""Images in ImageNet's layout: one folder per part, one folder per class in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qna._core.errors import InvalidInput
from qna._core.files import read_bytes
from qna.data.images.decoding import LARGEST_FILE, UnreadableImage
from qna.data.images.labelled import FileImages, ImageData
from qna.data.images.search import SUFFIXES, find_images_in, is_hidden
from qna.data.places import MissingData

# what nearly every photograph model is trained with
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

TRAIN_NAMES = ("train", "training")
HELD_OUT_NAMES = ("val", "validation", "valid", "test")


@dataclass(frozen=True)
class PathReader:
    """Reads whole files.

    Attributes:
        paths: one per image.
    """

    paths: tuple[Path, ...]

    def __call__(self, index: int) -> bytes:
        """The bytes of a file."""
        return read_bytes(self.paths[index], LARGEST_FILE)


def load_folder(root: Path) -> ImageData:
    """Return the images of ROOT/train/CLASS/... and ROOT/val/CLASS/... (or validation, valid, test).

    Hidden files and folders (``.ipynb_checkpoints``, ``@eaDir``) are left out; linked folders are followed.

    Raises:
        MissingData: if a part is not there.
        InvalidInput: if a part has no images or other classes than the other, a class has no image that can
            be read, or a folder cannot be searched.
    """
    parts = [_part(root, TRAIN_NAMES), _part(root, HELD_OUT_NAMES)]
    classes = _classes(parts[0])
    strange = sorted(set(_classes(parts[1])) - set(classes))
    if strange:
        raise InvalidInput(f"{parts[1]} has a class that {parts[0]} does not have: {strange[0]!r}")
    train, held_out = (_images(part, classes) for part in parts)
    return photo_data(str(root), classes, train, held_out, f"images in {root}")


def photo_data(
    name: str, classes: tuple[str, ...], train: FileImages, held_out: FileImages, origin: str
) -> ImageData:
    """A data set of photographs, standardised as ImageNet is.

    Raises:
        InvalidInput: if of the images of a class, in one of the parts, none can be read.
    """
    for part, images in (("train", train), ("held out", held_out)):
        _require_readable(f"{name} ({part})", classes, images)
    return ImageData(name, classes, train, held_out, IMAGENET_MEAN, IMAGENET_STD, origin)


def _require_readable(part: str, classes: tuple[str, ...], images: FileImages) -> None:
    """Find an image of each class that can be read; most often that is the first."""
    causes: dict[int, str] = {}
    done: set[int] = set()
    for index, label in enumerate(images.labels):
        if label in done:
            continue
        try:
            images.open(index)
        except UnreadableImage as error:
            causes.setdefault(label, str(error))
        else:
            done.add(label)
    for label in sorted(causes.keys() - done):
        raise InvalidInput(f"{part}: no image of class {classes[label]!r} can be read; {causes[label]}")


def _part(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(f"{name}/" for name in names)
    layout = f"mkdir -p {root}/{names[0]}/CLASS  # and put the images of each class there"
    raise MissingData(str(root), wanted, [root], [layout])


def _classes(part: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(p.name for p in part.iterdir() if p.is_dir() and not is_hidden(p.name)))
    except OSError as error:
        raise InvalidInput(f"the folder {part} cannot be searched: {error.strerror}") from None


def _images(part: Path, classes: tuple[str, ...]) -> FileImages:
    paths: list[Path] = []
    labels: list[int] = []
    empty = []
    for label, name in enumerate(classes):
        if not (part / name).is_dir():  # the held-out part may do without a class
            continue
        found = sorted(map(Path, find_images_in(str(part / name), _refuse)))
        paths += found
        labels += [label] * len(found)
        if not found:
            empty.append(name)
    kinds = ", ".join(sorted(SUFFIXES))
    if not paths:
        raise InvalidInput(f"{part} has no images in folders of classes ({kinds})")
    if empty:
        raise InvalidInput(
            f"{part} has folders of classes without images ({kinds}): {', '.join(map(repr, empty))}; "
            "remove them, or put images there"
        )
    return FileImages([str(p) for p in paths], labels, PathReader(tuple(paths)))


def _refuse(error: OSError) -> None:
    raise InvalidInput(f"the folder {error.filename} cannot be searched: {error.strerror}") from None
