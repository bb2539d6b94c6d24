"""Files appear whole, and what is no file is written through or refused, never replaced."""

import os
import stat
import threading
from pathlib import Path

import pytest

from qna._core.files import write_text, write_whole


def test_a_link_stays_and_what_it_names_is_written(tmp_path):
    (tmp_path / "there").write_text("old")
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    write_text(tmp_path / "link", "a")
    write_text(tmp_path / "dangling", "b")
    assert (tmp_path / "link").is_symlink()
    assert [(tmp_path / name).read_text() for name in ("there", "new")] == ["a", "b"]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_full_device_is_an_error_and_stays_a_device(through_a_link, tmp_path):
    # a node of its own where one can be made: the machine's must survive a mistake
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        write_device = path
        path.open("wb").close()
    except OSError:
        pytest.skip("no device can be made here")
    if through_a_link:
        path = tmp_path / "link"
        path.symlink_to("full")
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "lost")
    assert stat.S_ISCHR(write_device.stat().st_mode)
    assert {p.name for p in tmp_path.iterdir()} <= {"full", "link"}


def test_a_pipe_gets_all_of_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "link", "all of it")
    reader.join()
    assert got == ["all of it"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_an_open_file_is_written_through_its_descriptor(tmp_path):
    with (tmp_path / "out").open("w+") as file:
        write_text(Path(f"/dev/fd/{file.fileno()}"), "said")
        assert os.fstat(file.fileno()).st_ino == (tmp_path / "out").stat().st_ino
    assert (tmp_path / "out").read_text() == "said"


def test_a_folder_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "folder").mkdir()

    def write(path):
        raise AssertionError("nothing is to be written")

    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "folder", write)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
