"""Tile sizes by architecture, dtype, window and head size: looked up, never searched for, at run time.

`triton_table.json` holds the rows and says where each comes from; `triton_tune.tune` writes measured ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PATH = Path(__file__).with_name("triton_table.json")
KERNELS = ("attend", "inner", "gather")


@dataclass(frozen=True)
class Tile:
    """How one kernel cuts its work.

    Attributes:
        elements: channels of value-like maps that one thread holds, about; a power of two.
        heads: heads per program, at most.
        columns: positions per program along the last axis, at most; the rest are rows.
        warps: warps per program.
    """

    elements: int
    heads: int
    columns: int
    warps: int

    def block(
        self, size: tuple[int, int], queries: int, heads: int, head_dim: int
    ) -> tuple[int, int, int, int, int]:
        """(rows, columns, L, h, d) of a program's tile on a map of `size`, all powers of two."""
        d, l = _power(head_dim), _power(queries)
        room = max(self.elements * self.warps * 32 // max(d, l), 1)  # positions times heads
        h = min(self.heads, _power(heads), room)
        spots = room // h
        columns = min(self.columns, _power(size[1]), spots)
        rows = min(spots // columns, _power(size[0]))
        # a map with few rows: what they leave goes to the columns
        columns = min(spots // rows, max(columns, min(_power(size[1]), spots // rows)))
        return rows, columns, l, h, d


def tile(kernel: str, architecture: str, bits: int, taps: int, head_dim: int) -> Tile:
    """The row for `kernel` ("attend", "inner", "gather") that fits best.

    A row fits if its architecture, if any, is this one ("sm_90", "gfx942"), and its dtype bits, if any; among
    those the row with the smallest window and then head size that still cover the case. The safe row has none.
    """
    fitting = [
        row
        for row in _rows()
        if row["kernel"] == kernel
        and row["architecture"] in (None, architecture)
        and row["bits"] in (None, bits)
        and (row["taps"] is None or taps <= row["taps"])
        and (row["head_dim"] is None or head_dim <= row["head_dim"])
    ]
    return Tile(**min(fitting, key=_distance)["tile"])


def _distance(row: dict) -> tuple:
    unset = float("inf")
    return (
        row["architecture"] is None,
        row["bits"] is None,
        unset if row["taps"] is None else row["taps"],
        unset if row["head_dim"] is None else row["head_dim"],
    )


@cache
def _rows() -> list[dict]:
    return json.loads(PATH.read_text())["rows"]


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()
