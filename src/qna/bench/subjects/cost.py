"""What layers and models cost by formulas, as rows: multiply-adds, bytes that must move, peak bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna.analysis.cost import layer_costs, tells_costs, total_macs
from qna.analysis.footprint import layer_footprints, peak_bytes
from qna.bench.measure.contender import FORWARD
from qna.bench.measure.machine import Stamp
from qna.bench.measure.rows import Row
from qna.bench.subjects.whole_model import create
from qna.mixers import QnA2d
from qna.models import QNA_VIT


@dataclass(frozen=True)
class Cost:
    """Cost of one layer, or of one model for a batch of images.

    Attributes:
        case: the sizes, as in measured rows.
        provider: the layer's class or the model's name.
        parameters: number of weights.
        macs: multiply-adds in the paper's accounting; two FLOPs each.
        moved: bytes of inputs, outputs and parameters of all layers.
        peak: bytes of all maps at the worst moment of inference.
        extra: sizes, for the row.
    """

    case: str
    provider: str
    parameters: int
    macs: int
    moved: int
    peak: int
    extra: dict[str, Any]

    def what(self) -> str:
        """Layer or model and its sizes, for a table."""
        _, size, *window, _ = self.case.split("-")
        return " ".join([self.provider, size, *window])

    def rows(self, stamp: Stamp) -> Iterator[Row]:
        """One row per figure; they are counted, so they have no spread."""
        figures = (
            ("parameters", "1", self.parameters),
            ("macs", "MMAC", self.macs / 1e6),
            ("moved", "MiB", self.moved / 2**20),
            ("peak", "MiB", self.peak / 2**20),
        )
        for metric, unit, value in figures:
            yield Row(
                self.case, self.provider, FORWARD, metric, unit, value, value, value,
                "formula", 0, stamp.torch, stamp.commit, stamp.date, self.extra,
            )  # fmt: skip


def layer_cost(size: tuple[int, int, int, int], window: int, head_dim: int, queries: int) -> Cost:
    """A QnA layer on a map (batch, height, width, channels)."""
    batch, height, width, dim = size
    with torch.device("meta"):
        layer = QnA2d(dim, num_heads=dim // head_dim, kernel_size=window, num_queries=queries)
    sizes = {"batch": batch, "height": height, "width": width, "dim": dim, "window": window}
    case = f"layer-{batch}x{height}x{width}x{dim}-k{window}-float32"
    return _cost(case, "qna", layer, size, {**sizes, "heads": dim // head_dim, "queries": queries})


def model_cost(name: str, batch: int, size: int) -> Cost:
    """A model of this library on a batch of square images."""
    model = _ghost(name, size)
    shape = (batch, 3, size, size)
    return _cost(f"model-{batch}x{size}x{size}-float32", name, model, shape, {"batch": batch, "size": size})


def model_layers(name: str, size: int) -> list[tuple[str, str, int, int, int]]:
    """(name, kind, multiply-adds, bytes moved, peak bytes) of each layer of a model, for one image."""
    model = _ghost(name, size)
    shape = (1, 3, size, size)
    macs = layer_costs(model, shape)
    footprints = layer_footprints(model, shape)
    return [(c.name, c.kind, c.macs, f.moved, f.peak) for c, f in zip(macs, footprints, strict=True)]


def _ghost(name: str, size: int) -> nn.Module:
    """The model without storage.

    Raises:
        InvalidInput: a model of another library, whose layers have no formulas here.
    """
    with torch.device("meta"):
        model = create(name, size)
    if not tells_costs(model):
        raise InvalidInput(f"{name} has layers without formulas; they exist for {', '.join(QNA_VIT)}")
    return model


def _cost(case: str, name: str, module: nn.Module, shape: tuple[int, ...], extra: dict[str, Any]) -> Cost:
    moved = sum(f.moved for f in layer_footprints(module, shape))
    parameters = sum(p.numel() for p in module.parameters())
    return Cost(
        case, name, parameters, total_macs(module, shape), moved, peak_bytes(module, shape), extra
    )  # fmt: skip
