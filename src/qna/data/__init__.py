"""Data sets of labelled images, by name, and the batches that training and evaluation read from them."""

from qna.data.batches import Batch, TrainingOrder, evaluation_batches, training_batches
from qna.data.catalog import DATA, DataSpec, load_data
from qna.data.images import ImageData, TensorImages
from qna.data.transforms import Jitter, Preparation

__all__ = [
    "DATA",
    "DataSpec",
    "load_data",
    "ImageData",
    "TensorImages",
    "Jitter",
    "Preparation",
    "Batch",
    "TrainingOrder",
    "training_batches",
    "evaluation_batches",
]
