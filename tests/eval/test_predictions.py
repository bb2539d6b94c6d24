import pytest
import torch
from PIL import Image
from torch import nn

from qna.eval import Classifier, ImageView, find_images, predict


class Corner(nn.Module):
    """The logits are the first pixels of the first row; remembers its batches."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x):
        self.batches.append(x)
        return 10 * x[:, 0, 0, :3]


@pytest.fixture
def classifier():
    return Classifier("corner", Corner(), ("red", "green", "blue"), ImageView(8, (0.0,), (1.0,)))


@pytest.fixture
def files(tmp_path):
    """Five pictures, light at column 0, 1, 2, 0, 1; one file that is cut short; one that is no picture."""
    (tmp_path / "b").mkdir()
    paths = [tmp_path / name for name in ("a.png", "b/c.png", "b/d.PNG", "e.png", "f.png")]
    for number, path in enumerate(paths):
        image = Image.new("L", (8, 8))
        image.putpixel((number % 3, 0), 255)
        image.save(path)
    (tmp_path / "broken.png").write_bytes(paths[0].read_bytes()[:45])
    (tmp_path / "notes.txt").write_text("nothing to see")
    return tmp_path


def test_one_row_per_image_in_order_whatever_the_batches(classifier, files):
    rows = list(predict(classifier, find_images([str(files)]), top_k=2, batch_size=2))
    names = [row.path.removeprefix(str(files) + "/") for row in rows]
    assert names == ["a.png", "broken.png", "e.png", "f.png", "b/c.png", "b/d.PNG"]
    assert [row.guesses[0].label if row.guesses else None for row in rows] == [
        "red", None, "red", "green", "green", "blue",
    ]  # fmt: skip
    assert rows[1].error == "image file is truncated"
    # softmax of (10, 0, 0)
    first, second = rows[0].guesses
    assert first.probability == pytest.approx(1 / (1 + 2 * torch.tensor(-10.0).exp().item()), rel=1e-6)
    assert second.probability < 1e-4
    # the one that cannot be read leaves its batch smaller
    assert [len(batch) for batch in classifier.network.batches] == [1, 2, 2]


def test_only_one_batch_is_read_ahead(classifier, files):
    asked = []

    def entries():
        for entry in find_images([str(files / "a.png")] * 100):
            asked.append(entry)
            yield entry

    rows = predict(classifier, entries(), batch_size=4)
    for number in (1, 2, 3, 4):
        next(rows)
        assert len(asked) == 4, number
    next(rows)
    assert len(asked) == 8


def test_what_is_not_there_is_told_in_its_row(classifier, files):
    (files / "empty").mkdir()
    places = [str(files / name) for name in ("none.png", "empty", "notes.txt", "a.png")]
    missing, empty, text, good = predict(classifier, find_images(places))
    assert "No such file" in missing.error
    assert empty.error.startswith("a folder without images (.bmp, ")
    assert text.error == "not an image, or cut short"
    assert good.error is None
    assert len(good.guesses) == 3


def test_colour_networks_get_colour(files):
    seen = Corner()
    classifier = Classifier("c", seen, ("r", "g", "b"), ImageView(8, (0.0,) * 3, (1.0,) * 3))
    (row,) = predict(classifier, find_images([str(files / "a.png")]))
    assert row.guesses[0].label == "r"
    assert seen.batches[0].shape == (1, 3, 8, 8)
