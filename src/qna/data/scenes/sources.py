"""Where stamps and photographs come from: Tux Paint's, scikit-image's, or folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qna._core.errors import InvalidInput, check_choice, require
from qna.data.images.search import find_images_in, is_hidden
from qna.data.places import MissingData

# of Debian's package, GPL-2
TUX_PAINT = Path("/usr/share/tuxpaint/stamps")
TUX_PAINT_CLASSES = ("animals", "food", "plants", "vehicles")
# photographs in scikit-image's wheel that show nothing of those classes
_PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "coins.png", "gravel.png", "hubble_deep_field.jpg"),
    *("ihc.png", "moon.png", "page.png", "retina.jpg", "rocket.jpg", "text.png"),
)
# least opacity, of 255, of a pixel that belongs to an object
SEEN = 128


@dataclass(frozen=True)
class CutOut:
    """A cut-out picture.

    Attributes:
        path: of a PNG with transparency.
        label: number of its class, from 1 on; 0 is the background.
    """

    path: Path
    label: int


def find_stamps(folder: Path | None, classes: Sequence[str] = ()) -> tuple[tuple[str, ...], list[CutOut]]:
    """The names of the classes, and the stamps of all of them.

    Args:
        folder: with a folder of PNG files per class, searched with all inside; None for Tux Paint's.
        classes: the folders to take; none for all, of Tux Paint's for those that hold most stamps.

    Raises:
        MissingData: if the folder is not there.
        UnknownName: for a class that has no folder, with the nearest names.
        InvalidInput: if a class has fewer than two stamps with transparency.
    """
    root = TUX_PAINT if folder is None else folder
    if not root.is_dir():
        ways = ["apt-get install tuxpaint-stamps-default", "qna data stamps --stamps FOLDER"]
        raise MissingData("stamps", "a folder per class", [root], ways)
    there = sorted(path.name for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))
    names = tuple(classes) or (TUX_PAINT_CLASSES if folder is None else tuple(there))
    stamps: list[CutOut] = []
    for label, name in enumerate(names, start=1):
        check_choice("class of stamps", name, there)
        found = [p for p in sorted(map(Path, find_images_in(str(root / name), _refuse))) if _is_cut_out(p)]
        if len(found) < 2:
            raise InvalidInput(
                f"class {name!r} needs at least two PNG files with transparency in {root / name}, one to "
                f"train on and one to hold out, got {len(found)}"
            )
        stamps += [CutOut(path, label) for path in found]
    if not stamps:
        raise InvalidInput(f"{root} has no folders of stamps, one per class")
    return names, stamps


def find_photographs(
    folder: Path | None, *, purpose: str = "`qna data stamps` without --photos"
) -> list[Path]:
    """The photographs in a folder with all inside; None for those in scikit-image's wheel.

    Args:
        folder: to search.
        purpose: what scikit-image is needed for.

    Raises:
        MissingExtra: if scikit-image is not installed.
        InvalidInput: if there are fewer than two.
    """
    if folder is None:
        package = require("skimage", extra="dense", purpose=purpose)
        return [Path(str(package.__file__)).parent / "data" / name for name in _PHOTOGRAPHS]
    found = sorted(map(Path, find_images_in(str(folder), _refuse)))
    if len(found) < 2:
        raise InvalidInput(
            f"{folder} must have at least two photographs, one to train on and one to hold out, "
            f"got {len(found)}"
        )
    return found


def _refuse(error: OSError) -> None:
    raise InvalidInput(f"the folder {error.filename} cannot be searched: {error.strerror}") from None


def _is_cut_out(path: Path) -> bool:
    """Whether a file is a PNG with pixels that are seen and pixels that are not."""
    from PIL import Image

    if path.suffix.lower() != ".png":
        return False
    try:
        with Image.open(path, formats=["PNG"]) as image:
            low, high = image.convert("RGBA").getchannel("A").getextrema()
    except Exception:  # on damaged bytes a decoder raises nearly anything
        return False
    return low < SEEN <= high
