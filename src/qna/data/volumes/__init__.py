"""Volumes with a class for every voxel: NIfTI in and out, data sets, and patches that seeds draw."""

from qna.data.volumes.folder import load_volume_folder, named_volumes
from qna.data.volumes.labelled import Labelled, Patches, VolumeData, Volumes, VolumesInMemory, standardised
from qna.data.volumes.lesions import Lesions, compose, load_lesions
from qna.data.volumes.nifti import (
    SUFFIXES,
    Grid,
    UnreadableVolume,
    Volume,
    read_labels,
    read_volume,
    write_labels,
)
from qna.data.volumes.patches import PatchPreparation, VolumeBatch, whole
from qna.data.volumes.template import load_mni152, read_template

__all__ = [
    "SUFFIXES",
    "Grid",
    "Labelled",
    "Lesions",
    "PatchPreparation",
    "Patches",
    "UnreadableVolume",
    "Volume",
    "VolumeBatch",
    "VolumeData",
    "Volumes",
    "VolumesInMemory",
    "compose",
    "load_lesions",
    "load_mni152",
    "load_volume_folder",
    "named_volumes",
    "read_labels",
    "read_template",
    "read_volume",
    "standardised",
    "whole",
    "write_labels",
]
