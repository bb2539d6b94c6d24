"""Any mixer of the registry in the place of a network's own: of its convolutions, windows or attention."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qna._core.about import About
from qna._core.errors import InvalidInput, check_choice
from qna.adapters._parts.attention import attended, finished, projected
from qna.adapters._parts.vit import blocks_of
from qna.adapters.row import Adapter, AdapterRow
from qna.mixers import MIXERS
from qna.models.timm_entry import timm

DEPTHWISE, WINDOWS, ATTENTION = "depthwise", "window_attention", "attention"
# what a linear map of attention, or a convolution, is called here and in timm -> what it makes, in order
ROLES: Mapping[str, tuple[str, ...]] = {
    "qkv": ("q", "k", "v"),
    "q": ("q",),
    "k": ("k",),
    "kv": ("k", "v"),
    "value": ("v",),
    "out": ("out",),
    "proj": ("out",),
}
# channels per head where the network had none to tell
HEAD_DIM = 32


@dataclass(frozen=True)
class SwapMixer(Adapter):
    """Put a mixer of the registry in the place of a network's own, and keep what fits.

    Suits any timm network with depthwise convolutions that keep the size of the map (ConvNeXt), timm's Swin,
    and its plain vision transformers, whose tokens must be those of one grid. There class, distillation and
    register tokens go on attending everything with the network's own weights, for the mixer sees the map
    alone.

    What is replaced leaves the state dict. Of its projections those of queries, keys, values and output are
    taken over where a linear map of the mixer has the role and the shape, and so are the taps of a
    convolution; all else of the mixer begins as it does by itself. `qna.adapters.applied` tells which, place
    by place.

    Attributes:
        mixer: its name in `qna.mixers.MIXERS`.
        of: what makes room: "depthwise", "window_attention" or "attention".
        stages: of a hierarchy, from 0, and of a plain vision transformer its blocks; None for all.
        arguments: of the mixer. Where it needs them, heads are as many as there were (else `HEAD_DIM`
            channels each), and its window is as large as that of the convolution or the windows.
    """

    name: ClassVar[str] = "swap_mixer"
    # in other places, or in those of one another
    beside: ClassVar[frozenset[str]] = frozenset({"swap_mixer"})

    mixer: str
    of: str
    stages: tuple[int, ...] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    def transform(self, network: nn.Module) -> list[str]:
        """Replace all places; a sentence for each."""
        row = MIXERS[check_choice("mixer", self.mixer, MIXERS)]
        check_choice("of", self.of, FINDERS)
        traits = row.traits
        if traits.axes != 2 or traits.pools or traits.upsamples or "stride" in self.arguments:
            raise InvalidInput(
                f"{self.mixer} does not keep the size of an image's map, which its place in a network needs"
            )
        places = [place for place in FINDERS[self.of](network) if self._wanted(place)]
        if not places:
            where = "" if self.stages is None else f" in stages {', '.join(map(str, self.stages))}"
            raise InvalidInput(
                f"{type(network).__name__} has no {self.of.replace('_', ' ')}{where} that could be swapped"
            )
        mixers = [self._build(place) for place in places]
        told = []
        for place, mixer in zip(places, mixers, strict=True):
            kept = _take_over(mixer, place.projections)
            first = next(iter(place.old.parameters()))
            mixer.to(device=first.device, dtype=first.dtype)
            parent, _, name = place.path.rpartition(".")
            setattr(network.get_submodule(parent), name, place.wrap(mixer).train(place.old.training))
            fresh = [n for n, _ in mixer.named_parameters() if n not in kept]
            parts = (("kept", kept), ("new", fresh))
            said = ", ".join(f"{what} {', '.join(names) or 'nothing'}" for what, names in parts)
            told.append(f"{place.path}: {self.mixer}, {said}")
        return told

    def _wanted(self, place: Place) -> bool:
        return self.stages is None or place.stage in self.stages

    def _build(self, place: Place) -> nn.Module:
        row = MIXERS[self.mixer]
        takes = inspect.signature(row.build).parameters
        offered: dict[str, Any] = {"num_heads": place.heads}
        if not row.traits.any_size and "map_size" not in self.arguments:
            if place.grid is None:
                raise InvalidInput(
                    f"{self.mixer} is made for maps of one size, which {place.path} does not tell; "
                    "give map_size among its arguments"
                )
            offered["map_size"] = place.grid
        if place.window is not None:
            offered |= {"kernel_size": place.window, "window_size": place.window}
        needed = {
            name: value
            for name, value in offered.items()
            if name in takes
            and name not in self.arguments
            and (name == "map_size" or takes[name].default is inspect.Parameter.empty)
        }
        mixer: Any = row.create(place.dim, **needed, **self.arguments)
        if mixer.out_dim != place.dim:
            raise InvalidInput(
                f"{self.mixer} makes {mixer.out_dim} channels of {place.dim}, its place needs as many"
            )
        return mixer


class Place:
    """Where a mixer goes.

    Args:
        path: of the module that makes room for `wrap`'s.
        old: that module.
        dim: channels.
        heads: of the mixer, where it has any.
        window: taps per axis that were mixed; None where all were.
        projections: role -> (weight, bias) of what was there.
        stage: that it is in; None where the path tells none.
        grid: rows and columns of its map, where they are known.
    """

    def __init__(
        self,
        path: str,
        old: nn.Module,
        *,
        dim: int,
        heads: int,
        window: int | tuple[int, int] | None,
        projections: Mapping[str, tuple[Tensor, Tensor | None]],
        stage: int | None,
        grid: tuple[int, int] | None = None,
    ):
        self.path, self.old, self.dim, self.heads = path, old, dim, heads
        self.window, self.projections, self.stage, self.grid = window, projections, stage, grid

    def wrap(self, mixer: nn.Module) -> nn.Module:
        """What stands in the network for the mixer."""
        raise NotImplementedError


class _Convolution(Place):
    def wrap(self, mixer: nn.Module) -> nn.Module:
        return ImageMixer(mixer)


class _SwinBlock(Place):
    def wrap(self, mixer: nn.Module) -> nn.Module:
        return SwappedSwinBlock(self.old, mixer)


class _Attention(Place):
    prefix: int

    def wrap(self, mixer: nn.Module) -> nn.Module:
        assert self.grid is not None
        return TokenMixer(mixer, self.grid, self.old if self.prefix else None, self.prefix)


class ImageMixer(nn.Module):
    """A mixer on images (B, C, H, W)."""

    def __init__(self, mixer: nn.Module):
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return self.mixer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SwappedSwinBlock(nn.Module):
    """timm's Swin block with a mixer of whole maps for its windows; the other parts are the block's own."""

    def __init__(self, block: Any, mixer: nn.Module):
        super().__init__()
        self.norm1, self.attn, self.drop_path1 = block.norm1, mixer, block.drop_path1
        self.norm2, self.mlp, self.drop_path2 = block.norm2, block.mlp, block.drop_path2

    def set_input_size(self, feat_size: object, window_size: object, always_partition: object = None) -> None:
        """A mixer of whole maps takes any size."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class TokenMixer(nn.Module):
    """A mixer on the grid of a vision transformer's image tokens; prefix tokens keep their attention to all.

    Args:
        mixer: (B, H, W, C) -> the same.
        grid: rows and columns of image tokens.
        prefix: timm's attention, for the tokens before the image's; None where there are none.
        num_prefix: how many.
    """

    def __init__(self, mixer: nn.Module, grid: tuple[int, int], prefix: nn.Module | None, num_prefix: int):
        super().__init__()
        self.mixer = mixer
        self.grid = grid
        self.prefix: Any = prefix
        self.num_prefix = num_prefix

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> the same."""
        if attn_mask is not None or is_causal:
            raise InvalidInput("a swapped mixer takes no mask of tokens")
        image = x[:, self.num_prefix :]
        if image.shape[1] != self.grid[0] * self.grid[1]:
            raise InvalidInput(
                f"the mixer was swapped in for a grid of {self.grid[0]} x {self.grid[1]} tokens, got "
                f"{image.shape[1]}; set the network's input size before the adapter is applied"
            )
        mixed = self.mixer(image.unflatten(1, self.grid)).flatten(1, 2)
        if self.prefix is None:
            return mixed
        return torch.cat([self._prefix(x), mixed], 1)

    def _prefix(self, x: Tensor) -> Tensor:
        """The prefix tokens after attending all tokens; no other query is asked."""
        q, k, v = projected(self.prefix, x)
        asking = x[:, : self.num_prefix]
        y = attended(self.prefix, q[:, :, : self.num_prefix], k, v)
        return finished(self.prefix, y, asking)


def _depthwise(network: nn.Module) -> Iterator[Place]:
    convolutions: Any = ((path, m) for path, m in network.named_modules() if isinstance(m, nn.Conv2d))
    for path, m in convolutions:
        plain = m.groups == m.in_channels == m.out_channels > 1
        if plain and m.stride == (1, 1) and m.dilation == (1, 1) and max(m.kernel_size) > 1:
            yield _Convolution(
                path, m, dim=m.in_channels, heads=_heads(m.in_channels), window=_one_or_pair(m.kernel_size),
                projections={"filter": (m.weight, m.bias)}, stage=_stage(path),
            )  # fmt: skip


def _windows(network: Any) -> Iterator[Place]:
    for path, m in network.named_modules():
        if type(m) is timm.models.swin_transformer.SwinTransformerBlock:
            yield _SwinBlock(
                path, m, dim=m.dim, heads=m.attn.num_heads, window=_one_or_pair(m.attn.window_size),
                projections=_projections(m.attn), stage=_stage(path),
            )  # fmt: skip


def _attention(network: Any) -> Iterator[Place]:
    blocks = blocks_of(network, SwapMixer.name)
    if getattr(network.patch_embed, "dynamic_img_pad", False) or not network.patch_embed.strict_img_size:
        raise InvalidInput("swap_mixer needs tokens of one grid; make the network without dynamic_img_size")
    for i, block in enumerate(blocks):
        place = _Attention(
            f"blocks.{i}.attn", block.attn, dim=block.attn.attn_dim, heads=block.attn.num_heads, window=None,
            projections=_projections(block.attn), stage=i, grid=network.patch_embed.grid_size,
        )  # fmt: skip
        place.prefix = network.num_prefix_tokens
        yield place


FINDERS = {DEPTHWISE: _depthwise, WINDOWS: _windows, ATTENTION: _attention}


def _projections(attention: Any) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Of timm's attention, by role."""
    weights = attention.qkv.weight.chunk(3)
    biases: Sequence[Any] = (None,) * 3 if attention.qkv.bias is None else attention.qkv.bias.chunk(3)
    found = dict(zip(ROLES["qkv"], zip(weights, biases, strict=True), strict=True))
    return {**found, "out": (attention.proj.weight, attention.proj.bias)}


