"""From the bytes of a mask to a class for every pixel."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

from qna._core.errors import InvalidInput
from qna._core.files import read_bytes
from qna.data.images.decoding import LARGEST_FILE, upright_size
from qna.data.masks.palette import Colour

# Pillow's modes of one number per pixel: an index into a palette, 8 bits of grey, one bit
_MODES = ("P", "L", "1")


def read_mask(path: Path) -> tuple[Any, tuple[Colour, ...]]:
    """The classes of a mask's pixels, uint8 (H, W), and its palette, empty where it has none.

    Raises:
        InvalidInput: if it cannot be read as a PNG, or has other than 8 bits or one per pixel.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        content = read_bytes(path, LARGEST_FILE)
        with warnings.catch_warnings(), Image.open(BytesIO(content), formats=["PNG"]) as mask:
            # Pillow warns of oddities that it gets over
            warnings.simplefilter("ignore")
            mode, table = mask.mode, mask.getpalette("RGB") if mask.mode == "P" else None
            values = np.array(mask, dtype=np.uint8) if mode in _MODES else None
    except UnidentifiedImageError:  # its own text names a buffer in memory
        raise InvalidInput(f"the mask {path} cannot be read as a PNG") from None
    except Exception as error:  # on damaged bytes a decoder raises nearly anything
        cause = " ".join(str(error).split()) or type(error).__name__
        raise InvalidInput(f"the mask {path} cannot be read as a PNG: {cause}") from None
    if values is None:
        raise InvalidInput(
            f"{path} is no mask: its pixels are {mode} and not one number of 8 bits each; save the classes' "
            "numbers as PNG with a palette, or as 8-bit grey"
        )
    triples = iter(table or ())
    return values, tuple(zip(triples, triples, triples, strict=False))


def require_size(image: Path, mask: Path, height: int, width: int) -> None:
    """Check that an image is as large as its mask, by its header; one that cannot be read is left to others.

    Raises:
        InvalidInput: if it is not.
    """
    size = upright_size(image)
    if size is not None and size != (width, height):
        raise InvalidInput(
            f"{image} has {size[0]} x {size[1]} pixels and its mask {mask} {width} x {height}; "
            "they must be equal"
        )
