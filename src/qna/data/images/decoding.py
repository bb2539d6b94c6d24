"""From the bytes of an image file to an upright RGB image, whatever the bytes hold."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

# Pillow's names of what is read; nothing else is tried on a file, least of all what starts other programs
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# bytes of a file: more than any picture has that Pillow takes to be no bomb
LARGEST_FILE = 2**30
_ORIENTATION = 0x0112
# orientations whose rows are upright's columns
_ON_ITS_SIDE = (5, 6, 7, 8)
_WHITE_16 = 65_535
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # of TIFF


class UnreadableImage(Exception):
    """The bytes of an image cannot be had or do not make an image; the text is its name and the cause."""


def decode(read: Callable[[int], bytes], index: int, name: str) -> Any:
    """The RGB image whose bytes `read(index)` gives, turned upright as its EXIF orientation says.

    Grey images of more than 8 bits are scaled by the range of the type that the file stores: of 16 bits,
    65,535 is white. Those of floats must lie in [0, 1], where 1 is white.

    Raises:
        UnreadableImage: with `name` and the cause, which is one line.
    """
    from PIL import UnidentifiedImageError

    try:
        content = read(index)
        with warnings.catch_warnings():
            # Pillow warns of oddities that it gets over
            warnings.simplefilter("ignore")
            return _decode(content)
    except UnidentifiedImageError:  # its own text names a buffer in memory
        raise UnreadableImage(f"{name}: not an image, or cut short") from None
    except Exception as error:  # on damaged bytes a decoder raises nearly anything
        cause = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"{name}: {cause}") from None


def _decode(content: bytes) -> Any:
    from PIL import Image

    Image.init()
    with Image.open(BytesIO(content), formats=[f for f in FORMATS if f in Image.OPEN]) as image:
        image.load()
        if min(image.size) < 1:
            raise ValueError(f"an image of {image.width} x {image.height} pixels")
        if image.mode == "F":
            upright = _from_floats(image)
        elif image.mode == "I" or image.mode.startswith("I;"):
            upright = _from_integers(image)
        else:
            upright = image.convert("RGB")
        turn = _turn(image)
        return upright if turn is None else upright.transpose(turn)


def upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height of what `decode` makes of a file, by its header; None where that cannot be read."""
    from PIL import Image

    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=[f for f in FORMATS if f in Image.OPEN]) as image:
                width, height = image.size
                turned = image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
    except Exception:  # on damaged bytes a decoder raises nearly anything
        return None
    return (height, width) if turned else (width, height)


def _turn(image: Any) -> Any:
    """How to transpose an image to see it upright; None for not at all, or where the EXIF data is damaged."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # of all that EXIF holds, nothing else is asked for, and the picture is there
        return None
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return turns.get(orientation) if isinstance(orientation, int) else None


def _from_integers(image: Any) -> Any:
    import numpy as np

    tags = image.tag_v2 if image.format == "TIFF" else {}
    # PNG, PPM and JPEG 2000 of more than 8 bits are given in 16
    bits = tags.get(_BITS, (16,))[0]
    signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == 2
    white = 2 ** (bits - signed) - 1
    values = np.asarray(image)
    if signed and values.min() < 0:
        raise ValueError(f"a grey image needs values from 0, got {values.min()}")
    if not signed and values.dtype == np.int32:
        values = values.view(np.uint32)
    brightest = int(values.max())
    if 0 < 255 * brightest < white:
        raise ValueError(f"its brightest value is {brightest} of {white:,} that are white: it would be black")
    if white > _WHITE_16:
        values, white = values >> (bits - signed - 16), _WHITE_16
    # a table is quicker than a division and needs no wider copy
    table = (np.arange(white + 1) * 255 + white // 2) // white
    return _grey(table.astype(np.uint8)[values], tags)


def _from_floats(image: Any) -> Any:
    import numpy as np

    values = np.asarray(image)
    if not (values.min() >= 0 and values.max() <= 1):  # so that NaN is refused too
        raise ValueError(f"grey floats must lie in [0, 1], got {values.min():g} to {values.max():g}")
    levels = values * 255
    return _grey(np.rint(levels, out=levels).astype(np.uint8), image.tag_v2 if image.format == "TIFF" else {})


def _grey(levels: Any, tags: Any) -> Any:
    from PIL import Image

    if tags.get(_PHOTOMETRIC) == 0:  # white is zero; Pillow turns only 8 bits and less
        levels = 255 - levels
    return Image.fromarray(levels).convert("RGB")
