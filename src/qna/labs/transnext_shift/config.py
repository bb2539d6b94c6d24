"""What the laboratory of aggregated attention is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class TransNeXtShiftConfig(PairedConfig):
    """Networks that learn objects in the middle of a frame, and meet them elsewhere and at other sizes.

    Windows and pooled cells have one period, so that no shift suits one network more than the other.

    Attributes:
        data: the objects; digits comes with scikit-learn.
        frame: pixels per axis of the images.
        object: pixels per axis of the object in them.
        shifts: pixels along both axes by which objects are moved, towards a corner that the image draws; of
            whole patches, as patches that cut an object otherwise are another question, the same for all.
        scales: of the whole image, object and frame, at test time; to whole patches too.
        dim: channels, a multiple of 16.
        blocks: of the networks' one stage.
        patch_size: pixels per axis of a position of the map.
        window: positions per axis of the control's windows.
        cell: positions per axis of a pooled cell.
        rates: learning rates; of each network the better one counts, by objects as they were learned.
    """

    data: Literal["fashion-mnist", "digits", "cifar10"] = "fashion-mnist"
    images: int = 640
    held_out: int = 320
    frame: int = 54
    object: int = 18
    shifts: tuple[int, ...] = (3, 6, 9, 12, 15, 18)
    scales: tuple[float, ...] = (0.5, 1.5, 2.0)
    dim: int = 32
    blocks: int = 2
    patch_size: int = 3
    window: int = 6
    cell: int = 6
    epochs: int = 10

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "object", "blocks", "patch_size", "window", "cell")
        check_multiple(self, "dim", 16)
        room = (self.frame - self.object) // 2
        if not self.shifts or not all(0 < shift <= room for shift in self.shifts):
            raise InvalidInput(
                f"objects of {self.object} pixels in the middle of {self.frame} can be moved by 1 to {room}, "
                f"got {self.shifts}"
            )
        if off := [shift for shift in self.shifts if shift % self.patch_size]:
            raise InvalidInput(f"shifts must be multiples of patch_size={self.patch_size}, got {off[0]}")
        if not self.scales or not all(0 < scale <= 8 and scale != 1 for scale in self.scales):
            raise InvalidInput(f"scales must be above 0, at most 8 and other than 1, got {self.scales}")
        sizes = {scale: round(scale * self.frame) for scale in self.scales}
        if cut := [scale for scale, size in sizes.items() if size % self.patch_size]:
            raise InvalidInput(
                f"scales must give whole patches of patch_size={self.patch_size}, got {cut[0]}, which gives "
                f"{sizes[cut[0]]} pixels of {self.frame}"
            )
