"""Text from outside in a line, on a page and as code."""

import pytest

from qna._core.outside import as_code, as_line, as_markdown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("Katze, 猫, ネコ 🐈", "Katze, 猫, ネコ 🐈"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("a\x9b31mb\u202ec\u2028", r"a\x9b31mb\u202ec\u2028"),
        ("a\udcff", r"a\udcff"),  # a byte of a file's name that is no text
    ],
)
def test_a_line_is_printable(text, shown):
    assert as_line(text) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("runs/a_b-c.d (2): 5 %!", "runs/a_b-c.d (2): 5 %!"),
        ("_a_b_", r"\_a_b\_"),
        ("*a* `b` ~~c~~ $d$", r"\*a\* \`b\` \~\~c\~\~ \$d\$"),
        ("[a](b) ![c](d) <e> &lt; a & b", r"\[a\](b) !\[c\](d) \<e\> \&lt; a & b"),
        ("a|b # @c", r"a\|b \# \@c"),
        ("http://a www.b :cat: a:b", r"http\://a www\.b \:cat: a:b"),
        ("\\", r"\\"),
        ("a\n# b", r"a\\n\# b"),
    ],
)
def test_a_page_reads_no_markup(text, shown):
    assert as_markdown(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a", "`a`"), ("a`b``c", "```a`b``c```"), ("`a", "`` `a ``"), ("a`", "`` a` ``"), ("", "`  `")],
)
def test_code_holds_backticks(text, shown):
    assert as_code(text) == shown
