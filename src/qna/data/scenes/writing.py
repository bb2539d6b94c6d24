"""A data set of composed scenes as files: images, masks, and boxes as COCO describes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qna._core.errors import InvalidInput
from qna._core.files import write_text
from qna._core.seeds import derive_seed
from qna.data.images.decoding import UnreadableImage
from qna.data.masks.folder import CLASSES, IMAGES, MASKS
from qna.data.masks.palette import colours, save_mask
from qna.data.scenes.compose import Scene, compose
from qna.data.scenes.sources import CutOut, find_photographs, find_stamps

BACKGROUND = "background"
ANNOTATIONS = "annotations.json"
# of the stamps of a class, and of the photographs, one in so many is held out
_STAMPS_ONE_IN, _PHOTOGRAPHS_ONE_IN = 5, 4


@dataclass(frozen=True)
class SceneOptions:
    """What to compose.

    Attributes:
        images: scenes to train on.
        held_out: scenes to judge on, of other stamps and other photographs.
        size: side of a scene, in pixels.
        objects: most stamps on a scene.
        seed: of all draws.
        stamps: a folder with a folder of PNG files per class; None for Tux Paint's.
        photos: a folder of photographs; None for those in scikit-image's wheel.
        classes: the folders of stamps to take; none for all, of Tux Paint's for those with most stamps.
    """

    images: int = 800
    held_out: int = 200
    size: int = 96
    objects: int = 3
    seed: int = 0
    stamps: Path | None = None
    photos: Path | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self):
        for name, low in (("images", 1), ("held_out", 1), ("size", 16), ("objects", 1)):
            if getattr(self, name) < low:
                raise InvalidInput(f"{name} must be at least {low}, got {getattr(self, name)}")


def write_scenes(root: Path, options: SceneOptions, told: Callable[[], object] = lambda: None) -> None:
    """Compose scenes into `root`: train/ and val/ with images/, masks/ and annotations.json; classes.txt.

    A scene follows from its number and the options, whatever other scenes there are. What is held out shows
    stamps and photographs that no scene to train on shows. annotations.json is COCO's format: boxes [left,
    top, width, height], areas in pixels, and each object's seen pixels as an uncompressed run-length code;
    category numbers are those of the masks.

    Args:
        root: a new or empty folder.
        options: what to compose.
        told: called after each scene.

    Raises:
        MissingData: if there are no stamps.
        MissingExtra: if there are no photographs.
        InvalidInput: if the folder holds something, or cannot be written, or a photograph cannot be read.
    """
    names, stamps = find_stamps(options.stamps, options.classes)
    photographs = find_photographs(options.photos)
    if root.is_dir() and any(root.iterdir()):
        raise InvalidInput(f"{root} holds something already; name a new folder")
    parts = {
        "train": (options.images, *_apart(stamps, photographs, held_out=False)),
        "val": (options.held_out, *_apart(stamps, photographs, held_out=True)),
    }
    try:
        for part, (count, of_stamps, of_photographs) in parts.items():
            coco = _Coco(names)
            for kind in (IMAGES, MASKS):
                (root / part / kind).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                seed = derive_seed(options.seed, part, number)
                scene = compose(of_photographs, of_stamps, options.size, options.objects, seed)
                file = f"{number:06}.png"
                scene.image.save(root / part / IMAGES / file)
                save_mask(root / part / MASKS / file, scene.mask, colours(len(names) + 1))
                coco.add(file, scene)
                told()
            write_text(root / part / ANNOTATIONS, json.dumps(coco.content) + "\n")
        write_text(root / CLASSES, "".join(f"{name}\n" for name in (BACKGROUND, *names)))
    except UnreadableImage as error:
        raise InvalidInput(f"a photograph cannot be read: {error}") from None
    except OSError as error:
        raise InvalidInput(f"cannot write scenes to {root}: {error}") from None


def _apart(
    stamps: Sequence[CutOut], photographs: Sequence[Path], *, held_out: bool
) -> tuple[list[CutOut], list[Path]]:
    """The stamps and photographs of one of the parts."""
    kept: list[CutOut] = []
    for label in sorted({stamp.label for stamp in stamps}):
        of_class = [stamp for stamp in stamps if stamp.label == label]
        every = min(_STAMPS_ONE_IN, len(of_class))
        kept += [s for i, s in enumerate(of_class) if (i % every == every - 1) == held_out]
    every = min(_PHOTOGRAPHS_ONE_IN, len(photographs))
    return kept, [p for i, p in enumerate(photographs) if (i % every == every - 1) == held_out]


class _Coco:
    """COCO's annotations, an image at a time."""

    def __init__(self, names: Sequence[str]):
        self.content: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
        }

    def add(self, file: str, scene: Scene) -> None:
        images, annotations = self.content["images"], self.content["annotations"]
        number, (height, width) = len(images) + 1, scene.mask.shape
        images.append({"id": number, "file_name": file, "width": width, "height": height})
        for found in scene.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": found.label,
                    "bbox": list(found.box),
                    "area": int(found.pixels.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": [height, width], "counts": run_lengths(found.pixels)},
                }
            )


def run_lengths(pixels: Any) -> list[int]:
    """Lengths of runs of unset and set pixels by turns, column by column from the left, unset first."""
    import numpy as np

    flat = np.concatenate([[False], pixels.ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [pixels.size]])).tolist()
