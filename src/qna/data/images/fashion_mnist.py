"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 70,000 grey images of clothing, 28x28 pixels."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import torch

from qna._core.errors import InvalidInput
from qna.data.images.labelled import ImageData, TensorImages, tensor_data
from qna.data.images.vision import torchvision_download
from qna.data.places import MissingData, home

CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_PARTS = ("train", "t10k")
# bytes of a part; a header that says more is not of this data set
_LARGEST = 2**30


def load_fashion_mnist(folder: Path | None = None, *, download: bool = False) -> ImageData:
    """Return the 60,000 training images and the 10,000 test images.

    Args:
        folder: has the four idx files, gzipped or not; None for data/fashion-mnist, then Debian's folder.
        download: fetch what is missing to the folder.

    Raises:
        MissingData: with the commands that get it.
        InvalidInput: if a file is not what its name says.
    """
    first = folder or home("fashion-mnist")
    places = [first, first / "FashionMNIST" / "raw", *([DEBIAN] if folder is None else [])]
    found = _complete(places)
    if found is None and download:
        torchvision_download("FashionMNIST", first)
        found = _complete(places)
    if found is None:
        raise MissingData(
            "fashion-mnist",
            "train-images-idx3-ubyte.gz and its three fellows",
            places,
            ["apt install dataset-fashion-mnist", "qna train --data fashion-mnist --download"],
        )
    train, test = (
        TensorImages(
            read_idx(_file(found, part, "images-idx3"), 3).unsqueeze(1),
            read_idx(_file(found, part, "labels-idx1"), 1).long(),
        )
        for part in _PARTS
    )
    return tensor_data("fashion-mnist", CLASSES, train, test, f"Fashion-MNIST, {found}")


def read_idx(path: Path | None, axes: int) -> torch.Tensor:
    """Read an idx file of bytes, gzipped or not, as a uint8 tensor with `axes` axes.

    The format: two zero bytes, 8 for unsigned bytes, the number of axes; then each size as a big-endian
    32-bit integer; then the data.

    Raises:
        InvalidInput: if the file is cut short or says something else.
    """
    assert path is not None
    start = 4 + 4 * axes
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            head = file.read(start)
            if head[:4] != bytes([0, 0, 8, axes]) or len(head) < start:
                raise InvalidInput(
                    f"{path} is no idx file of bytes with {axes} axes: it starts with {head[:4].hex()}"
                )
            sizes = [int.from_bytes(head[i : i + 4], "big") for i in range(4, start, 4)]
            count = math.prod(sizes)
            if count > _LARGEST:
                raise InvalidInput(f"{path} says {sizes}, so {count} bytes, which is too much")
            # a byte more, to see that it is the end
            data = file.read(count + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from None
    if len(data) != count:
        holds = "more" if len(data) > count else len(data)
        raise InvalidInput(f"{path} says {sizes}, so {count} bytes, but holds {holds}")
    if not count:
        return torch.empty(sizes, dtype=torch.uint8)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(sizes)


def _file(folder: Path, part: str, kind: str) -> Path | None:
    stem = folder / f"{part}-{kind}-ubyte"
    return next((p for p in (stem.with_name(stem.name + ".gz"), stem) if p.is_file()), None)


def _complete(places: list[Path]) -> Path | None:
    kinds = ("images-idx3", "labels-idx1")
    return next((p for p in places if all(_file(p, part, k) for part in _PARTS for k in kinds)), None)
