"""Scenes composed of cut-out stamps on photographs, with the mask and the box of every object known."""

from qna.data.scenes.compose import Scene, SceneObject, compose
from qna.data.scenes.sources import CutOut, find_photographs, find_stamps
from qna.data.scenes.writing import SceneOptions, write_scenes

__all__ = [
    "Scene",
    "SceneObject",
    "SceneOptions",
    "CutOut",
    "compose",
    "find_photographs",
    "find_stamps",
    "write_scenes",
]
