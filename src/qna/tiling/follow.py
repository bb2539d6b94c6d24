"""Following the positions of an image through a network that is run without data."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qna._core.errors import InvalidInput
from qna.parts.protocols import TellsReach
from qna.tiling.calls import Call, Layout, NotLocal, tensors_in
from qna.tiling.places import Places
from qna.tiling.rules import pointwise, rule_of


@dataclass
class Followed:
    """What a network does with the positions of images of one size.

    Attributes:
        maps: those on the way, in the order in which they are made; the first is the image.
        outputs: the tensors that come out, in order: their shapes and layouts.
        means: call number of each mean over a map (`mean_calls`) -> the layout of that map.
        steps: what was called with which settings, in order. Networks that do the same to images of two
            sizes have equal ones.
    """

    maps: list[Places] = field(default_factory=list)
    outputs: list[tuple[tuple[int, ...], Layout]] = field(default_factory=list)
    means: dict[int, Layout] = field(default_factory=dict)
    steps: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def ends(self) -> list[Places]:
        """The maps that are to be had whole: those that come out, and those that means are taken over."""
        layouts = [*(layout for _, layout in self.outputs if layout.axes), *self.means.values()]
        return [layout.places for layout in layouts]

    @property
    def image(self) -> Places:
        """The pixels."""
        return self.maps[0]

    def differs_from(self, other: Followed) -> str | None:
        """Where the network does otherwise to images of another size, or None.

        Alike means: the same calls, and maps that differ by as many positions as lie in the pixels by which
        the images differ.
        """
        for ours, theirs in zip(self.steps, other.steps, strict=False):
            if ours != theirs:
                return f"{ours[0]} there, {theirs[0]} here"
        if len(self.steps) != len(other.steps) or self.means.keys() != other.means.keys():
            return f"{len(self.steps)} calls there, {len(other.steps)} here"
        pixels = [n - m for n, m in zip(self.image.sizes, other.image.sizes, strict=True)]
        for mine, yours in zip(self.maps, other.maps, strict=True):
            gaps = [n - m for n, m in zip(mine.sizes, yours.sizes, strict=True)]
            if [g * a for g, a in zip(gaps, mine.stride, strict=True)] != pixels:
                return f"a map of {mine.sizes} positions there, of {yours.sizes} here"
            if [r for _, r in mine.sources] != [r for _, r in yours.sources]:
                return f"a map of {mine.sizes} positions is made otherwise than one of {yours.sizes}"
        return None


def follow(model: nn.Module, shape: Sequence[int], dtype: torch.dtype) -> Followed:
    """Follow the positions of images (B, C, *space) through `model`.

    Runs a copy on the meta device, which takes no memory for maps of any size.

    Raises:
        InvalidInput: some part of the network is not local, or does what no rule is known for; the text names
            the part.
    """
    ghost = _without_data(model)
    follower = _Follower(type(model).__name__)
    image = torch.empty(*shape, dtype=dtype, device="meta")
    follower.know(image, Layout(Places.of_image(shape[2:]), tuple(range(2 - len(shape), 0))))
    follower.listen_to(ghost)
    try:
        with torch.no_grad(), torch.device("meta"), follower:
            result = ghost(image)
    except (RuntimeError, NotImplementedError) as error:
        cause = str(error).splitlines()[0]
        raise InvalidInput(f"{type(model).__name__} cannot be run on {tuple(shape)}: {cause}") from error
    for tensor in tensors_in(result):
        layout = follower.layout(tensor)
        if layout is None:
            raise InvalidInput(f"{type(model).__name__} gives a tensor that is not made of the image")
        follower.followed.outputs.append((tuple(tensor.shape), layout))
    return follower.followed


def name_of(function: Any) -> str:
    """What a function of torch is called, be it a method, an operator or in place: add, getitem."""
    name = getattr(function, "__name__", str(function))
    if not (name.startswith("__") and name.endswith("__")):
        return name.rstrip("_")
    name = name.strip("_")
    # reflected and in-place operators
    return name[1:] if name[:1] in ("r", "i") and name[1:] in _OPERATORS else name


_OPERATORS = {"add", "sub", "mul", "truediv", "pow"}
# the functions among whose calls a mean over the map is found again by its number
MEANS = {"mean", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"}


class _Follower(TorchFunctionMode):
    """Knows of every tensor where its positions are, by the rules of functions and by what modules tell."""

    def __init__(self, name: str):
        super().__init__()
        self.followed = Followed()
        self._name = name
        # tensors are kept, so that no other gets the same id
        self._known: dict[int, tuple[Tensor, Layout]] = {}
        self._inside: list[tuple[str, str]] = []  # modules, by name and class
        self._mean_calls = 0

    def know(self, tensor: Tensor, layout: Layout) -> None:
        self._known[id(tensor)] = tensor, layout
        if layout.places not in self.followed.maps:
            self.followed.maps.append(layout.places)

    def layout(self, tensor: Tensor) -> Layout | None:
        return self._known.get(id(tensor), (None, None))[1]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        self._mean_calls += name in MEANS
        # before the call: one in place gives its argument another layout
        layouts = self._layouts_of(args, kwargs)
        result = func(*args, **kwargs)
        if layouts and (made := list(tensors_in(result))):
            try:
                for tensor, layout in self._follow(Call(name, args, kwargs, result, layouts), made):
                    self.know(tensor, layout)
            except NotLocal as why:
                self._refuse(f"its call of {name} {why}")
        return result

    def _follow(self, call: Call, made: Sequence[Tensor]) -> Any:
        pooled = [layout for layout in call.layouts.values() if not layout.axes]
        if len(pooled) == len(call.layouts):
            # what is made of means alone is computed once, whatever it is
            return [(tensor, pooled[0]) for tensor in made]
        if pooled:
            raise NotLocal("brings a mean over the whole map back to its positions")
        rule = rule_of(call.name)
        # numbers beside maps could follow from the size of the map
        numbers = [v for v in (*call.args, *call.kwargs.values()) if isinstance(v, int | float)]
        self.followed.steps.append((call.name, *(numbers if rule is pointwise else ())))
        found = list(rule(call))
        if call.name in MEANS and not found[0][1].axes:
            whole = next(iter(call.layouts.values()))
            self.followed.means[self._mean_calls] = whole
        return found

    def _layouts_of(self, *values: Any) -> Mapping[int, Layout]:
        layouts = ((id(tensor), self.layout(tensor)) for tensor in tensors_in(values))
        return {key: layout for key, layout in layouts if layout is not None}

    def listen_to(self, network: nn.Module) -> None:
        """Let modules of `network` say when they are called; those that tell their reach compute nothing."""
        for name, module in network.named_modules():
            about = name, type(module).__name__
            module.register_forward_pre_hook(lambda *_, about=about: self._inside.append(about))
            module.register_forward_hook(self._leave)
            if isinstance(module, TellsReach):
                told: Any = module
                told.forward = lambda x, module=module: self._told(module, x)

    def _leave(self, *_: object) -> None:
        self._inside.pop()

    def _told(self, module: Any, x: Tensor) -> Tensor:
        """What comes out of a module that tells its reach, without values."""
        layout, reaches = self.layout(x), tuple(module.reach(tuple(x.shape)))
        if layout is None or layout.axes != tuple(range(1 - x.ndim, -1)) or len(reaches) != len(layout.axes):
            self._refuse(f"it tells its reach on maps (B, *space, C), and is given {tuple(x.shape)}")
        sizes = [math.ceil(n / reach.stride) for n, reach in zip(x.shape[1:-1], reaches, strict=True)]
        made = torch.empty(len(x), *sizes, module.out_dim, dtype=x.dtype, device=x.device)
        self.followed.steps.append((type(module).__name__,))
        self.know(*Call("", (x,), {}, made, {id(x): layout}).through(layout, reaches))
        return made

    def _refuse(self, why: str) -> NoReturn:
        name, kind = self._inside[-1] if self._inside else ("", self._name)
        where = f"{kind} at {name!r}" if name else kind
        raise InvalidInput(
            f"{self._name} cannot be run in tiles with exact seams, because of {where}: {why}; "
            "give `tiled` the part of the network before it, or the whole image to the network"
        )


def _without_data(model: nn.Module) -> nn.Module:
    """A copy of `model` on the meta device, of which no weight is copied."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.to("meta"), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(model, memo)
