"""A mean over a map that is never whole: its sum is gathered from one tile after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qna.parts.protocols import TellsReach
from qna.tiling.calls import Layout, index_of
from qna.tiling.follow import MEANS, name_of
from qna.tiling.plan import ImageTile


class RunningMeans:
    """Takes the place of a network's means over its map while it is run on one tile after the other.

    What a network makes of such a mean comes out of every tile, of the positions so far; the last tile's is
    the answer. Sums are kept in float64.

    Args:
        layouts: call number of each mean, as `follow` counts them -> layout of the map.
    """

    def __init__(self, layouts: Mapping[int, Layout]):
        self._layouts = layouts
        self._sums: dict[int, Tensor] = {}
        self._seen = dict.fromkeys(layouts, 0)

    @contextmanager
    def over(self, network: nn.Module, tile: ImageTile) -> Iterator[None]:
        """What `network` is run in on `tile`."""
        if not self._layouts:
            yield
            return
        mode = _Counting(lambda number, x, mean: self._gather(number, x, mean, tile))
        hooks = []
        for module in network.modules():
            # what happens in these was not seen by `follow`
            if isinstance(module, TellsReach):
                hooks.append(module.register_forward_pre_hook(mode.pause))
                hooks.append(module.register_forward_hook(mode.go_on))
        try:
            with mode:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _gather(self, number: int, x: Tensor, mean: Tensor, tile: ImageTile) -> Tensor:
        """Add the tile's own part of its map `x`; the mean of all so far, in the form of `mean`."""
        layout = self._layouts.get(number)
        if layout is None:
            return mean
        part = x[index_of(x.ndim, layout.axes, tile.of_tile(layout.places))]
        self._seen[number] += math.prod(part.shape[axis] for axis in layout.axes)
        added = part.sum(layout.axes, dtype=torch.float64)
        self._sums[number] = self._sums[number] + added if number in self._sums else added
        return (self._sums[number] / math.prod(layout.places.sizes)).reshape(mean.shape).to(mean.dtype)

    def check_whole(self) -> None:
        """Every position of every map must have been added, once."""
        for number, layout in self._layouts.items():
            if self._seen[number] != math.prod(layout.places.sizes):
                raise RuntimeError(
                    f"a mean was taken over {self._seen[number]} positions of a map of {layout.places.sizes}"
                )


class _Counting(TorchFunctionMode):
    """Gives each mean over a map to `replace`, with its number among the calls that `follow` counted."""

    def __init__(self, replace: Any):
        super().__init__()
        self._replace, self._calls, self._paused = replace, 0, 0

    def pause(self, *_: object) -> None:
        self._paused += 1

    def go_on(self, *_: object) -> None:
        self._paused -= 1

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._paused or name_of(func) not in MEANS:
            return result
        self._calls += 1
        return self._replace(self._calls, args[0] if args else kwargs["input"], result)
