"""Packages whose import needs help."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import torch

from qna._core.errors import require

# schemas that a CUDA build of torchvision expects and cannot register beside a CPU-only torch
_MISSING_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_schemas: torch.library.Library | None = None


def vision_mismatch() -> str | None:
    """Why `import timm` or `import torchvision` alone would fail here, with the way out; None where it works.

    A torchvision that was built for CUDA cannot register its operators beside a CPU-only torch.
    """
    found = importlib.util.find_spec("torchvision")
    if torch.version.cuda is not None or found is None or found.origin is None:
        return None
    told = Path(found.origin).with_name("version.py")
    text = told.read_text(encoding="utf-8") if told.is_file() else ""
    built = re.search(r"^__version__\s*=\s*['\"].*\+(cu\d+)", text, re.MULTILINE)
    if built is None:
        return None
    return (
        f"torchvision is a CUDA build ({built[1]}) and torch is for CPUs alone, so `import timm` fails "
        "before `import qna.models`: import qna.models first, or install torchvision's CPU build"
    )


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
