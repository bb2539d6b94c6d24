"""What the laboratory of QnA's up-sampling is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig

PHOTOGRAPHS = "photographs"


@dataclass(frozen=True)
class QnAUpsampleConfig(PairedConfig):
    """Auto-encoders that differ in how their decoders up-sample.

    Attributes:
        data: what they restore; digits comes with scikit-learn, photographs, of which pieces are cut, with
            scikit-image.
        data_dir: where the files of the data are, or a folder of photographs; None for the usual places.
        images: training images, drawn by the seed; all where there are fewer.
        held_out: images that PSNR is measured on, of the data's own or of other photographs.
        dim: channels of the maps, a multiple of 8.
        code: channels of the smallest map, a quarter of the image's height and width.
    """

    data: Literal["fashion-mnist", "digits", "cifar10", "photographs"] = "fashion-mnist"
    images: int = 2400
    held_out: int = 500
    dim: int = 24
    code: int = 4
    rates: tuple[float, ...] = (1.6e-2, 3.2e-2)
    minutes: float = 25.0

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "code")
        check_multiple(self, "dim", 8)
