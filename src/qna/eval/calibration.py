"""How far a network's confidence is from its accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import torch

BINS = 15


@dataclass(frozen=True)
class ConfidenceBin:
    """Images whose highest probability lies in (low, high].

    Attributes:
        low: lower edge, itself outside.
        high: upper edge.
        images: how many.
        confidence: mean of their highest probabilities; 0 without images.
        accuracy: part of them whose prediction is right; 0 without images.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


class Calibration:
    """Confidence against accuracy, in bins of equal width.

    An image's confidence is its highest softmax probability. The expected calibration error (Guo et al., "On
    Calibration of Modern Neural Networks", ICML 2017, equation 3) is the mean over all images of
    ``|accuracy - confidence|`` of the bin that holds them: ``sum_b n_b / n * |accuracy_b - confidence_b|``
    with 15 bins ``((b - 1) / 15, b / 15]``, b = 1 .. 15.

    Args:
        bins: how many bins.
    """

    def __init__(self, bins: int = BINS):
        self._edges = torch.arange(1, bins, dtype=torch.float64) / bins
        # per bin: images, sum of confidences, images that are right
        self.sums = torch.zeros(bins, 3, dtype=torch.float64)

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch: logits (B, classes), labels (B,)."""
        confidence, predicted = logits.float().cpu().double().softmax(1).max(1)
        # the upper edge belongs to the bin
        place = torch.bucketize(confidence, self._edges)
        right = (predicted == labels.cpu()).double()
        self.sums.index_add_(0, place, torch.stack([torch.ones_like(right), confidence, right], 1))

    @property
    def error(self) -> float:
        """The expected calibration error of everything counted so far, in [0, 1]; 0 without images."""
        gap = (self.sums[:, 2] - self.sums[:, 1]).abs().sum()
        return float(gap / self.sums[:, 0].sum().clamp_min(1))

    def bins(self) -> tuple[ConfidenceBin, ...]:
        """The bins, lowest confidence first."""
        edges = [0.0, *self._edges.tolist(), 1.0]
        found = []
        for low, high, (images, confidence, right) in zip(edges, edges[1:], self.sums.tolist(), strict=False):
            count = max(images, 1)
            found.append(ConfidenceBin(low, high, int(images), confidence / count, right / count))
        return tuple(found)
