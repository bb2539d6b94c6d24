"""Files of text are read up to a size and a depth, from pipes and devices too."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from qna._core.errors import InvalidInput
from qna._core.files import TEXT_BYTES, read_bytes
from qna._core.typed_json import from_json_value, parse_json, read_json


@pytest.mark.parametrize("size", [0, 1, 2**16, 3 * 2**20])
def test_a_file_is_read_up_to_its_limit(size, tmp_path):
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    assert read_bytes(tmp_path / "a", size) == content
    if size:
        with pytest.raises(InvalidInput, match=f"more than {size - 1:,} bytes"):
            read_bytes(tmp_path / "a", size - 1)


def test_text_is_utf8_with_or_without_a_mark(tmp_path):
    told = '{"é": 1}'
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "a").write_bytes(told.encode(encoding))
        assert read_json(tmp_path / "a") == {"é": 1}
    for encoding in ("utf-16", "utf-16-le", "utf-32", "latin-1"):
        (tmp_path / "a").write_bytes(told.encode(encoding))
        with pytest.raises(InvalidInput, match=r"it is not (UTF-8|JSON): "):
            read_json(tmp_path / "a")


def test_a_pipe_is_read_to_its_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    content = b"[" + b"1," * 100_000 + b"1]"
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    assert read_json(tmp_path / "pipe") == [1] * 100_001
    writer.join()


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")
def test_a_device_that_never_ends_is_refused():
    with pytest.raises(InvalidInput, match=f"it has more than {TEXT_BYTES:,} bytes"):
        read_json(Path("/dev/zero"))


@pytest.mark.parametrize("levels", [1, 32, 33, 900, 100_000])
def test_what_is_nested_too_deeply_is_refused(levels):
    text = '{"a": [' * (levels // 2) + "[" * (levels % 2) + "]" * (levels % 2) + "]}" * (levels // 2)
    if levels <= 32:
        parse_json(text, "it")
    else:
        with pytest.raises(InvalidInput, match="it is nested too deeply"):
            parse_json(text, "it")


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}'])
def test_what_is_no_number_is_no_json(text):
    with pytest.raises(InvalidInput, match="is not a number"):
        parse_json(text, "it")


def test_items_of_dicts_have_their_type():
    assert from_json_value(dict[str, int], {"a": 1}, "it") == {"a": 1}
    assert from_json_value(dict[str, Any], {"a": [None]}, "it") == {"a": [None]}
    with pytest.raises(InvalidInput, match="a of it must be int, got '1'"):
        from_json_value(dict[str, int], {"a": "1"}, "it")
