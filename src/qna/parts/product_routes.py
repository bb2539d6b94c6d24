"""Which of torch's libraries computes a product of matrices on a CPU: looked up, never timed, at run time.

`product_routes.csv` has a row for each shape that was measured on a processor; `qna bench products` writes
those of the processor at hand. A choice is a function of the processor, the shape and whether gradients are
wanted, so that two runs on one machine choose alike. A processor without rows takes `F.linear` throughout.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from functools import cache, lru_cache
from pathlib import Path

from qna._core.files import write_whole
from qna._core.processor import this_processor

PATH = Path(__file__).with_suffix(".csv")
INFERENCE, TRAINING = "inference", "training"
# `F.linear` (MKL, on x86), a convolution of one tap and an inner product (both oneDNN's)
LINEAR, CONVOLUTION, INNER_PRODUCT = "linear", "convolution", "inner_product"
# a route is taken where it was measured to save more than a twentieth
GAIN = 1.05
# MKL keeps its widest vectors from processors of AMD, which was seen before shapes were measured one by one
_UNMEASURED = {"AuthenticAMD AVX512": CONVOLUTION}


@dataclass(frozen=True)
class MeasuredProduct:
    """What one shape took on one processor.

    Attributes:
        processor: vendor and widest vectors.
        mode: "inference", or "training": forward and backward.
        positions: rows of the map.
        in_features: C.
        out_features: C'.
        route: the fastest.
        gain: time of `F.linear` over the route's.
        commit: of the checkout that measured.
        date: of the measurement, UTC.
    """

    processor: str
    mode: str
    positions: int
    in_features: int
    out_features: int
    route: str
    gain: float
    commit: str
    date: str

    def distance(self, positions: int, in_features: int, out_features: int) -> float:
        """How far another shape is: the sum of the logarithms of the three ratios, without their signs."""
        return sum(
            abs(math.log(ours / other))
            for ours, other in (
                (self.positions, positions),
                (self.in_features, in_features),
                (self.out_features, out_features),
            )
        )


@lru_cache(maxsize=4096)
def route(positions: int, in_features: int, out_features: int, mode: str) -> str:
    """The route of the nearest shape that was measured on this processor.

    Args:
        positions: rows of the map, at least 1.
        in_features: C, at least 1.
        out_features: C', at least 1.
        mode: `INFERENCE` or `TRAINING`.
    """
    shape = (positions, in_features, out_features)
    rows = [row for row in _rows() if row.mode == mode]
    if not rows:
        return _UNMEASURED.get(this_processor().name, LINEAR)
    nearest = min(rows, key=lambda row: row.distance(*shape))
    return nearest.route if nearest.gain > GAIN else LINEAR


def save(measured: Iterable[MeasuredProduct], path: Path = PATH) -> None:
    """Put rows into a table, in place of all that it has of their processors; whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    rows = list(measured)
    replaced = {row.processor for row in rows}
    rows += [row for row in read(path) if row.processor not in replaced] if path.exists() else []
    rows.sort(key=lambda row: astuple(row)[:5])

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(field.name for field in fields(MeasuredProduct))
            writer.writerows(astuple(row) for row in rows)

    write_whole(path, write)


def read(path: Path = PATH) -> list[MeasuredProduct]:
    """All rows of a table.

    Raises:
        OSError: there is none.
    """
    with path.open(newline="") as file:
        return [
            MeasuredProduct(
                row["processor"],
                row["mode"],
                int(row["positions"]),
                int(row["in_features"]),
                int(row["out_features"]),
                row["route"],
                float(row["gain"]),
                row["commit"],
                row["date"],
            )
            for row in csv.DictReader(file)
        ]


@cache
def _rows() -> tuple[MeasuredProduct, ...]:
    """Those of this processor."""
    return tuple(row for row in read() if row.processor == this_processor().name)
