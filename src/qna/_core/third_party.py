"""Packages whose import needs help."""

from __future__ import annotations

import sys
from types import ModuleType

import torch

from qna._core.errors import require

# schemas that a CUDA build of torchvision expects and cannot register beside a CPU-only torch
_MISSING_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_schemas: torch.library.Library | None = None


def import_vision(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a module of torchvision or timm, also where torchvision's compiled operators do not fit torch.

    Args:
        module: dotted name.
        extra: of qna, that brings it.
        purpose: what needs it, for the error text.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return require(module, extra=extra, purpose=purpose)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    global _schemas  # noqa: PLW0603 - a library's schemas live as long as the object
    for name in [n for n in sys.modules if n.split(".")[0] in ("torchvision", "timm")]:
        del sys.modules[name]
    _schemas = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _MISSING_SCHEMAS:
        _schemas.define(schema)
    return require(module, extra=extra, purpose=purpose)
