"""Images and masks in folders: images/ and masks/, with equal names but for the suffix."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qna._core.errors import InvalidInput
from qna._core.files import read_bytes
from qna._core.seeds import derive_seed
from qna.data.images.folder import HELD_OUT_NAMES, IMAGENET_MEAN, IMAGENET_STD, TRAIN_NAMES
from qna.data.images.search import find_images_in
from qna.data.masks.decoding import read_mask, require_size
from qna.data.masks.labelled import MaskData, MaskedFiles
from qna.data.masks.palette import Colour, colours
from qna.data.places import MissingData

IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"
# where a folder has no parts, one image in so many is held out
HELD_OUT_ONE_IN = 5

Pairs = list[tuple[str, Path, Path]]


def load_masked_folder(root: Path, *, ignore: int = 255) -> MaskData:
    """Return the images of ROOT/train and ROOT/val (or validation, valid, test) with their masks.

    A part has images/ and masks/. The mask of images/a/b.jpg is masks/a/b.png, a PNG whose palette indices or
    8-bit greys are the numbers of the pixels' classes. ROOT/classes.txt names the classes, one a line from
    number 0 on; without it they are called by their numbers, up to the largest in the training masks.

    Where ROOT itself has images/ and masks/, every image whose name hashes to 0 modulo 5 is held out: about a
    fifth, and the same ones when others are added.

    All masks are read once, so that what is wrong with one is said before the training begins.

    Args:
        root: the folder.
        ignore: number of pixels that count neither in the loss nor in the scores.

    Raises:
        MissingData: if there is no such folder, or a part of it is missing.
        InvalidInput: if an image has no mask or one of another size, a mask no image or a number that is no
            class, a part no images, or all pixels to train on are of one class.
    """
    parts = [_pairs(part) for part in _parts(root)] if not (root / IMAGES).is_dir() else _split(root)
    if not 0 <= ignore <= 255:
        raise InvalidInput(f"ignore must be one of the 256 numbers of a mask's pixels, got {ignore}")
    for name, pairs in zip(("train on", "hold out"), parts, strict=True):
        if not pairs:
            raise InvalidInput(f"{root} has no images to {name}; it has {sum(map(len, parts))} in all")
    read = [_read(root, pairs) for pairs in parts]
    counts, palette = read[0][1], read[0][2]
    classes = class_names(root) or tuple(map(str, range(_largest(counts, ignore) + 1)))
    if ignore < len(classes):
        raise InvalidInput(
            f"ignore={ignore} is the number of class {classes[ignore]!r} in {root}: give pixels that count "
            f"nowhere a number from {len(classes)} to 255"
        )
    train, held_out = (_checked(*part[:2], classes, ignore) for part in read)
    if sum(count > 0 for count in train.pixels) < 2:
        raise InvalidInput(
            f"the masks of {root} have no two classes to tell apart: beside the number {ignore}, which is "
            f"ignored, their pixels hold {_held(counts, ignore)}"
        )
    if len(palette) < len(classes):
        palette = colours(len(classes))
    return MaskData(
        str(root),
        classes,
        train,
        held_out,
        IMAGENET_MEAN,
        IMAGENET_STD,
        ignore,
        palette[: len(classes)],
        f"images with masks in {root}",
    )


def _parts(root: Path) -> list[Path]:
    found = []
    for names in (TRAIN_NAMES, HELD_OUT_NAMES):
        part = next((root / name for name in names if (root / name / IMAGES).is_dir()), None)
        if part is None:
            wanted = " or ".join(f"{name}/{IMAGES}" for name in names)
            raise MissingData(str(root), f"{wanted}, with {MASKS}/ beside", [root], [_STAMPS.format(root)])
        found.append(part)
    return found


_STAMPS = "qna data stamps --out {}"


def _split(root: Path) -> list[Pairs]:
    parts: list[Pairs] = [[], []]
    for pair in _pairs(root):
        parts[derive_seed("held out", pair[0]) % HELD_OUT_ONE_IN == 0].append(pair)
    return parts


def _pairs(part: Path) -> Pairs:
    """Name, image and mask of every image in a part."""
    if not (part / MASKS).is_dir():
        raise InvalidInput(f"{part} has {IMAGES}/ and no {MASKS}/ beside")
    images = _by_name(part / IMAGES)
    masks = _by_name(part / MASKS)
    for name, image in images.items():
        if name not in masks:
            raise InvalidInput(f"{image} has no mask: {part / MASKS / name}.png is not there")
    for name, mask in masks.items():
        if name not in images:
            raise InvalidInput(f"{mask} is the mask of no image in {part / IMAGES}")
    return [(name, image, masks[name]) for name, image in images.items()]


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(map(Path, find_images_in(str(folder), _refuse))):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise InvalidInput(f"{found[name]} and {path} have the same name but for the suffix")
        found[name] = path
    return found


def _refuse(error: OSError) -> None:
    raise InvalidInput(f"the folder {error.filename} cannot be searched: {error.strerror}") from None


def class_names(root: Path) -> tuple[str, ...]:
    """The lines of classes.txt; none where there is no such file."""
    path = root / CLASSES
    if not path.is_file():
        return ()
    try:
        lines = read_bytes(path).decode().splitlines()
    except (OSError, UnicodeDecodeError, InvalidInput) as error:
        raise InvalidInput(f"cannot read the names of classes in {path}: {error}") from None
    names = tuple(line.strip() for line in lines)
    while names and not names[-1]:
        names = names[:-1]
    if not all(names) or len(set(names)) != len(names) or not 0 < len(names) <= 256:
        raise InvalidInput(
            f"{path} must name each of up to 256 classes on a line of its own, got {str(names)[:200]}"
        )
    return names


# files, pixels of each number by file, first palette
_Read = tuple[MaskedFiles, Sequence[Sequence[int]], tuple[Colour, ...]]


def _read(root: Path, pairs: Pairs) -> _Read:
    """Look at all masks once."""
    import numpy as np

    digest, counts, palette = hashlib.blake2b(digest_size=8), [], ()
    for name, image, mask in pairs:
        values, own = read_mask(mask)
        require_size(image, mask, *values.shape)
        counts.append(np.bincount(values.ravel(), minlength=256).tolist())
        digest.update(f"{name}\0{values.shape}\0".encode())
        digest.update(values.tobytes())
        palette = palette or own
    files = MaskedFiles(tuple(p[1] for p in pairs), tuple(p[2] for p in pairs), digest.hexdigest())
    return files, counts, palette


def _checked(
    files: MaskedFiles, counts: Sequence[Sequence[int]], classes: Sequence[str], ignore: int
) -> MaskedFiles:
    """The files with their pixels by class, when no mask holds another number."""
    for mask, of_mask in zip(files.masks, counts, strict=True):
        for number, count in enumerate(of_mask):
            if count and number >= len(classes) and number != ignore:
                raise InvalidInput(
                    f"{mask} holds the number {number} in {count:,} pixels, which is none of {len(classes)} "
                    f"classes (0 to {len(classes) - 1}); name more in {CLASSES}, or ignore it with "
                    f"--ignore {number}"
                )
    return replace(files, pixels=tuple(sum(c[n] for c in counts) for n in range(len(classes))))


def _largest(counts: Sequence[Sequence[int]], ignore: int) -> int:
    return max((n for c in counts for n, count in enumerate(c) if count and n != ignore), default=0)


def _held(counts: Sequence[Sequence[int]], ignore: int) -> str:
    numbers = sorted({n for c in counts for n, count in enumerate(c) if count and n != ignore})
    return f"the number {numbers[0]} alone" if numbers else "nothing"
