"""Tile sizes by architecture, dtype, window and head size: looked up, never searched for, at run time.

`tiles.json` holds the rows and says where each comes from; `tune.tune` writes measured ones.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qna.ops._shared.triton.arguments import power

PATH = Path(__file__).with_name("tiles.json")
KERNELS = ("attend", "attend_far", "sum_inside", "gather")
# of these, the ones whose threads can own several windows
SHARING = ("attend",)
# the kernels by matrix products; `gather_by_products` decides on the chunks of `sum_inside_by_products`
PRODUCTS = ("attend_by_products", "gather_by_products", "sum_inside_by_products", "correlate")


@dataclass(frozen=True)
class Tile:
    """How one kernel cuts its work.

    Attributes:
        elements: channels of value-like maps per thread, about; a power of two.
        heads: of those, heads, at most; what is left are positions, which share the loads of bias and weight.
        columns: positions per program along the last axis, at most; the rest are rows.
        warps: warps per program.
        registers: cap on the registers of a thread (CUDA), or None.
        windows: neighbouring windows of a row per thread, where a kernel can share what they read; else 1.
    """

    elements: int
    heads: int
    columns: int
    warps: int
    registers: int | None = None
    windows: int = 1

    def block(
        self, size: tuple[int, int], channels: tuple[int, int, int], heads_fastest: bool
    ) -> tuple[int, int, int, int, int, int]:
        """(rows, columns, L, groups, heads, d) of a program's tile on a map of `size`, all powers of two.

        `channels` is (L, h, d). Where d is fastest, a thread takes one head: its loads run along d.
        """
        l, h, d = map(power, channels)
        width = max(d, 4 * l)  # scores have fewer channels than values, but more temporaries
        elements = self.elements
        if heads_fastest and width <= 16:
            elements = max(elements, 2 * width)  # two heads, so that loads are of four bytes at least
        room = max(1, elements * self.warps * 32 // width)  # positions times heads
        heads = min(self.heads, h, max(1, elements // width)) if heads_fastest else 1
        # with a pair of query and head for every thread, the compiler would lay all tiles out like a row of
        # bias, one number to a thread, and exchange scores and values through shared memory
        pairs = self.warps * 32 // 2
        groups = min(h // heads, room // heads, max(1, pairs // (l * heads)))
        spots = room // (heads * groups)
        columns = min(self.columns, power(size[1]), spots)
        rows = min(spots // columns, power(size[0]))
        # what a map of few rows leaves over goes to the columns
        columns = min(spots // rows, max(columns, power(size[1])))
        return rows, columns, l, groups, heads, d


@dataclass(frozen=True)
class Patch:
    """How a kernel by matrix products cuts its work.

    Attributes:
        patches: neighbouring patches of 16 windows at a time, where heads have 8 channels: columns of an
            operand, by 8.
        heads: heads of a program, at most; a power of two.
        chunk: positions under a patch that are taken at a time; a power of two from 16 on.
        warps: warps per program.
        registers: cap on the registers of a thread (CUDA), or None.
        programs: programs per multiprocessor, which share all blocks of patches.
        plain: the chunk for values whose heads are not fastest, where they need another for their registers.
    """

    patches: int
    heads: int
    chunk: int
    warps: int
    registers: int | None = None
    programs: int = 8
    plain: int | None = None


def save(rows: list[dict[str, Any]], path: Path = PATH) -> None:
    """Put rows into the file at `path`, each in the place of the row that is for the same calls, if any."""
    merged = {_key(row): row for row in [*json.loads(path.read_text())["rows"], *rows]}
    text = ",\n".join("  " + json.dumps(row) for row in merged.values())
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(f'{{\n "rows": [\n{text}\n ]\n}}\n')
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    forget()


def forget() -> None:
    """Read the file again."""
    for lookup in (_rows, tile, patch):
        lookup.cache_clear()


@cache
def tile(kernel: str, architecture: str, bits: int, taps: int, head_dim: int) -> Tile:
    """The row for one of `KERNELS` that fits best.

    A row fits if its architecture ("sm_90", "gfx942") and dtype bits, where it names any, are these. Among
    those wins the row of the smallest window, then head size, that covers the case. Safe rows name nothing.
    """
    return Tile(**_best(kernel, architecture, bits, taps, head_dim))


@cache
def patch(kernel: str, architecture: str, bits: int, taps: int, head_dim: int) -> Patch:
    """The row for one of `PRODUCTS` that fits best, chosen as by `tile`."""
    return Patch(**_best(kernel, architecture, bits, taps, head_dim))


def _best(kernel: str, architecture: str, bits: int, taps: int, head_dim: int) -> dict[str, Any]:
    fitting = [
        row
        for row in _rows()
        if row["kernel"] == kernel
        and row["architecture"] in (None, architecture)
        and row["bits"] in (None, bits)
        and (row["taps"] is None or taps <= row["taps"])
        and (row["head_dim"] is None or head_dim <= row["head_dim"])
    ]
    return min(fitting, key=_distance)["tile"]


def _key(row: dict[str, Any]) -> tuple:
    return tuple(row[name] for name in ("kernel", "architecture", "bits", "taps", "head_dim"))


def _distance(row: dict[str, Any]) -> tuple:
    unset = float("inf")
    return (
        row["architecture"] is None,
        row["bits"] is None,
        unset if row["taps"] is None else row["taps"],
        unset if row["head_dim"] is None else row["head_dim"],
    )


@cache
def _rows() -> list[dict[str, Any]]:
    return json.loads(PATH.read_text())["rows"]
