"""A hierarchical backbone: a stem, stages of blocks, a head. It holds any mixer and asks none what it is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qna._core.checks import natural, per_axis, positive
from qna._core.errors import InvalidInput, check_choice
from qna.models._parts.block import NORM_EPS, BlockSpec, MixerBlock
from qna.models._parts.decay import exempt_names
from qna.models._parts.head import ClassifierHead
from qna.models._parts.scripting import NotScripted
from qna.models._parts.shortcut import SHORTCUTS
from qna.models._parts.stem import STEMS
from qna.parts.protocols import Fuses


class Stage(nn.Sequential):
    """The blocks of one stage, (B, H, W, C) -> (B, H', W', C'); checkpointed one by one where asked to."""

    grad_checkpointing = False

    def forward(self, input: Tensor) -> Tensor:
        """Through one block after the other."""
        x = input
        for block in self:
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


class Backbone(NotScripted, nn.Module):
    """A hierarchical vision transformer of mixer blocks; timm's contract for models.

    Images (B, in_chans, H, W) of any height and width. Nothing is cropped: the patch stem makes
    ceil(H / patch) x ceil(W / patch) tokens, each later stage halves them, rounding up. An image of 33 x 47
    becomes maps of 9 x 12, 5 x 6, 3 x 3 and 2 x 2.

    Args:
        stages: blocks of every stage, in order; blocks of different mixers stand side by side.
        dim: channels of the first stage.
        pool_heads: heads of the pooling with learned queries.
        stem: "patch", or "resnet" (which always reduces by 4).
        patch_size: pixels per axis of a patch.
        shortcut: skip path of strided blocks, "conv1x1" or "avgpool".
        in_chans: channels of the image.
        num_classes: number of logits; 0 for none.
        global_pool: "avg" (or "gap"), "qnav1", "qnav2" (pooling with learned queries), or "" for none.
        img_size: nominal size, from which the tables of the pooling with learned queries take theirs.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0 over all blocks.
    """

    output_fmt = "NHWC"
    stages: nn.Sequential

    def __init__(
        self,
        stages: Sequence[Sequence[BlockSpec]],
        *,
        dim: int,
        pool_heads: int,
        stem: str = "patch",
        patch_size: int = 4,
        shortcut: str = "conv1x1",
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        img_size: int | Sequence[int] = 224,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        check_choice("stem", stem, STEMS)
        natural(type(self).__name__, num_classes=num_classes)
        positive(type(self).__name__, dim=dim, in_chans=in_chans, patch_size=patch_size)
        check_choice("shortcut", shortcut, SHORTCUTS)
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.global_pool = global_pool
        self.stem = STEMS[stem](in_chans, dim, patch_size)
        map_size = [-(-size // self.stem.reduction) for size in per_axis("img_size", img_size, 2, minimum=1)]
        reduction = self.stem.reduction
        steps = max(1, sum(map(len, stages)) - 1)
        rates = (drop_path_rate * i / steps for i in count())

        self.stages = nn.Sequential()
        self.feature_info: list[dict[str, Any]] = []
        # nominal maps after each stage, for a head that follows it
        self._map_sizes: list[tuple[int, ...]] = []
        for i, specs in enumerate(stages):
            blocks = Stage()
            for spec in specs:
                block = MixerBlock.of(dim, spec, shortcut=shortcut, drop_path=next(rates))
                blocks.append(block)
                dim = block.out_dim
                reduction *= spec.stride
                map_size = [-(-size // spec.stride) for size in map_size]
            self.stages.append(blocks)
            self.feature_info.append({"num_chs": dim, "reduction": reduction, "module": f"stages.{i}"})
            self._map_sizes.append(tuple(map_size))

        self.num_features = self.head_hidden_size = dim
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.head = ClassifierHead(
            dim,
            num_classes,
            global_pool=global_pool,
            num_heads=pool_heads,
            map_size=self._map_sizes[-1],
            drop_rate=drop_rate,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> the normalised map of the last stage, (B, H', W', C)."""
        return self.norm(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The map of `forward_features` -> logits, or pooled features (B, C) where `pre_logits`."""
        return self.head(x, pre_logits=pre_logits)

    def forward_intermediates(  # noqa: PLR0917 - the order is timm's
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The maps after chosen stages.

        Args:
            x: (B, in_chans, H, W).
            indices: stages to take, negative from the end; an integer for the last so many, None for all.
            norm: apply the final norm to the last stage's map, the only one that it fits.
            stop_early: do not run stages after the last one taken.
            output_fmt: "NCHW" or "NHWC".
            intermediates_only: return the list alone.

        Returns:
            the list of maps, or (what `forward_features` returns, the list). Where `stop_early` left stages
            out, the first is the last map computed, not normalised.
        """
        check_choice("output_fmt", output_fmt, ("NCHW", "NHWC"))
        taken = self.stage_indices(indices)
        stages = list(self.stages)[: max(taken) + 1] if stop_early else list(self.stages)
        x, maps = self.stem(x), []
        for i, stage in enumerate(stages):
            x = stage(x)
            last = i == len(self.stages) - 1
            if i in taken:
                y = self.norm(x) if norm and last else x
                maps.append(y.permute(0, 3, 1, 2).contiguous() if output_fmt == "NCHW" else y)
        if intermediates_only:
            return maps
        return self.norm(x) if len(stages) == len(self.stages) else x, maps

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what `forward_intermediates` does not need for these `indices`, which are returned.

        Without later stages the norm and the head, which are theirs, go too; `reset_classifier` brings a head
        for the stage that is then the last.
        """
        taken = self.stage_indices(indices)
        last = max(taken)
        cut = last + 1 < len(self.stages)
        del self.stages[last + 1 :]
        if prune_norm or cut:
            self.norm = nn.Identity()
        if prune_head or cut:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
            self.head.follow(self.num_features, self._map_sizes[last])
            self.reset_classifier(0, "")
        return taken

    def get_classifier(self) -> nn.Module:
        """The linear layer before the logits."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new linear layer for `num_classes`, and a new pooling if one is named."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = global_pool
        at = next(self.parameters())
        self.head.reset(num_classes, global_pool)
        self.head.to(device=at.device, dtype=at.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the blocks' inputs for the backward pass, which computes the rest again."""
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    def no_weight_decay(self) -> set[str]:
        """Names that the paper's training exempts from decay: position bias and query weights.

        All else decays there, also queries, biases and the scales of norms.
        """
        return exempt_names(self)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters into layers, for layer-wise learning rates."""
        blocks = r"^stages\.(\d+)" if coarse else [(r"^stages\.(\d+)\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^stem", "blocks": blocks}

    def fuse(self):
        """Fold the queries of every mixer that can into its projections, for inference; in place."""
        for module in list(self.modules()):
            if isinstance(module, Fuses) and module is not self:
                module.fuse()
        return self

    def save_pretrained(self, folder: Path | str, **about: Any) -> None:
        """Write the model with its configuration to a new folder: `qna.models.save_pretrained`."""
        from qna.models.sharing import save_pretrained

        save_pretrained(self, folder, **about)

    @classmethod
    def from_pretrained(cls, folder: Path | str, **arguments: Any) -> Backbone:
        """Make the model in `folder` again: `qna.models.from_pretrained`, for models of this class."""
        from qna.models.sharing import from_pretrained

        model = from_pretrained(folder, **arguments)
        if not isinstance(model, cls):
            raise InvalidInput(f"{folder} holds a {type(model).__name__}, not a {cls.__name__}")
        return model

    def stage_indices(self, indices: int | Sequence[int] | None) -> list[int]:
        """Numbers of the stages that `indices` mean: some, negative from the end; so many last ones; all.

        Raises:
            InvalidInput: if they are no stages, or none.
        """
        n = len(self.stages)
        if indices is None:
            return list(range(n))
        if isinstance(indices, int):
            indices = range(n - indices, n)
        taken = [i + n if i < 0 else i for i in indices]
        if not taken or not all(0 <= i < n for i in taken):
            raise InvalidInput(
                f"{type(self).__name__}: indices must name some of {n} stages, got {list(indices)}"
            )
        return taken
