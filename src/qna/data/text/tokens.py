"""Text as tokens: bytes, or what a tokenizer's file says."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from qna._core.errors import InvalidInput, require
from qna._core.files import read_bytes


class Tokens(Protocol):
    """A way to write text as tokens. The last token of the vocabulary is the end of a text."""

    @property
    def vocabulary(self) -> int:
        """Tokens that there are, the end among them."""
        ...

    @property
    def end(self) -> int:
        """The token between texts, before the first and behind the last."""
        ...

    def encode(self, text: bytes) -> np.ndarray:
        """The tokens of a text, without ends."""
        ...

    def reader(self) -> Reader:
        """What makes text of tokens as they come."""
        ...

    def told(self) -> dict[str, Any]:
        """As JSON, for `tokens_told`."""
        ...


class Reader(Protocol):
    """Makes text of tokens as they come."""

    def read(self, token: int) -> str:
        """What is certain now and was not before; "" inside a character."""
        ...

    def rest(self) -> str:
        """What is left at the end."""
        ...


class Bytes:
    """Every byte is a token."""

    vocabulary = 257
    end = 256

    def encode(self, text: bytes) -> np.ndarray:
        """The bytes."""
        return np.frombuffer(text, dtype=np.uint8).astype(np.uint16)

    def reader(self) -> Reader:
        """UTF-8; what is none becomes the sign for that."""
        return _ByteReader()

    def told(self) -> dict[str, Any]:
        """That it is bytes."""
        return {"kind": "bytes"}


class _ByteReader:
    def __init__(self):
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self, token: int) -> str:
        return self._decoder.decode(bytes([token])) if token < 256 else ""

    def rest(self) -> str:
        return self._decoder.decode(b"", final=True)


class FileTokens:
    """The tokens of a file of the tokenizers library (tokenizer.json), and the end of a text behind them.

    Args:
        text: the file's.
        source: where it is from, for errors.

    Raises:
        InvalidInput: the library cannot read it.
    """

    def __init__(self, text: str, source: object):
        tokenizers = require("tokenizers", extra="language", purpose="a tokenizer's file")
        self._text = text
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        # the library raises plain exceptions
        except Exception as error:
            raise InvalidInput(f"{source} is no file of the tokenizers library: {error}") from None
        self.end = self._tokenizer.get_vocab_size()
        self.vocabulary = self.end + 1

    @classmethod
    def from_file(cls, path: Path) -> FileTokens:
        """Read a file."""
        try:
            return cls(read_bytes(path).decode(), path)
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{path} is no file of the tokenizers library: {error}") from None

    def encode(self, text: bytes) -> np.ndarray:
        """Without the special tokens that the file may put around a text."""
        found = self._tokenizer.encode(text.decode("utf-8", "replace"), add_special_tokens=False).ids
        return np.asarray(found, dtype=np.uint16 if self.vocabulary <= 2**16 else np.uint32)

    def reader(self) -> Reader:
        """The library's."""
        return _FileReader(self._tokenizer, self.end)

    def told(self) -> dict[str, Any]:
        """The whole file, so that weights need no other."""
        return {"kind": "tokenizer", "text": self._text}


class _FileReader:
    """Shows what is decoded of all tokens so far, as far as it ends in a whole character."""

    def __init__(self, tokenizer: Any, end: int):
        self._tokenizer, self._end = tokenizer, end
        self._tokens: list[int] = []
        self._shown = ""

    def read(self, token: int) -> str:
        if token != self._end:
            self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        if text.endswith("\ufffd") or not text.startswith(self._shown):
            return ""
        new, self._shown = text[len(self._shown) :], text
        return new

    def rest(self) -> str:
        text = self._tokenizer.decode(self._tokens)
        return text[len(self._shown) :] if text.startswith(self._shown) else ""


def tokens_told(told: Any, source: object) -> Tokens:
    """The tokens of which `told` was written.

    Raises:
        InvalidInput: it is damaged.
    """
    kind = told.get("kind") if isinstance(told, dict) else None
    if kind == "bytes":
        return Bytes()
    if kind == "tokenizer" and isinstance(told.get("text"), str):
        return FileTokens(told["text"], source)
    raise InvalidInput(f"{source} does not tell what its tokens are")


def joined(texts: Iterable[bytes], tokens: Tokens) -> np.ndarray:
    """All texts as one stream: an end before each, and behind the last."""
    parts: list[np.ndarray] = []
    for text in texts:
        encoded = tokens.encode(text)
        parts += [np.array([tokens.end], dtype=encoded.dtype), encoded]
    if not parts:
        return np.zeros(0, dtype=np.uint16)
    return np.concatenate([*parts, parts[0]])


def digest(tokens: Sequence[int] | np.ndarray) -> str:
    """Of a stream of tokens."""
    return hashlib.blake2b(np.asarray(tokens).astype(np.uint32).tobytes(), digest_size=8).hexdigest()
