"""Every mixer of images in one backbone: stem, widths, depths and MLPs alike, and nothing else mixes.

The backbone is a QnA-ViT of three stages whose strided blocks are linear maps of 2 x 2 patches. A mixer's
accuracy is that of its best of several learning rates, chosen with the first seed and trained again with the
others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from qna._core.errors import InvalidInput, check_choice
from qna.analysis.footprint import peak_bytes
from qna.bench.measure.rows import Row
from qna.bench.subjects.accuracy import RECIPES, TOP1, Run, without_measured
from qna.bench.subjects.comparison import ModelChoice
from qna.bench.subjects.peers.memory_room import refuse_above_memory
from qna.bench.subjects.whole_model import ModelSetting, create

# of the largest maps, that a backward pass and a softmax in plain torch hold at once
COPIES = 4
# what the cases of its rows begin with
TABLE = "mixers"
BACKBONE = "qna_vit_nano_16"
STAGES = 3
# reach of every window, and channels per head but QnA's, whose heads have 8
WINDOW, HEAD_DIM = 7, 8
ARGUMENTS: Mapping[str, Any] = {
    "dim": 16,
    "qna_blocks": (2,) * STAGES,
    "window_blocks": (0,) * STAGES,
    "window_sizes": (WINDOW,) * STAGES,
    "kernel_size": WINDOW,
    "window_head_dim": HEAD_DIM,
    "downsample": "merge",
}
PATCH_SIZE = 2
BIASED = {"bias": True}
# stands for the height and width of a stage's map, for mixers that are made for one
MAP = "map"
# data -> pixels per axis of its recipe's images
SIZES = {"cifar10": 32, "fashion-mnist": 28}
# name in the table -> mixers that the blocks of a stage take in turn, by class or as a pair with arguments
CONTENDERS: Mapping[str, tuple[Any, ...]] = {
    "qna-3x3": (("QnA2d", {"kernel_size": 3}),),
    "qna": ("QnA2d",),
    "windows": (("WindowAttention2d", BIASED),),
    "shifted-windows": (("WindowAttention2d", BIASED), ("ShiftedWindowAttention2d", BIASED)),
    "varied-windows": ("VariedSizeWindowAttention2d",),
    "neighbourhood": ("NeighborhoodAttention2d",),
    "dilated-neighbourhood": ("NeighborhoodAttention2d", ("NeighborhoodAttention2d", {"dilation": 2})),
    "halo": ("HaloAttention2d",),
    "stand-alone": ("StandAloneAttention2d",),
    "linear": ("LinearAttention2d",),
    "local-concentration": ("LocalConcentration2d",),
    "spectral": (("SpectralGating2d", {"map_size": MAP}),),
    "hyperzzw-global": (("HyperZZWGlobal2d", {"map_size": MAP}),),
    "hyperzzw-local": ("HyperZZWLocal2d",),
    "token-gating": (("MixerGating2d", {"map_size": MAP}),),
    "focal": ("FocalModulation2d",),
    "contmix": ("ContMix2d",),
    "dilated-reparam": ("DilatedReparam2d",),
    "routing": ("BiLevelRoutingAttention2d",),
    "global-queries": (("WindowAttention2d", BIASED), "GlobalContextAttention2d"),
    "aggregated": (("AggregatedAttention2d", {"kernel_size": 3}),),
    "length-scaled": ("LengthScaledAttention2d",),
    "full": (("FullAttention2d", BIASED),),
    "minimal": ("MinimalAttention2d",),
    "messages": ("WindowMessages2d",),
    "positions": ("PositionAttention2d",),
    "channels": ("ChannelAttention2d",),
    "depthwise": ("DepthwiseConvolution2d",),
    "pooling": (("Pooling2d", {"kernel_size": 3}),),
    "identity": ("Identity2d",),
}


def model_arguments(name: str, size: int) -> dict[str, Any]:
    """Arguments of `BACKBONE` that put a contender into all its stages, for square images of `size` pixels.

    Raises:
        UnknownName: with the nearest names.
    """
    turns = CONTENDERS[check_choice("mixer of the table", name, CONTENDERS)]
    alone = len(turns) == 1
    if alone and isinstance(turns[0], str):
        return {**ARGUMENTS, "mixers": turns[0]}
    stages = []
    for i in range(STAGES):
        side = -(-size // (PATCH_SIZE * 2**i))
        of_stage = tuple(_on_map(mixer, side) for mixer in turns)
        stages.append(of_stage[0] if alone else of_stage)
    return {**ARGUMENTS, "mixers": tuple(stages)}


def _on_map(mixer: Any, side: int) -> Any:
    """The mixer with the size of its map filled in."""
    if isinstance(mixer, str):
        return mixer
    name, arguments = mixer
    return name, {key: side if value == MAP else value for key, value in arguments.items()}


def models(names: Iterable[str]) -> list[ModelChoice]:
    """What is timed."""
    return [ModelChoice(BACKBONE, partial(model_arguments, name), provider=name) for name in names]


def declines(model: ModelChoice, setting: ModelSetting) -> str | None:
    """Why a contender is not tried at a size: its maps do not fit, in the double precision of the gate."""
    with torch.device("meta"):
        network = create(model.name, setting.size, **model.arguments_for(setting.size))
    held = peak_bytes(network, (setting.batch, 3, setting.size, setting.size), itemsize=8)
    return refuse_above_memory(setting.device, COPIES * held, "maps")


def runs(
    data: Sequence[str],
    names: Sequence[str],
    seeds: Sequence[int],
    rates: Sequence[float],
    rows: Sequence[Row],
) -> Iterator[Run]:
    """What is still to be trained, so ordered that every step is of use wherever it ends.

    First all rates with the first seed; then the best of them with the others.

    Args:
        data: keys of `RECIPES`.
        names: of `CONTENDERS`.
        seeds: the first chooses the rate.
        rates: to try, per 256 images.
        rows: what was measured before; read anew for each run, so that the list may grow meanwhile.

    Raises:
        UnknownName: for data or a mixer that there is not.
        InvalidInput: without a seed or a rate.
    """
    for place in data:
        check_choice("data", place, RECIPES)
    for name in names:
        check_choice("mixer of the table", name, CONTENDERS)
    if not seeds or not rates:
        raise InvalidInput(f"the table needs a seed and a rate, got seeds {[*seeds]} and rates {[*rates]}")
    every = [(place, name) for place in data for name in names]
    for place, name in every:
        for rate in rates:
            yield from without_measured([_run(place, name, seeds[0], rate)], rows)
    for seed in seeds[1:]:
        for place, name in every:
            best = best_rate(place, name, seeds[0], rows)
            yield from without_measured([_run(place, name, seed, best)], rows)


def best_rate(data: str, name: str, seed: int, rows: Iterable[Row]) -> float:
    """The rate with which most test images were right, of those tried with `seed`; of equals the lower."""
    tried = {
        row.extra["lr"]: row.p50
        for row in rows
        if (row.case, row.provider, row.metric) == (f"{TABLE}-{data}", name, TOP1)
        and row.extra["seed"] == seed
    }
    return max(sorted(tried), key=lambda rate: tried[rate])


def _run(data: str, name: str, seed: int, rate: float) -> Run:
    words = [f"{key}={_word(value)}" for key, value in model_arguments(name, SIZES[data]).items()]
    options = ("--model", BACKBONE, "--model-kwargs", *words, "--epochs", "1", "--lr", f"{rate:g}")
    return Run(data, name, seed, options, table=TABLE)


def _word(value: Any) -> str:
    """As `qna train --model-kwargs` reads it back."""
    return value if isinstance(value, str) else repr(value).replace(" ", "")
