"""The sizes of networks of varied-size windows, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qna._core.checks import positive
from qna._core.errors import InvalidInput, check_choice
from qna.mixers.varied_size.window_attention import PADDINGS
from qna.models.family import Variant


@dataclass(frozen=True)
class _Windows(Variant):
    """What all of them have.

    Attributes:
        window_size: positions per axis of a window.
        padding: where positions lie that the last windows lack, see `VariedSizeWindowAttention2d`.
        zero_init: windows begin as plain ones.
        drop_path_rate: of the last block in training; it grows linearly from 0.
    """

    window_size: int = 7
    padding: str = "end"
    zero_init: bool = False
    drop_path_rate: float = 0.0

    def __post_init__(self):
        positive(type(self).__name__, window_size=self.window_size)
        check_choice("padding", self.padding, PADDINGS)
        if not isinstance(self.zero_init, bool):
            raise InvalidInput(f"zero_init must be True or False, got {self.zero_init!r}")


@dataclass(frozen=True, kw_only=True)
class SwinVSAVariant(_Windows):
    """A Swin of varied-size windows; each stage has twice the channels of the one before.

    Attributes:
        dim: channels of the first stage.
        depths: blocks per stage.
        head_dim: channels per head.
        mlp_ratio: hidden channels of the MLPs per channel.
        patch_size: pixels per axis of a position of the first map.
    """

    dim: int
    depths: tuple[int, ...]
    head_dim: int = 32
    mlp_ratio: int = 4
    patch_size: int = 4

    def __post_init__(self):
        super().__post_init__()
        names = ("dim", "head_dim", "mlp_ratio", "patch_size")
        positive(type(self).__name__, **{name: getattr(self, name) for name in names})
        _check_stages(self, "depths")
        if self.dim % self.head_dim:
            raise InvalidInput(f"head_dim must divide dim={self.dim}, got {self.head_dim}")


@dataclass(frozen=True, kw_only=True)
class ViTAEv2VSAVariant(_Windows):
    """A ViTAEv2 of varied-size windows: stages that begin with a reduction cell, then normal cells.

    Attributes:
        dims: channels of each stage's map.
        depths: normal cells per stage.
        heads: of their attention, per stage.
        reduction_heads: of the attention in each stage's reduction cell.
        groups: of the convolutions beside attention, in normal cells, per stage.
        reduction_groups: the same in reduction cells.
        reductions: per stage, positions per axis of the map before that become one: 4 or 2.
        kernel_sizes: taps per axis of a reduction cell's dilated convolutions, per stage.
        dilations: of each of them, per stage.
        wide: reduction cells have convolutions of twice their stage's channels beside attention, in the place
            of those of the stage before (of the first of as many).
        mlp_ratio: hidden channels of the MLPs of normal cells per channel.
    """

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    reduction_heads: tuple[int, ...]
    groups: tuple[int, ...] = (1, 32, 64, 128)
    reduction_groups: tuple[int, ...] = (1, 16, 32, 64)
    reductions: tuple[int, ...] = (4, 2, 2, 2)
    kernel_sizes: tuple[int, ...] = (7, 3, 3, 3)
    dilations: tuple[tuple[int, ...], ...] = ((1, 2, 3, 4), (1, 2, 3), (1, 2), (1, 2))
    wide: bool = True
    mlp_ratio: int = 4

    def __post_init__(self):
        super().__post_init__()
        positive(type(self).__name__, mlp_ratio=self.mlp_ratio)
        per_stage = ("dims", "depths", "heads", "reduction_heads", "groups", "reduction_groups")
        _check_stages(self, *per_stage, "reductions", "kernel_sizes")
        if not isinstance(self.dilations, tuple | list) or len(self.dilations) != len(self.dims):
            raise InvalidInput(f"dilations must be a tuple for each stage, got {self.dilations!r}")
        for i, of_stage in enumerate(self.dilations):
            if not isinstance(of_stage, tuple | list) or not of_stage:
                raise InvalidInput(f"dilations[{i}] must be one number per convolution, got {of_stage!r}")
            positive(type(self).__name__, **{f"dilations[{i}][{j}]": n for j, n in enumerate(of_stage)})
        if not set(self.reductions) <= {2, 4}:
            raise InvalidInput(f"reductions must be 2 or 4, got {self.reductions}")
        if not isinstance(self.wide, bool):
            raise InvalidInput(f"wide must be True or False, got {self.wide!r}")


def _check_stages(variant: Variant, *names: str) -> None:
    """Each of these fields must hold a positive integer for each stage."""
    stages = None
    for name in names:
        numbers = getattr(variant, name)
        if not isinstance(numbers, tuple | list) or not numbers:
            raise InvalidInput(f"{name} must be one number per stage, got {numbers!r}")
        positive(type(variant).__name__, **{f"{name}[{i}]": n for i, n in enumerate(numbers)})
        stages = len(numbers) if stages is None else stages
        if len(numbers) != stages:
            raise InvalidInput(
                f"{names[0]} and {name} must have one number for each stage, got {stages} and {len(numbers)}"
            )


_SWIN_TINY = SwinVSAVariant(dim=96, depths=(2, 2, 6, 2), drop_path_rate=0.2, parameters=28_779_274)

# sizes and rates of Swin's
SWIN_VSA = {
    "swin_vsa_tiny": _SWIN_TINY,
    "swin_vsa_small": replace(_SWIN_TINY, depths=(2, 2, 18, 2), drop_path_rate=0.3, parameters=50_549_338),
    # ours, for small images: maps of 8x8 and 4x4 at the named size
    "swin_vsa_nano_16": SwinVSAVariant(
        dim=32,
        depths=(2, 2),
        head_dim=16,
        window_size=3,
        mlp_ratio=2,
        patch_size=2,
        image_size=16,
        parameters=170_596,
    ),
}

_VITAE_SMALL = ViTAEv2VSAVariant(
    dims=(64, 128, 256, 512),
    depths=(2, 2, 8, 2),
    heads=(2, 4, 8, 16),
    reduction_heads=(2, 2, 4, 8),
    wide=False,
    parameters=19_773_300,
)
_HEADS_48M, _HEADS_BASE = (3, 6, 12, 24), (4, 8, 16, 32)

VITAEV2_VSA = {
    "vitaev2_vsa_small": _VITAE_SMALL,
    "vitaev2_vsa_widepcm_small": replace(
        _VITAE_SMALL, reduction_heads=_VITAE_SMALL.heads, wide=True, parameters=20_342_442
    ),
    "vitaev2_vsa_48m": ViTAEv2VSAVariant(
        dims=(96, 192, 384, 768),
        depths=(2, 2, 11, 2),
        heads=_HEADS_48M,
        reduction_heads=_HEADS_48M,
        parameters=51_089_119,
    ),
    "vitaev2_vsa_base": ViTAEv2VSAVariant(
        dims=(128, 256, 512, 1024),
        depths=(2, 2, 12, 2),
        heads=_HEADS_BASE,
        reduction_heads=_HEADS_BASE,
        parameters=93_711_532,
    ),
    # ours, for small images: maps of 8x8 and 4x4 at the named size
    "vitaev2_vsa_nano_16": ViTAEv2VSAVariant(
        dims=(16, 32),
        depths=(1, 2),
        heads=(1, 2),
        reduction_heads=(1, 2),
        groups=(1, 8),
        reduction_groups=(1, 4),
        reductions=(2, 2),
        kernel_sizes=(3, 3),
        dilations=((1, 2), (1, 2)),
        window_size=3,
        mlp_ratio=2,
        image_size=16,
        parameters=130_480,
    ),
}
