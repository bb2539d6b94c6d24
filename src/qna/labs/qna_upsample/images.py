"""What the auto-encoders restore: images of a data set, or pieces of photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from qna._core.errors import InvalidInput
from qna._core.seeds import derive_seed, seeded
from qna.data import load_data
from qna.data.images.decoding import UnreadableImage, decode
from qna.data.images.labelled import TensorImages
from qna.data.scenes import find_photographs
from qna.labs.qna_upsample.config import PHOTOGRAPHS, QnAUpsampleConfig

# height and width of a piece of a photograph
SIDE = 32
# of so many photographs one is held out; of scikit-image's the third, seventh and eleventh: a person behind a
# camera, stained tissue, a rocket
_ONE_IN, _HELD_OUT = 4, 2


def images_of(config: QnAUpsampleConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Images to train on, drawn by `seed`, and those held out, the same for every seed: uint8 (N, C, H, W).

    Raises:
        InvalidInput: the data or photographs are not there, cannot be read, or are too small.
        MissingExtra: scikit-image, whose photographs are asked for, is not installed.
    """
    if config.data == PHOTOGRAPHS:
        paths = find_photographs(config.data_dir, purpose="`--data photographs`")
        every = min(_ONE_IN, len(paths))
        parts: list[list[Tensor]] = [[], []]
        for index, path in enumerate(paths):
            parts[index % every == min(_HELD_OUT, every - 1)].append(_read(path))
        train, held_out = parts
        return (
            pieces(train, config.images, derive_seed(seed, "pieces")),
            pieces(held_out, config.held_out, derive_seed("held-out pieces")),
        )
    data = load_data(config.data, config.data_dir)
    train, held_out = (cast(TensorImages, part).pixels for part in (data.train, data.held_out))
    g = torch.Generator().manual_seed(derive_seed(seed, "images"))
    return train[torch.randperm(len(train), generator=g)[: config.images]], held_out[: config.held_out]


def pieces(photographs: Sequence[Tensor], count: int, seed: int) -> Tensor:
    """Squares anywhere in photographs (C, H, W), as many of each, up to one: (count, C, SIDE, SIDE)."""
    cut = []
    with seeded(seed):
        for number in range(count):
            photograph = photographs[number % len(photographs)]
            top, left = (int(torch.randint(n - SIDE + 1, ())) for n in photograph.shape[1:])
            cut.append(photograph[:, top : top + SIDE, left : left + SIDE])
    return torch.stack(cut)


def _read(path: Path) -> Tensor:
    """uint8 (3, H, W)."""
    try:
        photograph = decode(lambda _: path.read_bytes(), 0, path.name)
    except UnreadableImage as error:
        raise InvalidInput(f"a photograph cannot be read: {error}") from None
    width, height = photograph.size
    if min(width, height) < SIDE:
        raise InvalidInput(
            f"photographs must have at least {SIDE} x {SIDE} pixels, {path.name} has {height} x {width}"
        )
    rgb = torch.frombuffer(bytearray(photograph.tobytes()), dtype=torch.uint8)
    return rgb.view(height, width, 3).movedim(-1, 0)
