"""Data sets, by name, and the batches that training and evaluation read from them."""

from qna.data.batches import TrainingOrder, evaluation_batches, training_batches
from qna.data.images.catalog import DATA, DataSpec, load_data
from qna.data.images.decoding import UnreadableImage
from qna.data.images.labelled import FileImages, ImageData, Images, TensorImages
from qna.data.images.transforms import LARGEST_SIDE, Batch, Jitter, Photo, Preparation

__all__ = [
    "DATA",
    "LARGEST_SIDE",
    "DataSpec",
    "load_data",
    "ImageData",
    "Images",
    "TensorImages",
    "FileImages",
    "UnreadableImage",
    "Jitter",
    "Photo",
    "Preparation",
    "Batch",
    "TrainingOrder",
    "training_batches",
    "evaluation_batches",
]
