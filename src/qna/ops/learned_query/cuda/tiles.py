"""How large a tile a block takes, and its shared memory: the arithmetic of the kernels' headers."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from qna.ops._shared.cuda.driver import Limits
from qna.ops._shared.triton.arguments import CALLS, ceil, power

# channels of a thread, and bytes of neighbouring heads that make a sector of the second-level cache
CHANNELS, SECTOR = 8, 32
# most bytes that the values of a position take in a tile
CELL = 256
# a run of windows (positions) is so long, or twice as long; a tile has at most so many rows and columns
RUN, ROWS, COLUMNS = 4, 8, 16

# threads of a warp; registers of a multiprocessor, and blocks that every one of them can hold
WARP, REGISTERS, MOST_BLOCKS = 32, 65536, 16
# blocks that a multiprocessor is to hold, so that one computes while another waits for its tile
BLOCKS = 2
# most threads of a block: of those of `gather` each takes up to twice the registers
THREADS = {"attend": 256, "sum_inside": 256, "gather": 128}


class Problem(NamedTuple):
    """What of a call its kernels are compiled for.

    Attributes:
        size: bytes of a number in the maps.
        kernel: taps along each axis of a window.
        queries: L.
        channels: d.
        heads: of a group that a block takes.
        vector: neighbouring heads that are read at once.
    """

    size: int
    kernel: int
    queries: int
    channels: int
    heads: int
    vector: int

    @property
    def parts(self) -> int:
        """Threads that share the channels of a head."""
        return parts(self.channels) or 1


class CudaTile(NamedTuple):
    """Windows, or positions, that a block has in work, and how many neighbours of a row a thread owns."""

    rows: int
    columns: int
    run: int

    def threads(self, problem: Problem) -> int:
        """Of a block."""
        return problem.heads * problem.parts * (self.columns // self.run) * self.rows


def parts(channels: int) -> int | None:
    """How many threads share the channels of a head, at most 8 each: a power of two up to 8, or none."""
    return next((n for n in (1, 2, 4, 8) if channels % n == 0 and channels // n <= CHANNELS), None)


def group(heads: int, channels: int, size: int, kernel: int) -> int:
    """Heads that a block takes: a power of two that, with the parts of their channels, fits half a warp."""
    # the tiles of wide windows are large as they are
    together = SECTOR // size if kernel < 7 else CHANNELS
    room = 1 << max(1, CELL // (channels * size)).bit_length() - 1
    return min(power(heads), together, room, 16 // (parts(channels) or 1))


def shared(kernel: str, problem: Problem, tile: CudaTile) -> int:
    """Bytes of shared memory that a block of a kernel uses."""
    if kernel == "add_up":
        return 4 * 16 * 2 * 16
    size, k, queries, channels, heads, _ = problem
    warps, lanes = tile.threads(problem) // 32, heads * queries
    halo, cells = (tile.rows + k - 1) * (tile.columns + k - 1), tile.rows * tile.columns
    pitch = (ceil(channels * heads * size, 16) + 1) * 16
    maps, apart = halo * pitch, lanes + ceil(max(1, lanes // tile.run), queries) * queries
    tables = 2 * k * k * lanes
    if kernel != "gather":
        return maps + 4 * (halo * apart + tables) + 16
    line = 2 * k * lanes
    numbers = halo * (2 * lanes + 4) + cells * apart + tables + 2 * warps * line + k * line
    return maps + 4 * numbers


def resident(kernel: str, problem: Problem, tile: CudaTile) -> int:
    """Blocks that a multiprocessor is to hold: as many as leave each thread the registers that it needs."""
    _, k, queries, channels, _, _ = problem
    part = channels // problem.parts
    # accumulators and normalisers of a run, the factors of a line of taps, and what addresses and a cell take
    needs = {
        "attend": tile.run * (part + queries) + k * queries + 37,
        "sum_inside": 2 * tile.run * (part + queries) + k * queries + 37,
    }
    registers = min(255, needs.get(kernel, 255))
    return max(1, min(MOST_BLOCKS, REGISTERS // (-(-registers // 8) * 8 * tile.threads(problem))))


@lru_cache(CALLS)
def choose(kernel: str, problem: Problem, columns: int, limits: Limits) -> CudaTile:
    """The largest tile of which a multiprocessor holds two blocks at least; else the smallest there is.

    Args:
        kernel: its name.
        problem: what it is compiled for.
        columns: of the map: small ones take narrow tiles.
        limits: shared memory of the card.
    """
    most = min(limits.block, limits.multiprocessor // BLOCKS - 1024)
    width = COLUMNS // 2 if columns <= COLUMNS // 2 and problem.heads * problem.parts >= 8 else COLUMNS
    tiles = [CudaTile(rows, width, RUN) for rows in (ROWS, ROWS // 2, ROWS // 4, 1)]
    if kernel == "attend":
        # long runs read less for each window, where they leave four warps at work
        long = [CudaTile(rows, width, 2 * RUN) for rows in (ROWS, ROWS // 2)]
        tiles = [*(t for t in long if t.threads(problem) >= 4 * WARP), *tiles]
    if kernel == "gather" and problem.queries > 2:
        # else sums and factors of a line of taps would not fit the registers
        tiles = [t._replace(run=RUN // 2) for t in tiles]
    # all threads of a warp have work, and a block does not ask for more registers than there are
    fit = [t for t in tiles if t.threads(problem) % WARP == 0 and t.threads(problem) <= THREADS[kernel]]
    small = (t for t in fit if shared(kernel, problem, t) <= most and resident(kernel, problem, t) >= BLOCKS)
    return next(small, fit[-1])
