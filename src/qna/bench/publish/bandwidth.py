"""How close an op comes to the speed at which a copy of its map moves bytes, measured in the same run."""

from __future__ import annotations

import math

from qna.analysis.footprint import op_bytes_moved
from qna.bench.measure.contender import BACKWARD
from qna.bench.measure.rows import Row


def bytes_over_copy(row: Row) -> float | None:
    """Bytes that the op of a row must move over those of a copy of the map in that mode; None if not known.

    Known of learned-query attention, the depthwise convolution and the copy itself; weights are small.
    """
    e, backward = row.extra, row.mode == BACKWARD
    if not row.case.startswith("op-"):
        return None
    copied = 2  # reads and writes the map once, in both modes: its gradient is the output's, as it stands
    if row.provider == "copy":
        return 1.0
    if row.provider == "depthwise":
        # its backward reads the map and the output's gradient, and writes the map's
        return (2 + 3 if backward else 2) / copied
    if not row.provider.startswith("qna"):
        return None
    positions = math.prod(e[name] for name in ("batch", "height", "width"))
    needed = op_bytes_moved(positions, e["dim"], e["queries"] * e["heads"], backward=backward, itemsize=1)
    return needed / (copied * positions * e["dim"])


def floor(row: Row, copy: Row) -> float | None:
    """The time in which the copy's bandwidth moves what the op of a row must move, in the copy's unit."""
    ratio = bytes_over_copy(row)
    return None if ratio is None else ratio * copy.p50
