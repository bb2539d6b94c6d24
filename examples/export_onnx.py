"""A network as an ONNX file, and its answer from onnxruntime alone.

    python examples/export_onnx.py model.onnx

An untrained network stands for one of yours; `qna export runs/digits --to model.onnx` writes such a file of a
run.
"""

import json
import sys
from pathlib import Path

import numpy as np


def export(path: Path, **arguments: object) -> None:
    """Write a network with what it takes to show it an image and to read its answer."""
    from qna.export import IMAGES, export_onnx
    from qna.models import create

    network = create("qna_vit_nano_16", num_classes=3, **arguments).eval()
    told = {"classes": ["cat", "dog", "bird"], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    metadata = {name: json.dumps(value) for name, value in told.items()}
    print(export_onnx(network, path, IMAGES, inputs=["images"], outputs=["logits"], metadata=metadata))


def classify(path: Path, pixels: np.ndarray) -> list[str]:
    """Classes of images (batch, 3, height, width) in [0, 1], of any size; neither qna nor torch is needed."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    told = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    mean, std = (np.array(told[name], np.float32).reshape(3, 1, 1) for name in ("mean", "std"))
    (logits,) = session.run(["logits"], {"images": (pixels - mean) / std})
    return [told["classes"][i] for i in logits.argmax(1)]


if __name__ == "__main__":
    file = Path(sys.argv[1] if len(sys.argv) > 1 else "model.onnx")
    export(file)
    print(classify(file, np.random.default_rng(0).random((2, 3, 48, 80), np.float32)))
