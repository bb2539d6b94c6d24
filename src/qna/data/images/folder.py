"""Images in ImageNet's layout: one folder per part, one folder per class in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qna._core.errors import InvalidInput
from qna.data.images.labelled import FileImages, ImageData
from qna.data.places import MissingData

# what nearly every photograph model is trained with
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

TRAIN_NAMES = ("train", "training")
HELD_OUT_NAMES = ("val", "validation", "valid", "test")
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class PathReader:
    """Reads whole files.

    Attributes:
        paths: one per image.
    """

    paths: tuple[Path, ...]

    def __call__(self, index: int) -> bytes:
        """The bytes of a file."""
        return self.paths[index].read_bytes()


def load_folder(root: Path) -> ImageData:
    """Return the images of ROOT/train/CLASS/... and ROOT/val/CLASS/... (or validation, valid, test).

    Raises:
        MissingData: if a part is not there.
        InvalidInput: if a part has no images or other classes than the other.
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
    """A data set of photographs, standardised as ImageNet is."""
    return ImageData(name, classes, train, held_out, IMAGENET_MEAN, IMAGENET_STD, origin)


def _part(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(f"{name}/" for name in names)
    layout = f"mkdir -p {root}/{names[0]}/CLASS  # and put the images of each class there"
    raise MissingData(str(root), wanted, [root], [layout])


def _classes(part: Path) -> tuple[str, ...]:
    return tuple(sorted(p.name for p in part.iterdir() if p.is_dir()))


def _images(part: Path, classes: tuple[str, ...]) -> FileImages:
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(p for p in (part / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise InvalidInput(f"{part} has no images in folders of classes ({', '.join(sorted(SUFFIXES))})")
    return FileImages([str(p) for p in paths], labels, PathReader(tuple(paths)))
