"""Each picture is a PNG of the promised subject; what it shows was looked at by a person."""

import struct

import numpy as np
import pytest

from qna.plots import plot_attention, plot_confusion, plot_learning


def size_of(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


def history(epochs, top1=0.9):
    return [
        {"epoch": e + 1, "train_loss": 2 / (e + 1), "loss": 2 / (e + 1.5), "top1": top1}
        for e in range(epochs)
    ]


@pytest.mark.parametrize(("epochs", "top1"), [(1, 0.5), (30, 0.9), (3, 1.0)])
def test_learning(tmp_path, epochs, top1):
    plot_learning(tmp_path / "a.png", history(epochs, top1), title="t")
    assert size_of(tmp_path / "a.png") == (1170, 468)


@pytest.mark.parametrize("classes", [2, 10, 40])
def test_confusion(tmp_path, classes):
    counts = np.diag(np.full(classes, 30))
    counts[0, 1] = 3
    plot_confusion(tmp_path / "a.png", counts.tolist(), [str(i) for i in range(classes)], title="t")
    width, height = size_of(tmp_path / "a.png")
    assert width > 300
    assert height > 300


@pytest.mark.parametrize("channels", [1, 3])
def test_attention(tmp_path, channels):
    rng = np.random.default_rng(0)
    images = rng.random((3, 8, 12, channels))
    maps = [("a", rng.random((3, 4, 6)) + 0.5), ("b", np.ones((3, 2, 3)))]
    plot_attention(tmp_path / "a.png", images, maps, [("x", True), ("y", False), ("z", True)], title="t")
    assert size_of(tmp_path / "a.png")[0] > 300


def test_a_picture_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"before")
    with pytest.raises(KeyError):
        plot_learning(path, [{"epoch": 1}])
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
