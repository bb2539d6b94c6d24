"""Folders and archives as people have them: hidden files, links, loops, empty classes, damage."""

import os
import random
import tarfile
from pathlib import Path

import pytest

from qna._core.errors import InvalidInput
from qna.data import load_data
from qna.data.images import search
from qna.data.images.search import find_images_in

PARTS = ("train", "val")


@pytest.fixture
def photos(tmp_path, picture):
    """train/ and val/ with three cats and three dogs each."""
    for part in PARTS:
        for name, colour in (("cat", (250, 0, 0)), ("dog", (0, 0, 250))):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(3):
                (tmp_path / "photos" / part / name / f"{i}.png").write_bytes(picture(colour))
    return tmp_path / "photos"


def found(root):
    failed = []
    paths = [os.path.relpath(path, root) for path in find_images_in(str(root), failed.append)]
    assert not failed
    return paths


def test_hidden_files_and_folders_are_no_images_and_no_classes(photos, picture):
    for part in PARTS:
        for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", "cat/.thumbnails", "cat/@eaDir"):
            (photos / part / name).mkdir()
            (photos / part / name / "0.png").write_bytes(picture((0, 0, 0)))
        for name in ("cat/._0.png", "cat/.DS_Store", "cat/Thumbs.db", ".DS_Store", "list.txt"):
            (photos / part / name).write_bytes(b"\0")
    data = load_data(str(photos))
    assert data.classes == ("cat", "dog")
    assert list(data.train.labels) == list(data.held_out.labels) == [0] * 3 + [1] * 3


@pytest.mark.parametrize("part", PARTS)
def test_a_class_without_images_is_refused_in_both_parts(photos, part):
    (photos / "train" / "eel").mkdir()
    (photos / "train" / "eel" / "notes.txt").write_text("no image")
    if part == "val":
        (photos / "val" / "eel").mkdir()
        (photos / "train" / "eel" / "0.png").write_bytes((photos / "train" / "cat" / "0.png").read_bytes())
    with pytest.raises(InvalidInput, match=rf"{part} has folders of classes without images \(.*\): 'eel'; "):
        load_data(str(photos))


@pytest.mark.parametrize(("part", "told"), [("train", "train"), ("val", "held out")])
def test_a_class_of_which_no_image_can_be_read_is_refused_in_both_parts(photos, part, told):
    for path in (photos / part / "dog").iterdir():
        path.write_bytes(b"no image")
    match = rf"photos \({told}\): no image of class 'dog' can be read; .*{part}/dog/0.png: not an image"
    with pytest.raises(InvalidInput, match=match):
        load_data(str(photos))
    # one that can be read is enough
    (photos / part / "dog" / "2.png").write_bytes((photos / part / "cat" / "0.png").read_bytes())
    assert len(load_data(str(photos)).train) == 6


def test_the_held_out_part_may_do_without_a_class(photos):
    for path in [*(photos / "val" / "dog").iterdir()]:
        path.unlink()
    (photos / "val" / "dog").rmdir()
    assert list(load_data(str(photos)).held_out.labels) == [0] * 3


def test_links_are_followed(photos, tmp_path):
    (photos / "train" / "cat").rename(tmp_path / "elsewhere")
    (photos / "train" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "more").mkdir()
    (photos / "train" / "dog" / "2.png").rename(tmp_path / "more" / "2.png")
    (photos / "train" / "dog" / "more").symlink_to(tmp_path / "more")
    (photos / "train" / "dog" / "3.png").symlink_to(tmp_path / "more" / "2.png")
    data = load_data(str(photos))
    assert list(data.train.labels) == [0] * 3 + [1] * 4
    assert [Path(n).relative_to(photos / "train" / "dog").as_posix() for n in data.train.names[3:]] == [
        "0.png", "1.png", "3.png", "more/2.png",
    ]  # fmt: skip


def test_loops_of_links_end_and_bring_no_other_class(photos):
    cat = photos / "train" / "cat"
    (cat / "up").symlink_to(photos / "train")
    (cat / "again").symlink_to(cat)
    (cat / "itself").symlink_to("itself")
    (cat / "a").mkdir()
    (cat / "b").mkdir()
    (cat / "a" / "b").symlink_to(cat / "b")
    (cat / "b" / "a").symlink_to(cat / "a")
    (cat / "b" / "3.png").write_bytes((cat / "0.png").read_bytes())
    assert found(cat) == ["0.png", "1.png", "2.png", "a/b/3.png"]
    assert list(load_data(str(photos)).train.labels) == [0] * 4 + [1] * 3


def test_a_link_to_nothing_is_an_image_that_cannot_be_read_and_a_pipe_is_none(photos):
    cat = photos / "train" / "cat"
    (cat / "3.png").symlink_to("gone.png")
    os.mkfifo(cat / "4.png")
    (cat / "5.png").mkdir()
    assert found(cat) == ["0.png", "1.png", "2.png", "3.png"]


