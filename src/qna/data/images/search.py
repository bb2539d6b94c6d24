"""The images in a folder, as folders are: with hidden files, links, loops and what else people keep there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# what file servers, archives and desktops put beside pictures
_SYSTEMS = frozenset({"#recycle", "$RECYCLE.BIN", "@eaDir", "System Volume Information", "__MACOSX"})


def is_hidden(name: str) -> bool:
    """Whether a file or folder is not one of the pictures' owner: ``.DS_Store``, ``._0.png``, ``@eaDir``."""
    return name.startswith(".") or name in _SYSTEMS


def is_image_name(name: str) -> bool:
    """Whether a file of that name is taken for an image in a folder or an archive."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not is_hidden(name)


def find_images_in(root: str, failed: Callable[[OSError], None]) -> Iterator[str]:
    """Paths of the images in `root` and all folders inside: a folder's files first, in alphabetical order.

    Hidden files and folders are left out. Links are followed; a folder that several lead to is searched once,
    and one that `root` itself lies in, never. A link to nothing counts as an image; it then cannot be read.

    Args:
        root: the folder.
        failed: called for each folder that cannot be searched.
    """
    seen = {str(folder) for folder in Path(os.path.realpath(root)).parents}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        place = os.path.realpath(folder)
        if place in seen:
            continue
        seen.add(place)
        try:
            with os.scandir(folder) as found:
                entries = sorted((e for e in found if not is_hidden(e.name)), key=lambda e: e.name)
        except OSError as error:
            failed(error)
            continue
        yield from (entry.path for entry in entries if is_image_name(entry.name) and _is_image_file(entry))
        waiting += [entry.path for entry in reversed(entries) if _leads_to_folder(entry)]


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file or leads nowhere; reading a pipe or a device might never end."""
    try:
        return entry.is_file() or not os.path.exists(entry.path)
    except OSError:
        return True
