"""From the bytes of a mask to a class for every pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qna._core.errors import InvalidInput
from qna.data.images.decoding import upright_size
from qna.data.masks.palette import Colour

# Pillow's modes of one number per pixel: an index into a palette, 8 bits of grey, one bit
_MODES = ("P", "L", "1")


def read_mask(path: Path) -> tuple[Any, tuple[Colour, ...]]:
    """The classes of a mask's pixels, uint8 (H, W), and its palette, empty where it has none.

    Raises:
        InvalidInput: if it cannot be read as a PNG, or has other than 8 bits or one per pixel.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as mask:
            if mask.mode not in _MODES:
                raise InvalidInput(
                    f"{path} is no mask: its pixels are {mask.mode} and not one number of 8 bits each; save "
                    "the classes' numbers as PNG with a palette, or as 8-bit grey"
                )
            table = mask.getpalette("RGB") if mask.mode == "P" else None
            values = np.array(mask, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's, on damaged bytes
        if isinstance(error, InvalidInput):
            raise
        cause = " ".join(str(error).split())
        raise InvalidInput(f"the mask {path} cannot be read as a PNG: {cause}") from None
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
