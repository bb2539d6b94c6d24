import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna.data import ImageData, TensorImages
from qna.eval import CLEAN, Classifier, Condition, ImageView, judge
from qna.eval.tables import class_rows, score_rows


class Brightness(nn.Module):
    """Two logits: how dark and how bright the image is; remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        mean = x.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


def light_and_dark(count=11):
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    pixels = torch.randint(0, 100, (count, 1, 16, 16), generator=g, dtype=torch.uint8)
    pixels[labels == 1] += 120
    images = TensorImages(pixels, labels)
    return ImageData("lights", ("dark", "bright"), images, images, (0.4,), (0.3,), "drawn by a test")


def classifier(name="a", mean=0.4, **options):
    view = ImageView(16, (mean,), (0.3,))
    return Classifier(name, Brightness(), ("dark", "bright"), view, **options)


def test_every_image_counts_once_under_every_condition():
    told = []
    judgement = judge(
        classifier(), light_and_dark(), corruptions=["noise", "brightness"], severities=[1, 5],
        batch_size=4, told=told.append,
    )  # fmt: skip
    assert list(judgement.results) == [
        CLEAN, *(Condition(name, severity) for name in ("noise", "brightness") for severity in (1, 5)),
    ]  # fmt: skip
    assert {r.scores.images for r in judgement.results.values()} == {11}
    assert told == [4, 4, 3]
    assert judgement.clean.scores.top1 == 1.0
    # + 0.5 makes every dark image bright: the 5 bright ones of 11 stay right
    brightest = judgement.results[Condition("brightness", 5)].scores
    assert brightest.confusion == ((0, 6), (0, 5))
    tops = [r.scores.top1 for c, r in judgement.results.items() if c != CLEAN]
    assert judgement.corrupted_top1 == pytest.approx(sum(tops) / 4)
    assert judgement.speed.batch == 4
    assert judgement.speed.passes >= 5


def test_networks_with_other_statistics_see_the_same_corrupted_pixels():
    first, second = classifier(mean=0.4), classifier(mean=0.7)
    for one in (first, second):
        judge(one, light_and_dark(), corruptions=["noise"], severities=[3], batch_size=11)
    clean_a, noisy_a, *_ = first.network.seen
    clean_b, noisy_b, *_ = second.network.seen
    # three roundings of numbers below 4, divided by 0.3
    for a, b in ((clean_a, clean_b), (noisy_a, noisy_b)):
        torch.testing.assert_close(a * 0.3 + 0.4, b * 0.3 + 0.7, rtol=0, atol=1e-6)
    assert not torch.allclose(clean_a, noisy_a, atol=0.1)


def test_rows_of_tables():
    judgement = judge(classifier(), light_and_dark(), corruptions=["brightness"], severities=[5])
    clean, bright = score_rows([judgement])
    assert (clean["corruption"], clean["severity"], clean["level"], clean["top1"]) == ("none", 0, None, 1.0)
    assert (bright["corruption"], bright["severity"], bright["level"]) == ("brightness", 5, 0.5)
    assert bright["top1"] == pytest.approx(5 / 11)
    dark, light = class_rows(judgement)
    assert (dark["class"], dark["images"], dark["recall"], dark["most_often_taken_for"]) == (
        "dark",
        6,
        1.0,
        None,
    )
    assert (light["images"], light["precision"]) == (5, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("a", "b", "c")}, "a tells 3 classes apart, but lights has 2"),
        ({"view": ImageView(16, (0.4,) * 3, (0.3,) * 3)}, "a reads images of 3 channels, but lights has 1"),
        (
            {"classes": ("bright", "dark"), "data": "other"},
            "a learned 'bright' as class 0, which lights calls 'dark'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    import dataclasses

    with pytest.raises(InvalidInput, match=message):
        judge(dataclasses.replace(classifier(), **change), light_and_dark())
