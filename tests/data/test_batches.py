"""Order and contents follow from (seed, epoch, position) alone."""

import itertools

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.data import Jitter, Preparation, TensorImages, TrainingOrder, evaluation_batches, training_batches

PLAIN = Preparation(8, (0.5,), (0.25,))
MOVED = Preparation(8, (0.5,), (0.25,), jitter=Jitter(rotate=10, shift=0.1, zoom=0.1, flip=True))


def numbered(count):
    """Images that show their own number."""
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, 6, 6), generator=g, dtype=torch.uint8)
    return TensorImages(pixels, torch.arange(count))


def test_an_epoch_shows_each_image_at_most_once_and_drops_less_than_a_batch():
    order = TrainingOrder(total=23, batch_size=5, seed=1)
    seen = list(itertools.chain(*order.epoch(0)))
    assert len(order) == 4
    assert len(seen) == len(set(seen)) == 20


def test_epochs_and_seeds_differ_and_repeat():
    order = TrainingOrder(total=23, batch_size=5, seed=1)
    assert order.epoch(3) == order.epoch(3)
    assert order.epoch(3) != order.epoch(4)
    assert order.epoch(3) != TrainingOrder(total=23, batch_size=5, seed=2).epoch(3)


def test_processes_share_out_the_batches():
    parts = [TrainingOrder(24, 4, seed=1, rank=rank, world=2).epoch(0) for rank in range(2)]
    together = [a + b for a, b in zip(*parts, strict=True)]
    assert together == TrainingOrder(24, 8, seed=1).epoch(0)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(
        InvalidInput, match=r"2 \(processes\) x 1 \(batches\) x 9 examples needs more than the 17"
    ):
        TrainingOrder(17, 9, seed=0, world=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_late_gives_the_same_batches(workers):
    images, order = numbered(23), TrainingOrder(23, 5, seed=1)
    whole = list(training_batches(images, MOVED, order, epoch=2))
    late = list(training_batches(images, MOVED, order, epoch=2, start=2, workers=workers))
    assert len(late) == 2
    for a, b in zip(whole[2:], late, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))


def test_an_images_movement_depends_on_epoch_and_image_not_on_its_batch():
    images = numbered(24)

    def by_index(world, epoch):
        orders = [TrainingOrder(24, 8 // world, seed=1, rank=r, world=world) for r in range(world)]
        batches = itertools.chain(*(training_batches(images, MOVED, o, epoch=epoch) for o in orders))
        return {int(i): x for b in batches for i, x in zip(b.indices, b.images, strict=True)}

    one, two, later = by_index(1, 0), by_index(2, 0), by_index(1, 1)
    assert all(torch.equal(one[i], two[i]) for i in range(24))
    assert not any(torch.equal(one[i], later[i]) for i in range(24))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_reads_every_image_once(world):
    images = numbered(23)
    batches = [b for r in range(world) for b in evaluation_batches(images, PLAIN, 5, rank=r, world=world)]
    assert sorted(int(i) for b in batches for i in b.indices) == list(range(23))
    assert all(torch.equal(b.labels, b.indices) for b in batches)


def test_examples_need_not_be_images():
    """Texts, say: what a batch is, `prepare` says."""

    def prepare(texts, indices, seed):
        return [(index, texts[index].upper(), seed) for index in indices]

    texts, order = list("abcdefg"), TrainingOrder(7, 3, seed=5)
    batches = list(training_batches(texts, prepare, order, epoch=1, workers=2))
    assert [[i for i, _, _ in batch] for batch in batches] == order.epoch(1)
    assert all(text == texts[i].upper() for batch in batches for i, text, _ in batch)
    assert len({seed for batch in batches for _, _, seed in batch}) == 1
    assert list(evaluation_batches(texts, prepare, 5))[1] == [(5, "F", 0), (6, "G", 0)]
