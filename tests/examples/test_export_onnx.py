"""The example, on a network of one block."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

for package in ("onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="qna[export] brings it")

SMALL = {"dim": 16, "window_blocks": (0,), "qna_blocks": (1,), "window_sizes": (4,)}


@pytest.mark.slow
def test_it_answers_for_images_of_any_size(tmp_path, monkeypatch, capsys):
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples/export_onnx.py"))
    example["export"](tmp_path / "model.onnx", **SMALL)
    assert "ONNX, opset" in capsys.readouterr().out
    # what runs the file needs neither
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "qna", None)
    pixels = np.random.default_rng(0).random((2, 3, 21, 34), np.float32)
    both = example["classify"](tmp_path / "model.onnx", pixels)
    assert set(both) <= {"cat", "dog", "bird"}
    assert both == [example["classify"](tmp_path / "model.onnx", one[None])[0] for one in pixels]
