import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qna.data import Batch, Preparation, TensorImages, evaluation_batches
from qna.eval import Tally, evaluate


class Pixels(nn.Module):
    """Reads the logits off the image; counts the calls and remembers its mode."""

    def __init__(self):
        super().__init__()
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return x.flatten(1)


def judged(count=23, classes=9, batch_size=5, world=1):
    g = torch.Generator().manual_seed(0)
    images = TensorImages(
        torch.randint(0, 256, (count, 1, 3, 3), generator=g, dtype=torch.uint8),
        torch.randint(0, classes, (count,), generator=g),
    )
    view, network = Preparation(3, (0.0,), (1.0,)), Pixels()
    parts = []
    for rank in range(world):
        batches = evaluation_batches(images, view, batch_size, rank=rank, world=world)
        parts.append(evaluate(network, batches, classes))
    return parts, images, network


def test_scores_with_a_ragged_last_batch_are_those_of_the_whole():
    (scores,), images, _ = judged()
    logits = images.pixels.flatten(1).float() / 255
    right = logits.argmax(1) == images.labels
    assert scores.images == 23
    assert scores.right == int(right.sum()) > 0
    assert scores.top1 == pytest.approx(float(right.double().mean()))
    assert scores.loss == pytest.approx(float(F.cross_entropy(logits, images.labels)), rel=1e-6)
    ranks = (logits > logits.gather(1, images.labels[:, None])).sum(1)
    assert scores.top5 == pytest.approx(float((ranks < 5).double().mean()))
    assert [sum(row) for row in scores.confusion] == images.labels.bincount(minlength=9).tolist()


def test_batch_size_changes_nothing():
    (a,), _, _ = judged(batch_size=5)
    (b,), _, _ = judged(batch_size=23)
    assert a.confusion == b.confusion
    assert a.loss == pytest.approx(b.loss, rel=1e-12)


def test_parts_of_several_processes_add_up():
    parts, _, _ = judged(world=3)
    (whole,), _, _ = judged()
    assert sum(p.images for p in parts) == 23
    tally = Tally(9)
    tally.confusion = sum(torch.tensor(p.confusion) for p in parts)
    tally.sums = sum(torch.tensor([p.loss, p.top5], dtype=torch.float64) * p.images for p in parts)
    assert tally.scores().confusion == whole.confusion
    assert tally.scores().loss == pytest.approx(whole.loss, rel=1e-12)


def test_evaluation_mode_is_on_and_then_as_before():
    _, _, network = judged()
    assert not any(network.modes)
    assert network.training


def test_two_classes_have_a_top5():
    tally = Tally(2)
    tally.add(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    scores = tally.scores()
    assert (scores.top1, scores.top5) == (0.0, 1.0)


def test_a_batch_without_images_is_passed_over():
    network, nothing = (
        Pixels(),
        Batch(torch.empty(0, 1, 3, 3), torch.empty(0).long(), torch.empty(0).long(), ["x"]),
    )
    assert evaluate(network, [nothing], 9).images == 0
    assert not network.modes
