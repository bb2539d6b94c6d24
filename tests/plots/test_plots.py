"""Each picture is a PNG of the promised subject; what it shows was looked at by a person."""

import struct

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from qna._core.outside import as_line
from qna.plots import (
    _style,
    plot_attention,
    plot_calibration,
    plot_confusion,
    plot_explanation,
    plot_learning,
    plot_robustness,
)


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


def contrast(a, b):
    """Of two colours in [0, 1], by the Web Content Accessibility Guidelines."""

    def luminance(colour):
        c = np.asarray(colour[:3], dtype=float)
        return float(
            np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    light, dark = sorted((luminance(a) + 0.05, luminance(b) + 0.05), reverse=True)
    return light / dark


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.8, 0.97, 1.0])
def test_every_number_of_a_confusion_matrix_can_be_read(tmp_path, share, drawn):
    """Weak runs have cells of dark red, strong ones of dark blue; the guidelines ask for 4.5."""
    right = round(100 * share)
    plot_confusion(tmp_path / "a.png", [[right, 100 - right], [100 - right, right]], ["a", "b"])
    (axes,) = drawn[0].axes
    assert len(axes.texts) == 2 * ((right > 0) + (right < 100))
    for text in axes.texts:
        column, row = text.get_position()
        colours = [
            i.to_rgba(i.get_array()[row, column]) for i in axes.images if i.get_array()[row, column] >= 0
        ]
        assert len(colours) == 1
        assert contrast(to_rgb(text.get_color()), colours[0]) >= 4.5


ODD = [
    "$x^2$",
    "$$",
    "a_$\\frac{",
    "[red]b[/red]",
    "_c",
    "\x1b[31md",
    "e\nf",
    "日本語",
    "한국어",
    "\udc80",
    "%s",
    "{}",
]


def test_names_are_never_math_and_letters_without_a_font_warn_nobody(tmp_path, drawn):
    n = len(ODD)
    lines = {name: [(0, 0.9), (1, 0.8)] for name in ODD}
    bins = {
        name: [{"low": 0.0, "high": 1.0, "images": 9, "confidence": 0.8, "accuracy": 0.7}] for name in ODD
    }
    image = np.linspace(0, 1, 64).reshape(1, 8, 8, 1)
    title = "".join(ODD)
    plot_confusion(tmp_path / "a.png", np.ones((n, n), int).tolist(), ODD, title=title)
    plot_learning(tmp_path / "a.png", history(2), title=title)
    plot_attention(tmp_path / "a.png", image, [("x", np.ones((1, 2, 2)))], [(title, True)], title=title)
    plot_calibration(tmp_path / "a.png", bins, dict.fromkeys(ODD, 0.1))
    plot_robustness(tmp_path / "a.png", {"noise": lines}, title=title)
    plot_explanation(
        tmp_path / "a.png", image[0], [], [], answers=[(x, 0.1) for x in ODD], title=title, notes=[title]
    )
    shown = [{t.get_text() for t in f.findobj(Text)} for f in drawn]
    assert "$x^2$" in {text for t in drawn[0].axes[0].get_xticklabels() if (text := t.get_text())}
    assert set(map(as_line, ODD)) <= shown[4]
    assert "\\x1b[31md" in shown[4]
    assert not any(t.get_parse_math() for f in drawn for t in f.findobj(Text))


def test_a_letter_without_any_font_is_a_box(tmp_path, monkeypatch):
    monkeypatch.setattr(_style, "_fonts", lambda: ["DejaVu Sans"])
    plot_learning(tmp_path / "a.png", history(2), title="日本語")


def test_a_font_without_bold_letters_warns_nobody(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(_style, "_fonts", lambda: ["DejaVu Sans", "cmr10"])
    image = np.zeros((8, 8, 1))
    plot_explanation(tmp_path / "a.png", image, [], [], answers=[("a", 0.1)], title="a", notes=[])
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_attention_on_a_blank_drawing(tmp_path):
    plot_attention(tmp_path / "a.png", np.zeros((1, 8, 8, 1)), [("x", np.ones((1, 2, 2)))], [("a", True)])


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
