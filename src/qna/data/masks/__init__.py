"""Images with a class for every pixel: masks in files, folders of them, and how both vary together."""

from qna.data.masks.folder import load_masked_folder
from qna.data.masks.labelled import MaskData, MaskedFiles
from qna.data.masks.palette import colours, save_mask
from qna.data.masks.transforms import MaskBatch, MaskPreparation, MaskVariation, framed

__all__ = [
    "MaskBatch",
    "MaskData",
    "MaskPreparation",
    "MaskVariation",
    "MaskedFiles",
    "colours",
    "framed",
    "load_masked_folder",
    "save_mask",
]
