"""Images in tar files: by folder of class, or WebDataset's shards of `KEY.jpg` beside `KEY.cls`.

Every member is found once and then read from its place in the file, so images can be opened in any order.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from qna._core.errors import InvalidInput
from qna.data.images.decoding import LARGEST_FILE
from qna.data.images.folder import HELD_OUT_NAMES, TRAIN_NAMES, photo_data
from qna.data.images.labelled import FileImages, ImageData
from qna.data.images.search import is_hidden, is_image_name
from qna.data.places import MissingData

# bytes of a .cls member, which holds a number or a name
_LONGEST_CLASS = 256


@dataclass(frozen=True)
class Member:
    """A file in a tar file.

    Attributes:
        archive: the tar file.
        name: path inside.
        start: first byte of its data in the archive.
        size: in bytes.
    """

    archive: Path
    name: str
    start: int
    size: int

    def read(self) -> bytes:
        """Its bytes."""
        if self.size > LARGEST_FILE:
            raise InvalidInput(f"it has more than {LARGEST_FILE:,} bytes")
        with self.archive.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


@dataclass(frozen=True)
class MemberReader:
    """Reads members of tar files.

    Attributes:
        members: one per image.
    """

    members: tuple[Member, ...]

    def __call__(self, index: int) -> bytes:
        """The bytes of a member."""
        return self.members[index].read()


def load_tar(root: Path) -> ImageData:
    """Return the images of ROOT/train*.tar and ROOT/val*.tar (or validation, valid, test).

    An image's class is the text of the member ``KEY.cls`` beside it (an integer, as WebDataset writes it,
    or a name), or, where there is none, the folder that it lies in. There may be any number of shards. Hidden
    members, such as ``.DS_Store`` and ``._0.png``, are left out.

    Raises:
        MissingData: if a part is not there.
        InvalidInput: if an archive is damaged or compressed, has no images, has classes of its own, or
            no image of a class can be read.
    """
    parts = [_shards(root, TRAIN_NAMES), _shards(root, HELD_OUT_NAMES)]
    (train, train_classes), (held_out, held_out_classes) = (_labelled(part) for part in parts)
    names = sorted(set(train_classes), key=_numbers_first)
    strange = sorted(set(held_out_classes) - set(names))
    if strange:
        raise InvalidInput(f"{parts[1][0]} has a class that {parts[0][0]} does not have: {strange[0]!r}")
    label = {name: i for i, name in enumerate(names)}
    return photo_data(
        str(root),
        tuple(names),
        _images(train, [label[c] for c in train_classes]),
        _images(held_out, [label[c] for c in held_out_classes]),
        f"tar files in {root}",
    )


def has_tars(root: Path) -> bool:
    """Whether `root` is a folder with tar files of a training part."""
    return root.is_dir() and any(any(root.glob(f"{name}*.tar")) for name in TRAIN_NAMES)


def _shards(root: Path, names: tuple[str, ...]) -> list[Path]:
    for name in names:
        found = sorted(root.glob(f"{name}*.tar"))
        if found:
            return found
    wanted = " or ".join(f"{name}*.tar" for name in names)
    command = f"tar cf {root}/{names[0]}.tar -C FOLDER_OF_CLASSES ."
    raise MissingData(str(root), wanted, [root], [command])


def _labelled(shards: Iterable[Path]) -> tuple[list[Member], list[str]]:
    images, classes = [], []
    for shard in shards:
        texts: dict[str, str] = {}
        pictures: list[tuple[str, Member]] = []
        for member in _members(shard):
            path = PurePosixPath(member.name)
            if not path.name or any(is_hidden(part) for part in path.parts if part != ".."):
                continue
            # WebDataset's key ends at the first dot of the file's name
            key = str(path.with_name(path.name.partition(".")[0]))
            if path.suffix == ".cls":
                texts[key] = _class_name(member)
            elif is_image_name(path.name):
                pictures.append((key, member))
        for key, member in pictures:
            name = texts.get(key) or PurePosixPath(member.name).parent.name
            if not name:
                raise InvalidInput(f"{shard}: {member.name} has no .cls member and no folder for its class")
            images.append(member)
            classes.append(name)
    if not images:
        raise InvalidInput(f"no images in {', '.join(map(str, shards))}")
    return images, classes


def _class_name(member: Member) -> str:
    if member.size > _LONGEST_CLASS:
        raise InvalidInput(
            f"{member.archive}: {member.name} has {member.size:,} bytes, and the name of a class at most "
            f"{_LONGEST_CLASS}"
        )
    return member.read().decode(errors="replace").strip()


def _members(shard: Path) -> list[Member]:
    """The files in a tar file; one that is a hard link to another has that one's data."""
    found: list[Member] = []
    by_name: dict[str, Member] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for m in tar:
                if m.isfile():
                    by_name[m.name] = Member(shard, m.name, m.offset_data, m.size)
                elif m.islnk() and m.linkname in by_name:
                    by_name[m.name] = replace(by_name[m.linkname], name=m.name)
                else:
                    continue
                found.append(by_name[m.name])
            # tarfile takes a damaged header for the end, where there are zeros or nothing
            damaged = bool(Member(shard, "", tar.offset, tarfile.BLOCKSIZE).read().strip(b"\0"))
    except Exception as error:  # of a damaged header, tarfile says this and that
        raise InvalidInput(f"{shard} is not an uncompressed tar file: {error}") from None
    if damaged:
        raise InvalidInput(f"{shard} is damaged after {len(found):,} files")
    return found


def _images(members: list[Member], labels: list[int]) -> FileImages:
    return FileImages([f"{m.archive}:{m.name}" for m in members], labels, MemberReader(tuple(members)))


def _numbers_first(name: str) -> tuple[int, int, str]:
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)
