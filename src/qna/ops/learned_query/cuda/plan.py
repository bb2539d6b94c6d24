"""The launches of a call, and what of its programs is compiled."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from qna.ops._shared.cuda.driver import limits
from qna.ops._shared.cuda.program import CudaLaunch, Program
from qna.ops._shared.triton.arguments import CALLS, ceil
from qna.ops._shared.window import Window
from qna.ops.learned_query.cuda.arguments import KernelCall, vector
from qna.ops.learned_query.cuda.tiles import CudaTile, Problem, choose, group, resident, shared

KERNELS = Path(__file__).parent / "kernels"
STORED = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
# blocks that share the tiles of a group of heads in `gather`, and numbers of partial sums, at most
PROGRAMS, PARTIAL_SUMS = 1024, 2**22
# numbers of which a block of `add_up` makes the sums
SUMS = 16


class Geometry:
    """Of one call: what its kernels are compiled for, and the tiles that they take.

    Args:
        value: (B, y, x, h, d), any map of the call.
        bias: (k, k, L, h).
        window: the windows over it.
        maps: all maps whose rows are read or written by vectors, with their heads next to each other.
    """

    def __init__(self, value: Tensor, bias: Tensor, window: Window, maps: tuple[Tensor, ...]):
        self.batch, height, width, self.heads, channels = value.shape
        size, self.queries = value.element_size(), bias.shape[-2]
        heads = group(self.heads, channels, size, bias.shape[0])
        self.problem = Problem(
            size, bias.shape[0], self.queries, channels, heads, vector(self.heads, heads, size, maps)
        )
        self.stored, self.device = STORED[value.dtype], value.device
        self._spaces = {"attend": window.out, "sum_inside": window.out, "gather": (height, width)}

    def launch(self, kernel: str, call: KernelCall) -> CudaLaunch:
        """The launch of a kernel."""
        tile, space = self._tile(kernel), self._spaces.get(kernel, (1, 1))
        groups, tiles = ceil(self.heads, self.problem.heads), self._tiles(tile, space)
        blocks = {"gather": call.programs * groups, "add_up": ceil(self._taps(), SUMS)}.get(
            kernel, tiles * groups
        )
        threads = 256 if kernel == "add_up" else tile.threads(self.problem)
        need = shared(kernel, self.problem, tile)
        return CudaLaunch(self.program(kernel), blocks, threads, need, call, self.device)

    def program(self, kernel: str) -> Program:
        """What is compiled of a kernel for this call."""
        return _program(kernel, self.stored, self.problem, self._tile(kernel))

    def programs(self) -> int:
        """Blocks that share the tiles of a group of heads, of which each keeps sums of its own."""
        tiles = self._tiles(self._tile("gather"), self._spaces["gather"])
        return max(1, min(tiles, PROGRAMS, PARTIAL_SUMS // (2 * self._taps())))

    def _taps(self) -> int:
        """Numbers of the bias."""
        return self.problem.kernel**2 * self.queries * self.heads

    def _tile(self, kernel: str) -> CudaTile:
        kernel = "gather" if kernel == "add_up" else kernel
        return choose(kernel, self.problem, self._spaces[kernel][1], limits(self.device))

    def _tiles(self, tile: CudaTile, space: tuple[int, ...]) -> int:
        return self.batch * ceil(space[0], tile.rows) * ceil(space[1], tile.columns)


@lru_cache(CALLS)
def _program(kernel: str, stored: int, problem: Problem, tile: CudaTile) -> Program:
    macros = {
        "STORAGE": stored,
        "KERNEL": problem.kernel,
        "QUERIES": problem.queries,
        "CHANNELS": problem.channels,
        "PARTS": problem.parts,
        "HEADS": problem.heads,
        "VECTOR": problem.vector,
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "RUN": tile.run,
        "RESIDENT": resident(kernel, problem, tile),
        "SHARED_BYTES": shared(kernel, problem, tile),
    }
    return Program(KERNELS, kernel, tuple((f"QNA_{name}", number) for name, number in macros.items()))
