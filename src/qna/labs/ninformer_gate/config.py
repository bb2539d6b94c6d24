"""What the laboratory of gating by a token mixer is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class NiNformerGateConfig(PairedConfig):
    """A NiNformer, an MLP-Mixer and a vision transformer that have as many parameters.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        dim: channels of all three, a multiple of 16, 16 a head.
        hidden: hidden positions and channels of NiNformer's MLPs; those of the others follow from its
            parameters.
        depth: blocks of NiNformer, each of which has one of an MLP-Mixer inside.
        control_depth: blocks of the others.
        patch_size: pixels per axis of a position.
    """

    data: Literal["fashion-mnist", "digits"] = "fashion-mnist"
    images: int = 5000
    dim: int = 48
    hidden: int = 96
    depth: int = 3
    control_depth: int = 5
    patch_size: int = 4
    batch: int = 50
    rates: tuple[float, ...] = (1e-3, 3e-3)

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "hidden", "depth", "control_depth", "patch_size")
        check_multiple(self, "dim", 16)
