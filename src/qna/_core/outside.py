"""Text from outside, such as the name of a class or file, shown as what it is: one line, never markup."""

from __future__ import annotations

import re

# what moves a terminal's cursor, changes its colours or turns the direction of writing, line ends, and what a
# file's name holds that is not text
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# an underscore between letters is one in every Markdown; a colon begins an address or an emoji
_MARKDOWN = re.compile(
    r"[\\`*\[\]<>|~$#@]|&(?=#?\w+;)|:(?=//|[\w+-]+:)|(?<=www)\.|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
)


def as_line(text: str) -> str:
    r"""`text` for a terminal or a picture, in one line: characters that are none are written as ``\x1b``.

    What prints it must not read markup: rich takes it as a ``rich.text.Text``, matplotlib without its math.
    """
    return _UNSHOWN.sub(lambda found: ascii(found[0])[1:-1], text)


def as_text(text: str) -> str:
    r"""`text` for a terminal as it is written, in lines; other characters that are none as ``\x1b``."""
    return "".join(part if part in "\n\t" else as_line(part) for part in re.split(r"([\n\t])", text))


def as_markdown(text: str) -> str:
    """`text` for a page, a heading or a cell of a table in Markdown, which reads nothing in it as markup."""
    return _MARKDOWN.sub(r"\\\g<0>", as_line(text))


def as_code(text: str) -> str:
    """`text` as code in a line of Markdown, whatever backticks it holds; not for a cell with a ``|``."""
    shown = as_line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if shown[:1] in ("", "`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"
