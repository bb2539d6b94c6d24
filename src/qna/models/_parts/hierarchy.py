"""What every hierarchical network here is: a stem, stages of blocks, a head; timm's contract for models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qna._core.checks import natural, per_axis
from qna._core.errors import InvalidInput, check_choice
from qna.models._parts.decay import exempt_names
from qna.models._parts.head import ClassifierHead
from qna.models._parts.recompute import recomputed
from qna.models._parts.scripting import NotScripted


class Stage(nn.Sequential):
    """The blocks of one stage, (B, H, W, C) -> (B, H', W', C'); checkpointed one by one where asked to."""

    grad_checkpointing = False

    def forward(self, input: Tensor) -> Tensor:
        """Through one block after the other."""
        x = input
        for block in self:
            x = recomputed(block, x) if self.grad_checkpointing and torch.is_grad_enabled() else block(x)
        return x


class Hierarchy(NotScripted, nn.Module):
    """A stem, stages and a classification head, under timm's contract; a family makes the parts.

    Images (B, in_chans, H, W) of any height and width; every stage takes a map (B, H, W, C) and rounds up
    where it halves.

    Args:
        stem: (B, in_chans, H, W) -> (B, H', W', C), with the attribute `reduction`.
        stages: blocks of every stage, in order.
        dims: channels of each stage's map.
        strides: positions per axis, of the map before, of each position of a stage's map.
        norm: of the last stage's map.
        pool_heads: heads of a pooling with learned queries.
        in_chans: channels of the image.
        num_classes: number of logits; 0 for none.
        global_pool: "avg" (or "gap"), "qnav1", "qnav2" (pooling with learned queries), or "" for none.
        img_size: nominal size, from which the tables of the pooling with learned queries take theirs.
        drop_rate: dropout before the classifier.
    """

    output_fmt = "NHWC"
    # a family may pool otherwise
    head_type: ClassVar[type[ClassifierHead]] = ClassifierHead
    stages: nn.Sequential

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Stage],
        *,
        dims: Sequence[int],
        strides: Sequence[int],
        norm: nn.Module,
        pool_heads: int,
        in_chans: int,
        num_classes: int,
        global_pool: str,
        img_size: int | Sequence[int],
        drop_rate: float,
    ):
        super().__init__()
        natural(type(self).__name__, num_classes=num_classes)
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.global_pool = global_pool
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        reduction: Any = stem.reduction
        map_size = [-(-size // reduction) for size in per_axis("img_size", img_size, 2, minimum=1)]
        self.feature_info: list[dict[str, Any]] = []
        # nominal maps after each stage, for a head that follows it
        self._map_sizes: list[tuple[int, ...]] = []
        for i, (dim, stride) in enumerate(zip(dims, strides, strict=True)):
            reduction *= stride
            map_size = [-(-size // stride) for size in map_size]
            self.feature_info.append({"num_chs": dim, "reduction": reduction, "module": f"stages.{i}"})
            self._map_sizes.append(tuple(map_size))
        self.num_features = self.head_hidden_size = dims[-1]
        self.norm = norm
        self.head = self.head_type(
            dims[-1],
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
        count = max(taken) + 1 if stop_early else len(self.stages)
        maps, size = [], x.shape[2:]
        for i, stage_map in enumerate(self.stage_maps(self.stem(x), count)):
            x = stage_map
            last = i == len(self.stages) - 1
            if i in taken:
                y = self.stage_map(self.norm(x) if norm and last else x, size)
                maps.append(y.permute(0, 3, 1, 2).contiguous() if output_fmt == "NCHW" else y)
        if intermediates_only:
            return maps
        return self.norm(x) if count == len(self.stages) else x, maps

    def stage_maps(self, x: Tensor, count: int) -> Iterable[Tensor]:
        """The maps after each of the first `count` stages, of what the stem makes of an image."""
        for stage in list(self.stages)[:count]:
            x = stage(x)
            yield x

    def stage_map(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """The map (B, H', W', C) in what a stage gives for images of `size` = (H, W): that itself."""
        return x

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
        natural(type(self).__name__, num_classes=num_classes)
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
        """Names that the authors' training exempts from decay, as the mixers tell: tables of position bias.

        Of QnA's also the query weights. All else decays there, also biases and the scales of norms.
        """
        return exempt_names(self)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters into layers, for layer-wise learning rates."""
        blocks = r"^stages\.(\d+)" if coarse else [(r"^stages\.(\d+)\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^stem", "blocks": blocks}

    def save_pretrained(self, folder: Path | str, **about: Any) -> None:
        """Write the model with its configuration to a new folder: `qna.models.save_pretrained`."""
        from qna.models.sharing import save_pretrained

        save_pretrained(self, folder, **about)

    @classmethod
    def from_pretrained(cls, folder: Path | str, **arguments: Any) -> Hierarchy:
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
