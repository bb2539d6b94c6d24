"""What training, evaluation and drawing call: any detector, with one form of batches and of answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna.models._parts.decay import exempt_names

# logits (queries, ...) of one image -> scores, labels and query of every candidate
Score = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


class Found(NamedTuple):
    """What a detector says of a batch.

    Attributes:
        logits: (B, queries, classes), with one more class, "no object", where the detector has it.
        boxes: (B, queries, 4): centre, width and height as parts of each image.
        loss: None where no targets were given.
    """

    logits: Tensor
    boxes: Tensor
    loss: Tensor | None


class DetectedBoxes(NamedTuple):
    """Boxes in one image, the surest first.

    Attributes:
        scores: (n,), in [0, 1].
        labels: (n,), positions among the classes.
        boxes: (n, 4): left, top, right, bottom, in pixels.
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor


class Detector(nn.Module):
    """A detector of transformers as it is trained: (images, mask, targets) -> `Found`.

    Args:
        model: of transformers, called with pixel_values, pixel_mask and labels.
        score: of its logits.
        classifiers: names of its layers that end in the classes.

    Attributes:
        model: the same; ``model.save_pretrained(folder)`` writes what transformers reads.
    """

    def __init__(self, model: Any, score: Score, classifiers: Sequence[str] = ()):
        super().__init__()
        self.model = model
        self.score = score
        # timm's word for it: what starts anew where weights are of other classes
        self.default_cfg = {"classifier": tuple(f"model.{name}" for name in classifiers)}

    def forward(
        self, images: Tensor, mask: Tensor | None = None, targets: Sequence[dict[str, Tensor]] | None = None
    ) -> Found:
        """Look for objects.

        Args:
            images: (B, C, H, W), each beginning in the upper left corner.
            mask: (B, H, W), True on each image; None where all fill it.
            targets: per image "class_labels" (n,) and "boxes" (n, 4) as in `Found`, for the loss.
        """
        found = self.model(pixel_values=images, pixel_mask=mask, labels=targets)
        return Found(found.logits, found.pred_boxes, found.loss)

    def detections(self, found: Found, sizes: Sequence[tuple[int, int]]) -> list[DetectedBoxes]:
        """The boxes of each image: the function `detections`, with this detector's scores."""
        return detections(found, sizes, self.score)

    def no_weight_decay(self) -> set[str]:
        """Names that the backbone exempts from decay."""
        return exempt_names(self)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only what blocks begin with for the backward pass, in the backbone and in DETR.

        RT-DETR's own layers keep all, for transformers offers no such thing for them.

        Raises:
            InvalidInput: the backbone offers no such thing.
        """
        # libraries wrap the backbone to give maps, and their wrappers need not hand this on
        networks = (m for m in self.model.model.backbone.modules() if hasattr(m, "set_grad_checkpointing"))
        if (network := next(networks, None)) is None:
            raise InvalidInput("the detector's backbone has no gradient checkpointing")
        network.set_grad_checkpointing(enable)
        if self.model.supports_gradient_checkpointing:
            model = self.model
            (model.activation_checkpointing_enable if enable else model.activation_checkpointing_disable)()


@torch.no_grad()
def detections(found: Found, sizes: Sequence[tuple[int, int]], score: Score) -> list[DetectedBoxes]:
    """The boxes of each image, clipped to it, the surest first.

    Args:
        found: of a batch.
        sizes: height and width of each image, in the pixels that the boxes are wanted in.
        score: of the detector.
    """
    answers = []
    for logits, boxes, (height, width) in zip(found.logits.float(), found.boxes.float(), sizes, strict=True):
        scores, labels, queries = score(logits)
        order = scores.argsort(descending=True, stable=True)
        centre, extent = boxes[queries[order]].split(2, -1)
        corners = torch.cat([centre - extent / 2, centre + extent / 2], -1).clamp(0, 1)
        scale = corners.new_tensor([width, height, width, height])
        answers.append(DetectedBoxes(scores[order], labels[order], corners * scale))
    return answers


def softmax_scores(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """DETR's candidates: every query with its best class; the last class is "no object"."""
    scores, labels = logits.softmax(-1)[:, :-1].max(-1)
    return scores, labels, torch.arange(len(logits), device=logits.device)


def sigmoid_scores(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """RT-DETR's candidates: of all pairs of query and class the best, as many as there are queries."""
    queries, classes = logits.shape
    scores, pairs = logits.sigmoid().flatten().topk(queries)
    return scores, pairs % classes, pairs // classes