@torch.no_grad()
def _take_over(mixer: nn.Module, projections: Mapping[str, tuple[Tensor, Tensor | None]]) -> list[str]:
    """Copy what has a role and its shape in `mixer`; return the names of parameters that were filled."""
    kept = []
    for path, m in mixer.named_modules():
        roles = ("filter",) if isinstance(m, nn.Conv2d) else ROLES.get(path.rpartition(".")[2], ())
        if (
            not isinstance(m, nn.Conv2d | nn.Linear)
            or not all(role in projections for role in roles)
            or not roles
        ):
            continue
        weight = torch.cat([projections[role][0] for role in roles])
        if weight.shape != m.weight.shape:
            continue
        m.weight.copy_(weight)
        kept.append(f"{path}.weight")
        if m.bias is not None:
            parts = [projections[role] for role in roles]
            m.bias.copy_(torch.cat([w.new_zeros(len(w)) if b is None else b for w, b in parts]))
            kept.append(f"{path}.bias")
    return kept


def _heads(dim: int) -> int:
    return dim // HEAD_DIM if dim % HEAD_DIM == 0 else 1


def _one_or_pair(window: tuple[int, ...]) -> int | tuple[int, int]:
    return window[0] if window[0] == window[1] else (window[0], window[1])


def _stage(path: str) -> int | None:
    found = re.search(r"(?:stages|layers|levels|blocks)[._](\d+)", path)
    return None if found is None else int(found[1])


ROW = AdapterRow(
    SwapMixer,
    About(
        "Mixers in the place of a network's own",
        "qna",
        "2026",
        None,
        "nothing: it is ours",
        "",
        "formula",
    ),
    "any mixer of the registry in the place of a network's depthwise convolutions, windows or attention",
    {"mixer": "NeighborhoodAttention2d", "of": "attention", "arguments": {"kernel_size": 3}},
    frozenset({"vit", "distilled", "registers"}),
    exempt={"keeps_names": "what it replaces leaves the state dict, which is what it is for"},
)
