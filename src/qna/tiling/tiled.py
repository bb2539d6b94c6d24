"""A network that sees an image of any size one tile at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from qna._core.checks import per_axis
from qna._core.errors import InvalidInput
from qna.tiling.calls import Layout, index_of, tensors_in
from qna.tiling.follow import follow
from qna.tiling.means import RunningMeans
from qna.tiling.plan import ImageTile, TilePlan, plan_tiles


class Sliced(Protocol):
    """What pixels are read from and results are written to: a tensor, an array in memory or in a file."""

    @property
    def shape(self) -> Sequence[int]:
        """Sizes of all axes."""
        ...

    @property
    def dtype(self) -> Any:
        """Of torch, or what numpy makes one of."""
        ...

    def __getitem__(self, index: Any) -> Any: ...
    def __setitem__(self, index: Any, value: Any) -> None: ...


class Tiled(nn.Module):
    """A network on images that it could not see whole; `tiled` makes one.

    What comes out is what the network gives for the whole image, to rounding. Beside image and result, memory
    holds what the network needs for one tile, however large the image.

    Attributes:
        model: the network.
        tile: pixels of a tile's core per axis; one number for all.
        halo: "exact", or pixels.
    """

    def __init__(
        self,
        model: nn.Module,
        tile: int | Sequence[int],
        halo: str | int,
        notify: Callable[[int, int], object] | None,
    ):
        super().__init__()
        self.model = model.eval()
        axes = len(tile) if isinstance(tile, Sequence) else 1
        self.tile = per_axis("tile", tile, axes, minimum=1)
        if halo != "exact" and (not isinstance(halo, int) or isinstance(halo, bool) or halo < 0):
            raise InvalidInput(f"halo must be 'exact' or pixels, an integer of at least 0, got {halo!r}")
        self.halo = halo
        self.notify = notify

    def plan(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> TilePlan:
        """How images of `shape` = (B, C, *space) are cut; computes nothing.

        Raises:
            InvalidInput: some part of the network is not local, or depends on the size of what it is given.
        """
        if len(shape) < 3 or min(shape[2:]) < 1:
            raise InvalidInput(f"images must be (B, C, *space) with at least one pixel, got {tuple(shape)}")
        axes = len(shape) - 2
        tile = self.tile * axes if len(self.tile) == 1 else self.tile
        if len(tile) != axes:
            raise InvalidInput(
                f"tile has {len(tile)} sizes, and images {tuple(shape)} have {axes} space axes"
            )
        followed = follow(self.model, shape, dtype)
        plan = plan_tiles(followed, tile, None if self.halo == "exact" else int(self.halo))
        for size in plan.sizes():
            differs = follow(self.model, (*shape[:2], *size), dtype).differs_from(followed)
            if differs is not None:
                raise InvalidInput(
                    f"{type(self.model).__name__} does not treat a tile of {size} pixels as an image of "
                    f"{tuple(shape[2:])} ({differs}); take a larger tile than {self.tile}"
                )
        return plan

    @torch.no_grad()
    def forward(self, image: Sliced, out: Any = None, *, only: Callable[[int], bool] | None = None) -> Any:
        """What the network gives for the whole image.

        Args:
            image: (B, C, *space): a tensor, a numpy array, also one mapped from a file, or anything that has
                `shape` and `dtype` and gives the pixels of a slice. It stays where it is; one tile after
                the other goes to the network's device.
            out: where the results go: what the network gives for the image, with such arrays in place of its
                tensors; None for tensors where the image is.
            only: which tiles to do, by their number from 0; None for all. Processes that write to one array
                share an image out so, and one that goes on after another leaves out what was done.

        Returns:
            `out`; with `only`, the rest of it is as it was.

        Raises:
            InvalidInput: as for `plan`, or `out` has another form or shape; or `only` is given without `out`,
                or for a network whose results need all tiles.
        """
        if self.model.training:
            raise InvalidInput(f"{type(self.model).__name__} is in training mode; call eval() before")
        plan = self.plan(tuple(image.shape), _torch_dtype(image.dtype))
        followed = plan.followed
        results = _Results(followed.outputs, out)
        means = RunningMeans(followed.means)
        chosen, done = {n for n in range(len(plan)) if only is None or only(n)}, 0
        if only is not None:
            self._check_part(out, [layout for _, layout in followed.outputs])
        device = next((p.device for p in self.model.parameters()), None)
        home = image.device if isinstance(image, Tensor) else torch.device("cpu")
        for number, tile in enumerate(plan):
            if number not in chosen:
                continue
            pixels = _tensor(image[(slice(None), slice(None), *tile.read)]).to(device)
            with means.over(self.model, tile):
                made = self.model(pixels)
            results.put(made, tile, home)
            done += 1
            if self.notify is not None:
                self.notify(done, len(chosen))
        if only is None:
            means.check_whole()
        return results.out

    def _check_part(self, out: Any, layouts: Sequence[Layout]) -> None:
        """Whether some of the tiles can be done by themselves."""
        if out is None:
            raise InvalidInput("only some of the tiles need out=, an array that holds those of others too")
        if not all(layout.axes for layout in layouts):
            raise InvalidInput(
                f"{type(self.model).__name__} gives something made of a mean over the whole map, which needs "
                "all tiles: leave out only=, or give `tiled` the part of the network before it"
            )

    def extra_repr(self) -> str:
        """Tile and halo."""
        return f"tile={self.tile}, halo={self.halo!r}"


def tiled(
    model: nn.Module,
    *,
    tile: int | Sequence[int],
    halo: str | int = "exact",
    notify: Callable[[int, int], object] | None = None,
) -> Tiled:
    """Let `model` see images of any size, one tile at a time, as if it saw them whole.

    The halo that each tile needs follows from the layers: positions are traced back from the results through
    every function that the network calls, with rules for torch's own, and by what layers tell themselves
    (`qna.parts.protocols.TellsReach`). So it takes convolutional networks of other libraries as well. A mean
    over the whole map, as classifiers take it, is gathered over the tiles. All else that is not local is
    refused by name: attention over the map, statistics of the map, tables of positions.

    Args:
        model: images (B, C, *space) -> maps, vectors made of means over maps, or lists of them; put in
            evaluation mode.
        tile: pixels per axis that each run adds, one number for all axes; rounded up to the period of the
            network, the product of its strides and windows. What a run sees is larger by the halo.
        halo: "exact", or the pixels that a run sees around those at least; fewer than it needs are quicker
            and leave seams, more are not read.
        notify: called with the tiles that are done and those there are, after each.

    Returns:
        a module; ``tiled(model, tile=1024)(image)`` is ``model(image)``, and ``.plan(image.shape)`` tells
        period, halo and what it costs.

    Raises:
        InvalidInput: `tile` or `halo` is no such number. What depends on the network is told with the
            first image.
    """
    return Tiled(model, tile, halo, notify)


class _Results:
    """Where the parts that tiles give are put together."""

    def __init__(self, outputs: Sequence[tuple[tuple[int, ...], Layout]], out: Any):
        self.out = out
        self._outputs = outputs
        self._arrays = None if out is None else _arrays_in(out)
        if self._arrays is not None:
            given, made = [tuple(a.shape) for a in self._arrays], [shape for shape, _ in outputs]
            if given != made:
                raise InvalidInput(f"out must have the shapes that the network gives, {made}, got {given}")

    def put(self, made: Any, tile: ImageTile, home: torch.device) -> None:
        """Put what the network made of a tile in its place."""
        if self._arrays is None:
            self.out, self._arrays = self._new(made, home)
        for tensor, array, (_, layout) in zip(tensors_in(made), self._arrays, self._outputs, strict=True):
            # what is made of means is put down as a whole
            spans = (tile.of_map(layout.places), tile.of_tile(layout.places)) if layout.axes else ((), ())
            target, source = (index_of(tensor.ndim, layout.axes, span) for span in spans)
            part = tensor[source]
            if isinstance(array, Tensor):
                array[target] = part.to(array.device)
            else:
                array[target] = part.cpu().numpy()

    def _new(self, made: Any, home: torch.device) -> tuple[Any, list[Any]]:
        """Tensors for the whole image, in the form of what came out of a tile, and the list of them."""
        arrays = [
            torch.empty(shape, dtype=tensor.dtype, device=home)
            for tensor, (shape, _) in zip(tensors_in(made), self._outputs, strict=True)
        ]
        return _like(made, iter(arrays)), arrays


def _like(form: Any, tensors: Any) -> Any:
    if isinstance(form, Tensor):
        return next(tensors)
    if isinstance(form, Mapping):
        return {name: _like(part, tensors) for name, part in form.items()}
    if isinstance(form, list | tuple):
        return type(form)(_like(part, tensors) for part in form)
    return form


def _arrays_in(out: Any) -> list[Any]:
    if isinstance(out, Mapping):
        return [array for part in out.values() for array in _arrays_in(part)]
    if isinstance(out, list | tuple):
        return [array for part in out for array in _arrays_in(part)]
    return [out]


def _tensor(part: Any) -> Tensor:
    if isinstance(part, Tensor):
        return part
    import numpy as np

    # a copy, for what cannot be written to
    return torch.from_numpy(np.array(part))


def _torch_dtype(dtype: Any) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    import numpy as np

    return torch.from_numpy(np.empty(0, dtype)).dtype
