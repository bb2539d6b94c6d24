import numpy as np
import pytest
from PIL import Image


def put(root, name, classes, *, size=None, mode="P", suffix="png"):
    """An image whose red says its class, and its mask."""
    classes = np.asarray(classes, dtype=np.uint8)
    height, width = classes.shape if size is None else size
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 0] = 40 * np.resize(classes, (height, width)) if size else 40 * classes
    for kind in ("images", "masks"):
        (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / "images" / f"{name}.{suffix}")
    if mode == "P":
        mask = Image.frombytes("P", classes.shape[::-1], classes.tobytes())
        mask.putpalette([0, 0, 0, 250, 0, 0, 0, 250, 0] + [9] * 759)
    else:
        mask = Image.fromarray(classes).convert(mode)
    mask.save(root / "masks" / f"{name}.png")


@pytest.fixture
def folder(tmp_path):
    """Three images to train on and two held out, of classes 0 to 2 and pixels to be ignored."""
    blocks = np.array([[0, 1], [2, 255]]).repeat(4, 0).repeat(6, 1)
    for name in ("a", "b", "deep/c"):
        put(tmp_path / "train", name, blocks)
    for name in ("x", "y"):
        put(tmp_path / "val", name, blocks[:, ::-1], mode="L")
    (tmp_path / "classes.txt").write_text("sky\nsea\nland\n")
    return tmp_path
