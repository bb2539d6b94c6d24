"""Rows survive the file, and a file survives whatever happens to the writer."""

import math

import pytest

from qna._core.errors import InvalidInput
from qna.bench.measure import rows
from qna.bench.measure.rows import COLUMNS, Row


def row(**changes):
    given = {
        "case": "op-1x8x8x64-k3-float32", "provider": "qna", "mode": "forward", "metric": "time",
        "unit": "ms", "p50": 1.25, "p20": 1.0, "p80": 1.5, "device": 'CPU, "wide"\nvectors', "threads": 1,
        "torch": "2.13.0", "commit": "abc+", "date": "2026-11-20T05:00:00+00:00",
        "extra": {"window": 3, "note": "a,b"},
    }  # fmt: skip
    return Row(**{**given, **changes})


def test_schema_is_the_documented_one():
    assert COLUMNS == (
        "case", "provider", "mode", "metric", "unit", "p50", "p20", "p80", "device", "threads", "torch",
        "commit", "date", "extra",
    )  # fmt: skip


def test_round_trip_and_append(tmp_path):
    path = tmp_path / "new" / "rows.csv"
    first, second = row(), row(provider="copy", p50=1e-5, p20=1e-6, p80=123456.0)
    rows.append(path, [first])
    rows.append(path, [second])
    assert rows.read(path) == [first, second]
    assert rows.read(path, path) == [first, second, first, second]


def test_six_digits_are_kept(tmp_path):
    rows.append(tmp_path / "a.csv", [row(p50=math.pi)])
    assert rows.read(tmp_path / "a.csv")[0].p50 == 3.14159


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "has columns"),
        (",".join(COLUMNS) + "\nop,qna\n", "line 2: needs 14 cells"),
        (",".join(COLUMNS) + "\nc,p,m,t,ms,fast,1,1,d,1,t,c,d,{}\n", "line 2: could not convert"),
        (",".join(COLUMNS) + "\nc,p,m,t,ms,1,1,1,d,1,t,c,d,[]\n", "line 2: extra must be dict"),
    ],
)
def test_other_files_are_refused_and_left_alone(tmp_path, text, says):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=says):
        rows.append(path, [row()])
    assert path.read_text() == text


def test_missing_file_names_the_command_that_writes_one(tmp_path):
    with pytest.raises(InvalidInput, match="qna bench op --out"):
        rows.read(tmp_path / "none.csv")


def test_a_row_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.csv"
    rows.append(path, [row()])
    before = path.read_bytes()
    with pytest.raises(TypeError):
        rows.append(path, [row(extra={"tensor": object()})])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
