"""RT-DETR of transformers, which refuses padding instead of reading it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from qna._core.errors import InvalidInput, require

transformers = require("transformers", extra="dense", purpose="qna.models.detectors")
losses = require("transformers.loss.loss_rt_detr", extra="dense", purpose="qna.models.detectors")


class RTDetr(transformers.RTDetrForObjectDetection):
    """transformers' ``RTDetrForObjectDetection`` (Zhao et al., CVPR 2024), under the same names of weights.

    Its encoder has no masks, so that padding would be read as image: the authors bring every image to one
    square, and what is padded is refused here. A batch without boxes trains all parameters, with zeros for
    those that only boxes reach, as processes that train together need it; the loss is computed in fp32.
    """

    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        labels: list[dict[str, Tensor]] | None = None,
        **options: Any,
    ) -> Any:
        """As transformers'.

        Raises:
            InvalidInput: `pixel_mask` tells of padding.
        """
        if pixel_mask is not None and not pixel_mask.all():
            raise InvalidInput(
                f"RT-DETR reads padding as image, and {int((pixel_mask == 0).sum())} pixels of the batch are "
                "padding: resize all images to one size, or take DETR"
            )
        output = super().forward(pixel_values, labels=labels, **options)
        denoising = getattr(self.model, "denoising_class_embed", None)
        if labels is not None and denoising is not None and not any(len(t["boxes"]) for t in labels):
            output.loss = output.loss + 0 * denoising.weight.sum()
        return output

    @property
    def loss_function(self) -> Any:
        """What transformers calls with outputs and labels."""
        return _in_fp32


def _in_fp32(
    logits: Tensor, labels: Any, device: Any, pred_boxes: Tensor, config: Any, *outputs: Any, **more: Any
):
    """transformers' loss; the solver of its matching knows no half precision."""
    given = [_float(value) for value in outputs]
    more = {name: _float(value) for name, value in more.items()}
    return losses.RTDetrForObjectDetectionLoss(
        logits.float(), labels, device, pred_boxes.float(), config, *given, **more
    )


def _float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
