"""A digest sees every changed bit, and files without one are read as before."""

import errno

import pytest
import torch
from safetensors.torch import load_file, save_file

from qna._core.errors import InvalidInput
from qna._core.tensor_file import read_metadata, read_tensors, write_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.int64)}
TOLD = {"qna": '{"sha256": "' + 64 * "f" + '"}'}


@pytest.fixture
def path(tmp_path):
    write_tensors(tmp_path / "w.safetensors", TENSORS, TOLD)
    return tmp_path / "w.safetensors"


def same(tensors):
    return tensors.keys() == TENSORS.keys() and all(torch.equal(tensors[n], t) for n, t in TENSORS.items())


def test_a_file_comes_back_and_others_read_it(path):
    tensors, metadata = read_tensors(path)
    assert same(tensors)
    assert metadata == read_metadata(path) == TOLD
    assert same(load_file(path))


def test_a_disk_that_is_full_is_told_in_the_systems_words(tmp_path):
    resource = pytest.importorskip("resource", reason="only POSIX limits the size of files")
    path, before = tmp_path / "w.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as told:
            write_tensors(path, TENSORS, TOLD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (told.value.errno, told.value.filename) == (errno.EFBIG, str(path))
    assert not list(tmp_path.iterdir())


def test_every_changed_bit_is_seen(path):
    content = path.read_bytes()
    name = content.index(b'"sha256":"') + 1  # not the one in TOLD, which may stand before it
    for place in range(0, 8 * len(content), 9):  # another bit of every byte
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            tensors, _ = read_tensors(path)
        except InvalidInput:
            continue
        # under another name it is no digest, and nothing else has changed
        assert name <= place // 8 < name + len("sha256")
        assert same(tensors)


def test_a_file_without_a_digest_is_taken_as_it_is(tmp_path):
    save_file(TENSORS, tmp_path / "old.safetensors", metadata=TOLD)
    tensors, metadata = read_tensors(tmp_path / "old.safetensors")
    assert same(tensors)
    assert metadata == TOLD


def test_a_digest_that_was_kept_with_other_tensors_is_refused(path, tmp_path):
    digest = path.read_bytes().split(b'"sha256":"')[1][:64].decode()
    save_file({"a": TENSORS["a"] + 1}, tmp_path / "w", metadata={"sha256": digest})
    with pytest.raises(InvalidInput, match="damaged: its bytes are not those that were written"):
        read_tensors(tmp_path / "w")
