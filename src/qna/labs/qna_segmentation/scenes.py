"""The scenes that both networks learn from, made once in the laboratory's folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from qna.data.scenes import SceneOptions, write_scenes
from qna.data.scenes.drawn import draw_sources
from qna.labs.qna_segmentation.config import QnASegmentationConfig


def scenes_in(folder: Path, config: QnASegmentationConfig) -> Path:
    """The folder of the scenes; made, whole or not at all, where it is not there."""
    root, unfinished = folder / "scenes", folder / "scenes.part"
    if not root.is_dir():
        shutil.rmtree(unfinished, ignore_errors=True)
        stamps, photos = config.stamps, config.photos
        if config.scenes == "shapes":
            stamps, photos = draw_sources(folder / "shapes")
        options = SceneOptions(config.images, config.held_out, config.size, stamps=stamps, photos=photos)
        write_scenes(unfinished, options)
        os.replace(unfinished, root)
    return root
