"""The data sets that can be named, one row each, and what else `--data` takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from qna._core.errors import InvalidInput, UnknownName
from qna.data.images.archive import has_tars, load_tar
from qna.data.images.cifar10 import load_cifar10
from qna.data.images.digits import load_digits
from qna.data.images.fashion_mnist import load_fashion_mnist
from qna.data.images.folder import load_folder
from qna.data.images.hub import PREFIX as HUB
from qna.data.images.hub import load_hub
from qna.data.images.labelled import ImageData

SHARDS = "wds/"


class Loader(Protocol):
    """Loads a data set."""

    def __call__(self, folder: Path | None = None, *, download: bool = False) -> ImageData:
        """Load it from `folder` or, with None, from its usual places; `download` fetches what is missing."""
        ...


@dataclass(frozen=True)
class DataSpec:
    """A data set that can be named.

    Attributes:
        summary: what it is, in a few words.
        load: reads it.
    """

    summary: str
    load: Loader


DATA: dict[str, DataSpec] = {
    "digits": DataSpec("1,797 handwritten digits, 8x8 grey, embedded in scikit-learn", load_digits),
    "fashion-mnist": DataSpec("70,000 pieces of clothing, 28x28 grey", load_fashion_mnist),
    "cifar10": DataSpec("60,000 things and animals, 32x32 colour", load_cifar10),
}


def load_data(name: str, folder: Path | None = None, *, download: bool = False) -> ImageData:
    """Return the data set called `name`.

    Args:
        name: a key of `DATA`; a folder with train/ and val/ in ImageNet's layout, or with train*.tar and
            val*.tar; ``wds/FOLDER``, the same tar files; ``hfds/NAME``, a data set of the Hugging Face hub.
        folder: where the files of a named data set are; for ``hfds/`` where downloads are kept.
        download: fetch what is missing of a named data set.

    Raises:
        UnknownName: with the nearest names.
        InvalidInput: if the data is not there or cannot be used.
    """
    if name in DATA:
        return DATA[name].load(folder, download=download)
    if name.startswith(HUB):
        return load_hub(name, folder)  # fetches what is missing by itself
    refused = [option for option, given in (("data_dir", folder), ("download", download)) if given]
    path = Path(name.removeprefix(SHARDS))
    loader: Callable[[Path], ImageData] | None = None
    if name.startswith(SHARDS) or has_tars(path):
        loader = load_tar
    elif path.is_dir():
        loader = load_folder
    if loader is None:
        raise UnknownName("data", name, [*DATA, "FOLDER (with train/ and val/)", "wds/FOLDER", "hfds/NAME"])
    if refused:
        raise InvalidInput(f"data {name!r} is a folder, so {' and '.join(refused)} cannot be used with it")
    return loader(path)
