"""Token mixers: modules (B, *space, C) -> (B, *space', C'), one mechanism per file, grouped in families."""

from typing import Any

from torch import nn

from qna._core.errors import check_choice
from qna.mixers import (
    aggregated,
    causal,
    contmix,
    control,
    dual,
    focal,
    gating,
    global_context,
    halo,
    hyperzzw,
    learned_query,
    linear,
    messages,
    minimal,
    neighborhood,
    routing,
    spectral,
    stand_alone,
    varied_size,
    window,
)
from qna.mixers.aggregated import AggregatedAttention2d, LengthScaledAttention2d
from qna.mixers.causal import (
    CausalAttention1d,
    CausalLinearAttention1d,
    CoreContextAttention1d,
    FixedTextQueryKey1d,
    GatedCausalAttention1d,
    KeyOnlyAttention1d,
    MemoryAsContext1d,
    MemoryAsGate1d,
    MemoryAsLayer1d,
    NeuralMemory1d,
    PositionwiseMlp1d,
    ProxyAttention1d,
    RandomQueryKey1d,
    ShiftedSparseAttention1d,
    SinkFixedAttention1d,
    SlidingAttention1d,
    StaticQueryKey1d,
    TaylorAttention1d,
)
from qna.mixers.contmix import ContMix2d, DilatedReparam2d
from qna.mixers.control import DepthwiseConvolution2d, FullAttention2d, Identity2d, Pooling2d
from qna.mixers.dual import (
    ChannelAttention2d,
    ChannelAttention3d,
    PositionAttention2d,
    PositionAttention3d,
)
from qna.mixers.focal import FocalModulation2d
from qna.mixers.gating import MixerGating2d
from qna.mixers.global_context import GlobalContextAttention2d
from qna.mixers.halo import HaloAttention2d
from qna.mixers.hyperzzw import HyperZZWGlobal2d, HyperZZWLocal2d
from qna.mixers.learned_query import (
    QnA1d,
    QnA2d,
    QnA3d,
    QnAPool2d,
    QnAUpsample1d,
    QnAUpsample2d,
    QnAUpsample3d,
)
from qna.mixers.linear import LinearAttention2d, LocalConcentration2d
from qna.mixers.messages import WindowMessages1d, WindowMessages2d, WindowMessages3d
from qna.mixers.minimal import MinimalAttention1d, MinimalAttention2d
from qna.mixers.neighborhood import (
    NeighborhoodAttention1d,
    NeighborhoodAttention2d,
    NeighborhoodAttention3d,
)
from qna.mixers.routing import BiLevelRoutingAttention2d
from qna.mixers.row import MixerRow
from qna.mixers.spectral import SpectralGating2d
from qna.mixers.stand_alone import StandAloneAttention2d
from qna.mixers.varied_size import VariedSizeWindowAttention2d
from qna.mixers.window import ShiftedWindowAttention2d, WindowAttention2d

__all__ = [
    "FAMILIES",
    "MIXERS",
    "AggregatedAttention2d",
    "BiLevelRoutingAttention2d",
    "CausalAttention1d",
    "CausalLinearAttention1d",
    "ChannelAttention2d",
    "ChannelAttention3d",
    "ContMix2d",
    "CoreContextAttention1d",
    "DepthwiseConvolution2d",
    "DilatedReparam2d",
    "FixedTextQueryKey1d",
    "FocalModulation2d",
    "FullAttention2d",
    "GatedCausalAttention1d",
    "GlobalContextAttention2d",
    "HaloAttention2d",
    "HyperZZWGlobal2d",
    "HyperZZWLocal2d",
    "Identity2d",
    "KeyOnlyAttention1d",
    "LengthScaledAttention2d",
    "LinearAttention2d",
    "LocalConcentration2d",
    "MemoryAsContext1d",
    "MemoryAsGate1d",
    "MemoryAsLayer1d",
    "MinimalAttention1d",
    "MinimalAttention2d",
    "MixerGating2d",
    "NeuralMemory1d",
    "Pooling2d",
    "PositionAttention2d",
    "PositionAttention3d",
    "PositionwiseMlp1d",
    "ProxyAttention1d",
    "NeighborhoodAttention1d",
    "NeighborhoodAttention2d",
    "NeighborhoodAttention3d",
    "QnA1d",
    "QnA2d",
    "QnA3d",
    "QnAPool2d",
    "QnAUpsample1d",
    "QnAUpsample2d",
    "QnAUpsample3d",
    "ShiftedSparseAttention1d",
    "RandomQueryKey1d",
    "ShiftedWindowAttention2d",
    "SinkFixedAttention1d",
    "SlidingAttention1d",
    "SpectralGating2d",
    "StandAloneAttention2d",
    "StaticQueryKey1d",
    "TaylorAttention1d",
    "VariedSizeWindowAttention2d",
    "WindowAttention2d",
    "WindowMessages1d",
    "WindowMessages2d",
    "WindowMessages3d",
    "create_mixer",
]

FAMILIES = (
    learned_query,
    neighborhood,
    window,
    halo,
    stand_alone,
    focal,
    gating,
    contmix,
    routing,
    aggregated,
    varied_size,
    global_context,
    spectral,
    linear,
    messages,
    minimal,
    hyperzzw,
    dual,
    control,
    causal,
)

# every mixer by its class name
MIXERS: dict[str, MixerRow] = {row.name: row for family in FAMILIES for row in family.ROWS}


def create_mixer(name: str, dim: int, **arguments: Any) -> nn.Module:
    """Build a mixer of the registry.

    Args:
        name: its class's: "QnA2d"; `MIXERS` holds all, and ``qna list mixers`` prints them.
        dim: channels of the input.
        arguments: the class's own.

    Raises:
        UnknownName: for a name that the registry does not have, with the nearest names.
        InvalidInput: for arguments that the mixer does not take or lacks, or whose values it refuses.
    """
    return MIXERS[check_choice("mixer", name, MIXERS)].create(dim, **arguments)
