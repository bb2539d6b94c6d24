"""DETR of transformers, with each image of a padded batch read at its own size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qna._core.errors import InvalidInput, require

transformers = require("transformers", extra="dense", purpose="qna.models.detectors")
detr = require("transformers.models.detr.modeling_detr", extra="dense", purpose="qna.models.detectors")
losses = require("transformers.loss.loss_for_object_detection", extra="dense", purpose="qna.models.detectors")


class OwnSizeEncoder(detr.DetrConvEncoder):
    """transformers' encoder of pixels, which lets the backbone see no padding.

    A backbone that reads a padded image sees more than the image: where a window or a kernel leaves the image
    it meets made-up pixels instead of the border, a mean over the map counts them, and padding that depends
    on the size ("SAME") shifts the grid of patches. Masks inside the backbone could mend the first two for
    layers that take masks, and not the third. So images of one size are cut out and read together, each size
    in a call of its own: exact for every backbone, and nothing is computed on padding.
    """

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Maps of all levels with their masks, padded to the largest of the batch.

        Args:
            pixel_values: (B, C, H, W); what lies outside an image is not read.
            pixel_mask: (B, H, W), not 0 on each image, which begins in the upper left corner.
        """
        members: dict[tuple[int, int], list[int]] = {}
        for index, size in enumerate(image_sizes(pixel_mask)):
            members.setdefault(size, []).append(index)
        parts = []
        for (height, width), chosen in members.items():
            images, masks = pixel_values[chosen, :, :height, :width], pixel_mask[chosen, :height, :width]
            parts.append((chosen, super().forward(images, masks)))
        if len(parts) == 1:
            return parts[0][1]
        of_levels = zip(*(maps for _, maps in parts), strict=True)
        return [_joined([chosen for chosen, _ in parts], maps) for maps in of_levels]


def image_sizes(pixel_mask: Tensor) -> list[tuple[int, int]]:
    """Height and width of every image in a mask (B, H, W).

    Raises:
        InvalidInput: a mask is not a rectangle that begins in the upper left corner.
    """
    mask = pixel_mask != 0
    numbers = torch.stack([mask[:, :, 0].sum(1), mask[:, 0].sum(1), mask.sum((1, 2))], 1).tolist()
    for index, (height, width, covered) in enumerate(numbers):
        if not covered or covered != height * width or not mask[index, :height, :width].all():
            raise InvalidInput(
                "pixel_mask must be 1 on a rectangle from the upper left corner and 0 elsewhere, but that of "
                f"image {index} covers {covered} pixels, {height} in the first column and {width} in the "
                "first row"
            )
    return [(height, width) for height, width, _ in numbers]


def _joined(chosen: Sequence[Sequence[int]], parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One level of the whole batch, of images in groups: maps with zeros behind them, and masks."""
    batch = sum(map(len, chosen))
    height, width = (max(maps.shape[axis] for maps, _ in parts) for axis in (2, 3))
    first = parts[0][0]
    whole = first.new_zeros(batch, first.shape[1], height, width)
    mask = torch.zeros(batch, height, width, dtype=torch.bool, device=first.device)
    for members, (maps, _) in zip(chosen, parts, strict=True):
        whole[members, :, : maps.shape[2], : maps.shape[3]] = maps
        mask[members, : maps.shape[2], : maps.shape[3]] = True
    return whole, mask


class Detr(transformers.DetrForObjectDetection):
    """transformers' ``DetrForObjectDetection`` (Carion et al., ECCV 2020), under the same names of weights.

    Two things differ. An image's features and boxes depend neither on its padding nor on the images beside
    it, see `OwnSizeEncoder`. And the loss of a batch is normalised by its own number of boxes: transformers
    divides by a mean over processes that it divides once more by their number, and a process without a batch
    at the end of an evaluation would let the others wait for it.
    """

    def __init__(self, config: Any):
        super().__init__(config)
        # of the same parts: only how they are called differs
        self.model.backbone.__class__ = OwnSizeEncoder

    @property
    def loss_function(self) -> Any:
        """What transformers calls with outputs and labels."""
        return set_loss


def set_loss(
    logits: Tensor,
    labels: Sequence[dict[str, Tensor]],
    device: Any,
    pred_boxes: Tensor,
    config: Any,
    *of_layers: Tensor | None,
    **_: Any,
) -> tuple[Tensor, dict[str, Tensor], list[dict[str, Tensor]] | None]:
    """DETR's loss: after the best matching, cross entropy, L1 and generalised IoU, of every decoder layer.

    Args:
        logits: (B, queries, classes + 1) of the last layer, the last one for "no object".
        labels: per image "class_labels" (n,) and "boxes" (n, 4): centre, width and height, as parts of the
            image.
        device: where to compute.
        pred_boxes: (B, queries, 4) of the last layer.
        config: transformers' configuration of the detector.
        of_layers: logits (layers, B, queries, classes + 1) and boxes of all layers, or twice None.

    Returns:
        the loss, its parts by name, and the outputs of the layers before the last.
    """
    matcher = losses.HungarianMatcher(config.class_cost, config.bbox_cost, config.giou_cost)
    criterion = losses.ImageLoss(matcher, config.num_labels, config.eos_coefficient, ["labels", "boxes"])
    criterion.to(device)
    weights = {
        "loss_ce": 1,
        "loss_bbox": config.bbox_loss_coefficient,
        "loss_giou": config.giou_loss_coefficient,
    }
    layers, earlier = [{"logits": logits, "pred_boxes": pred_boxes}], None
    if given := [outputs[:-1] for outputs in of_layers if outputs is not None]:
        before_last = zip(*given, strict=True)
        earlier = [{"logits": of_class, "pred_boxes": boxes} for of_class, boxes in before_last]
        layers += earlier
    # the solver of the matching knows no half precision
    layers = [{name: value.float() for name, value in layer.items()} for layer in layers]
    boxes = max(1, sum(len(target["boxes"]) for target in labels))
    parts: dict[str, Tensor] = dict.fromkeys(weights, logits.new_zeros((), dtype=torch.float32))
    for layer in layers:
        matched = matcher(layer, labels)
        for name in criterion.losses:
            for part, value in criterion.get_loss(name, layer, labels, matched, boxes).items():
                parts[part] = parts[part] + weights[part] * value
    return torch.stack(list(parts.values())).sum(), parts, earlier
