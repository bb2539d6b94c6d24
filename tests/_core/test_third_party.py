"""`qna doctor` tells of a torchvision that does not fit torch, and only of one."""

import importlib.util
from importlib.machinery import ModuleSpec

import pytest
import torch

from qna._core.doctor import report
from qna._core.third_party import vision_mismatch


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (None, "0.28.0+cu130", True),
        (None, "0.28.0+cpu", False),
        (None, "0.28.0", False),
        (None, None, False),
        ("13.0", "0.28.0+cu130", False),
    ],
)
def test_a_torchvision_of_another_build_is_told(tmp_path, monkeypatch, ours, theirs, told):
    if theirs is not None:
        (tmp_path / "version.py").write_text(f"__version__ = '{theirs}'\n")
    spec = ModuleSpec("torchvision", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(torch.version, "cuda", ours)
    assert (vision_mismatch() is not None) == told
    assert ("a CUDA build (cu130) and torch is for CPUs alone" in report({})) == told


def test_without_torchvision_nothing_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert vision_mismatch() is None
