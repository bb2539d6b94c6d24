"""qna: local attention at the price of a convolution.

Public names are resolved on first use, so that ``import qna`` costs nothing and needs torch alone.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# public name -> module that defines it
_HOME = {
    "learned_query_attention": "qna.ops",
    "use_backend": "qna.ops",
    "QnA1d": "qna.mixers",
    "QnA2d": "qna.mixers",
    "QnA3d": "qna.mixers",
    "QnAPool2d": "qna.mixers",
    "QnAUpsample1d": "qna.mixers",
    "QnAUpsample2d": "qna.mixers",
    "QnAUpsample3d": "qna.mixers",
    "WindowAttention2d": "qna.mixers",
    "create_mixer": "qna.mixers",
    "tiled": "qna.tiling",
}
_SUBMODULES = ("ops", "mixers", "models", "tiling")

if TYPE_CHECKING:
    from qna import mixers, models, ops, tiling
    from qna.mixers import (
        QnA1d,
        QnA2d,
        QnA3d,
        QnAPool2d,
        QnAUpsample1d,
        QnAUpsample2d,
        QnAUpsample3d,
        WindowAttention2d,
        create_mixer,
    )
    from qna.ops import learned_query_attention, use_backend
    from qna.tiling import tiled

__all__ = [
    "learned_query_attention",
    "use_backend",
    "QnA1d",
    "QnA2d",
    "QnA3d",
    "QnAPool2d",
    "QnAUpsample1d",
    "QnAUpsample2d",
    "QnAUpsample3d",
    "WindowAttention2d",
    "create_mixer",
    "tiled",
    "mixers",
    "models",
    "ops",
    "tiling",
]


def __getattr__(name: str):
    if name in _SUBMODULES:
        return importlib.import_module(f"qna.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'qna' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
