"""The block of a backbone: any mixer, then an MLP, each on a normalised map and added to a skip path."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import InvalidInput, check_choice
from qna.mixers import MIXERS
from qna.models._parts.shortcut import SHORTCUTS
from qna.parts.drop_path import DropPath
from qna.parts.layer_scale import LayerScale
from qna.parts.mlp import ChannelMlp
from qna.parts.protocols import ShowsRows
from qna.parts.rows import PositionRows

# the LayerNorm epsilon of Flax, in which the authors of QnA trained
NORM_EPS = 1e-6


def drop_path_rates(last: float, blocks: int) -> Iterator[float]:
    """Rates of stochastic depth of blocks in their order: from 0, growing linearly, to that of the last.

    Raises:
        InvalidInput: `last` is below 0, or 1 or more, also where a single block would never see it.
    """
    # said of what was given, not of the share of it that a block would refuse first
    checks.rate("stochastic depth", drop_path_rate=last)
    return (last * i / max(1, blocks - 1) for i in range(blocks))


@dataclass(frozen=True)
class BlockSpec:
    """One block of a backbone.

    Attributes:
        mixer: name in `qna.mixers.MIXERS`, or what makes a mixer of (dim, **arguments).
        arguments: how it is built, beside its number of channels and its stride.
        stride: positions of the incoming map per position of the outgoing one.
        window: positions per axis that it mixes, which a pooling skip path takes too.
    """

    mixer: str | Callable[..., nn.Module]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    stride: int = 1
    window: int = 1

    def build(self, dim: int) -> nn.Module:
        """The mixer, of `dim` channels.

        Raises:
            UnknownName: no mixer of that name, or one that takes no such argument, with the nearest names.
            InvalidInput: a mixer that takes no stride is to have one, or it refuses its arguments.
        """
        build, name = mixer_builder(self.mixer)
        known = inspect.signature(build).parameters.keys() - {"dim"}
        # of a mixer that keeps the map's size, an argument of that name is no other than the rest
        shrinks = MIXERS[self.mixer].traits.strided if isinstance(self.mixer, str) else "stride" in known
        for argument in self.arguments:
            check_choice(f"argument of {name}", argument, known - {"stride"} if shrinks else known)
        strided = {} if self.stride == 1 else {"stride": self.stride}
        if strided and not shrinks:
            raise InvalidInput(f"{name} keeps the size of its map and cannot have stride={self.stride}")
        if not isinstance(self.mixer, str):
            return build(dim, **self.arguments, **strided)
        row = MIXERS[self.mixer]
        if row.traits.axes != 2:
            raise InvalidInput(
                f"{name} mixes maps of {row.traits.axes} axes and cannot be the mixer of a block on images"
            )
        if row.traits.pools:
            raise InvalidInput(f"{name} pools its map into one vector and cannot be a block's mixer")
        if row.traits.upsamples:
            raise InvalidInput(f"{name} makes its map finer and cannot be a block's mixer")
        return row.create(dim, **self.arguments, **strided)


def mixer_builder(mixer: str | Callable[..., nn.Module]) -> tuple[Callable[..., nn.Module], str]:
    """What makes a mixer, by its name in `MIXERS` or itself, and its name."""
    if not isinstance(mixer, str):
        return mixer, getattr(mixer, "__name__", str(mixer))
    check_choice("mixer", mixer, MIXERS)
    return MIXERS[mixer].build, mixer


class MixerBlock(nn.Module):
    """``x = skip(x) + mixer(norm(x))``, then ``x = x + mlp(norm(x))``, on maps (B, H, W, C).

    Args:
        dim: channels of the input.
        mixer: a module (B, H, W, dim) -> (B, H', W', mixer.out_dim).
        shortcut: the skip path of a mixer that changes the map's shape; None where it does not.
        drop_path: probability that a branch is left out for an image, in training. With a shortcut only the
            MLP is left out: the map would otherwise lack its mixed half.
        mlp_ratio: hidden channels of the MLP per channel.
        norm_eps: of both norms.
        layer_scale: what a branch is multiplied with at first, channel by channel; None for no such weights.
        gelu: form of the MLP's activation, "tanh" or "none".
        mlp: in the place of one by `mlp_ratio` and `gelu`: (B, H, W, out_dim) -> the same, with a linear map
            `fc1` to its hidden channels.
    """

    def __init__(
        self,
        dim: int,
        mixer: nn.Module,
        *,
        out_dim: int,
        shortcut: nn.Module | None = None,
        drop_path: float = 0.0,
        mlp_ratio: int = 4,
        norm_eps: float = NORM_EPS,
        layer_scale: float | None = None,
        gelu: str = "tanh",
        mlp: nn.Module | None = None,
    ):
        super().__init__()
        self.out_dim = out_dim
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.mixer = mixer
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        scaled = layer_scale is not None
        self.scale1 = LayerScale(out_dim, layer_scale) if scaled else nn.Identity()
        self.drop_path1 = DropPath(drop_path) if shortcut is None else nn.Identity()
        self.norm2 = nn.LayerNorm(out_dim, eps=norm_eps)
        self.mlp: Any = ChannelMlp(out_dim, mlp_ratio * out_dim, approximate=gelu) if mlp is None else mlp
        self.scale2 = LayerScale(out_dim, layer_scale) if scaled else nn.Identity()
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H', W', C')."""
        x = self.shortcut(x) + self.drop_path1(self.scale1(self.mixer(self.norm1(x))))
        return x + self.drop_path2(self.scale2(self.mlp(self.norm2(x))))

    @classmethod
    def of(cls, dim: int, spec: BlockSpec, *, shortcut: str, drop_path: float) -> MixerBlock:
        """The block that `spec` describes, on maps of `dim` channels; `shortcut` names a strided one's."""
        mixer: Any = spec.build(dim)
        if spec.stride == 1 and mixer.out_dim != dim:
            name = type(mixer).__name__
            raise InvalidInput(
                f"{name} makes {mixer.out_dim} channels of {dim}: only a strided block changes them"
            )
        skip = None
        if spec.stride != 1:
            skip = SHORTCUTS[shortcut](dim, mixer.out_dim, spec.stride, spec.window)
        return cls(dim, mixer, out_dim=mixer.out_dim, shortcut=skip, drop_path=drop_path)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside an input of `size` = (B, H, W, C) at the worst moment of inference.

        While the mixer runs: its normalised input, and what the skip path made. In the MLP: the map, its
        normalised form, and the hidden channels before and after the activation.
        """
        shortcut, mixer = cast(Any, self.shortcut), cast(Any, self.mixer)
        keeps_map = isinstance(shortcut, nn.Identity)
        out = tuple(size) if keeps_map else shortcut.out_size(size)
        before, after = math.prod(size), math.prod(out)
        hidden = after // out[-1] * self.mlp.fc1.out_features
        return max((0 if keeps_map else after) + before + mixer.held(size), 2 * after + 2 * hidden)

    def position_step(self, x: Tensor) -> tuple[PositionRows, PositionRows | None]:
        """Where each position that comes out looks in `x`, by the mixer and by the skip path.

        None stands for a skip path that keeps every position in its place, as the MLP does.

        Raises:
            InvalidInput: if the mixer shows no attention.
        """
        if not isinstance(self.mixer, ShowsRows):
            raise InvalidInput(f"{type(self.mixer).__name__} shows no attention")
        rows, shortcut = self.mixer.attention_rows(self.norm1(x)), cast(Any, self.shortcut)
        return rows, None if isinstance(shortcut, nn.Identity) else shortcut.position_rows(x)