def test_a_folder_that_cannot_be_searched_is_named(photos, monkeypatch):
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("private"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    (photos / "train" / "cat" / "private").mkdir()
    monkeypatch.setattr(search.os, "scandir", refuse)
    with pytest.raises(InvalidInput, match=r"cat/private cannot be searched: Permission denied$"):
        load_data(str(photos))


def test_a_deep_tree_is_searched(tmp_path, picture):
    folder = tmp_path
    for _ in range(100):
        folder /= "a"
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(picture((0, 0, 0)))
    assert len(found(tmp_path)) == 1


def test_hidden_members_of_a_tar_file_are_left_out(tmp_path, picture, write_tar):
    members = [(f"./{c}/{i}.png", picture((200, 0, 0))) for c in ("cat", "dog") for i in range(2)]
    hidden = ["./cat/.DS_Store", "./._0.png", "./cat/._0.png", "./.gitkeep", "@eaDir/cat/0.png", ".x/0.png"]
    for part in PARTS:
        write_tar(tmp_path / f"{part}.tar", [*((name, b"\0") for name in hidden), *members])
    data = load_data(str(tmp_path))
    assert data.classes == ("cat", "dog")
    assert list(data.train.labels) == [0, 0, 1, 1]


def test_a_tar_file_may_hold_an_image_twice_as_a_hard_link(tmp_path, picture):
    for part in PARTS:
        folder = tmp_path / part / "cat"
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(picture((200, 0, 0)))
        os.link(folder / "0.png", folder / "1.png")
        with tarfile.open(tmp_path / f"{part}.tar", "w") as tar:
            tar.add(tmp_path / part, ".")
    train = load_data(f"wds/{tmp_path}").train
    assert len(train) == 2
    assert train.open(0)[0].tobytes() == train.open(1)[0].tobytes()


def test_a_class_of_which_no_member_can_be_read_is_refused(tmp_path, picture, write_tar):
    for part, dog in zip(PARTS, (picture((0, 0, 9)), b"no image"), strict=True):
        write_tar(tmp_path / f"{part}.tar", [("cat/0.png", picture((9, 0, 0))), ("dog/0.png", dog)])
    with pytest.raises(
        InvalidInput, match=r"\(held out\): no image of class 'dog' can be read; .*val.tar:dog"
    ):
        load_data(str(tmp_path))


def test_the_name_of_a_class_is_short(tmp_path, picture, write_tar):
    write_tar(tmp_path / "train.tar", [("0.png", picture((9, 0, 0))), ("0.cls", b"9" * 5000)])
    write_tar(tmp_path / "val.tar", [("0.png", picture((9, 0, 0))), ("0.cls", b"9")])
    with pytest.raises(InvalidInput, match=r"0.cls has 5,000 bytes, and the name of a class at most 256"):
        load_data(str(tmp_path))


def test_a_damaged_header_does_not_end_a_tar_file_in_silence(tmp_path, picture, write_tar):
    members = [(f"cat/{i}.png", picture((200, 0, 0), (2, 2))) for i in range(4)]
    for part in PARTS:
        write_tar(tmp_path / f"{part}.tar", members)
    content = bytearray((tmp_path / "train.tar").read_bytes())
    content[content.index(b"cat/2.png")] ^= 1
    (tmp_path / "train.tar").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"train.tar is damaged after 2 files"):
        load_data(str(tmp_path))


def changed(content, rng):
    """Some bytes of a header, with its checksum put right or not, or the end taken away."""
    content = bytearray(content)
    header = 1024 * rng.randrange(4)
    for _ in range(rng.randint(1, 4)):
        content[header + rng.randrange(512)] = rng.choice((0, 32, 48, 55, 255, rng.randrange(256)))
    if rng.random() < 0.7:
        content[header + 148 : header + 156] = b" " * 8
        content[header + 148 : header + 156] = b"%06o\0 " % sum(content[header : header + 512])
    if rng.random() < 0.1:
        del content[rng.randrange(len(content)) :]
    return content


def test_whatever_a_tar_file_holds_it_is_read_or_refused(tmp_path, picture, write_tar):
    members = [(f"{c}/{i}.png", picture((200, 0, 0), (2, 2))) for c in ("cat", "dog") for i in range(2)]
    for part in PARTS:
        write_tar(tmp_path / f"{part}.tar", members)
    whole, rng, ends = (tmp_path / "train.tar").read_bytes(), random.Random(0), []
    for _ in range(200):
        (tmp_path / "train.tar").write_bytes(changed(whole, rng))
        try:
            data = load_data(str(tmp_path))
        except InvalidInput:
            ends.append("refused")
        else:
            assert 1 <= len(data.classes) <= len(data.train) <= 4
            ends.append("read")
    assert {"read", "refused"} == set(ends)
