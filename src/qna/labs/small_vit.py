"""Small vision transformers on small images: what laboratories of adapters train and look into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from qna._core.seeds import derive_seed, seeded
from qna.adapters import Adapter
from qna.labs import paired
from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig
from qna.labs.row import Metrics
from qna.models.registry import create
from qna.plots import plot_dots


@dataclass(frozen=True)
class SmallViTConfig(PairedConfig):
    """Vision transformers that are alike but for what is put around them.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        dim: channels, a multiple of 16, 16 a head.
        depth: blocks.
        patch_size: pixels per axis of a token.
    """

    data: Literal["fashion-mnist", "digits"] = "fashion-mnist"
    dim: int = 48
    depth: int = 6
    patch_size: int = 4
    epochs: int = 5
    batch: int = 50
    rates: tuple[float, ...] = (2e-3,)

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "depth", "patch_size")
        check_multiple(self, "dim", 16)


def small_vit(config: SmallViTConfig, image: tuple[int, ...], classes: int) -> nn.Module:
    """The bare network for images (C, H, W)."""
    arguments: dict[str, Any] = {
        "img_size": tuple(image[1:]), "patch_size": config.patch_size, "in_chans": image[0],
        "num_classes": classes, "embed_dim": config.dim, "depth": config.depth,
        "num_heads": config.dim // 16, "mlp_ratio": 2,
    }  # fmt: skip
    return create("vit_tiny_patch16_224", **arguments)


def adapted_vit(
    config: SmallViTConfig, image: tuple[int, ...], classes: int, adapter: Adapter | None, seed: int
) -> nn.Module:
    """The network with `adapter` in it; what networks share is drawn alike."""
    with seeded(derive_seed(seed, "weights")):
        network = small_vit(config, image, classes)
        return network if adapter is None else adapter.apply(network)


@torch.no_grad()
def look_at_attention(network: Any, images: Tensor, note: Callable[[Tensor], None]) -> None:
    """Hand the weights of each block's attention, (B, heads, N, N), to `note` while it reads images."""

    def weigh(attention: Any, given: tuple[Tensor, ...], output: Tensor) -> None:
        q, k, _ = attention.qkv(given[0]).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        note((q * attention.scale @ k.transpose(-2, -1)).softmax(-1))

    hooks = [block.attn.register_forward_hook(weigh) for block in network.blocks]
    try:
        network.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()


def draw_figures(
    path: Path,
    metrics: Metrics,
    note: str,
    *,
    names: Mapping[str, Any],
    panels: Mapping[str, str],
    title: str,
) -> None:
    """Draw a panel for each figure, a dot for each seed, to the PNG at `path` and an SVG beside it.

    Args:
        path: of the PNG.
        metrics: of one run.
        note: below the title.
        names: of the contenders.
        panels: title of a panel -> the figure, "mode metric".
        title: of the picture.
    """
    drawn = []
    for panel, figure in panels.items():
        best = paired.best_of(metrics, names, figure)
        dots = [{"name": name, "values": [*by_seed.values()]} for name, by_seed in best.items()]
        drawn.append({"title": panel, "dots": dots})
    plot_dots(path, drawn, title=title, note=note, xlabel="")
