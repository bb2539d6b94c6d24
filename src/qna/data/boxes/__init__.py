"""Images with boxes around what they show: annotations in COCO's format, and how both vary together."""

from qna.data.boxes.coco import Annotations, load_coco, read_annotations
from qna.data.boxes.labelled import BoxData, BoxedFiles, Boxes
from qna.data.boxes.transforms import BoxBatch, BoxPreparation, BoxVariation

__all__ = [
    "Annotations",
    "BoxBatch",
    "BoxData",
    "BoxPreparation",
    "BoxVariation",
    "BoxedFiles",
    "Boxes",
    "load_coco",
    "read_annotations",
]
