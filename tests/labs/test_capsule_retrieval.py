"""Capsule retrieval: pairs are what they say, searching is counted right, networks share a routing."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.data.images.labelled import TensorImages
from qna.labs.capsule_retrieval.config import CapsuleRetrievalConfig
from qna.labs.capsule_retrieval.networks import ATTENTION, DYNAMIC, EM, NONE, TwoModalities
from qna.labs.capsule_retrieval.pairs import CAPTION_COUNT, CLASSES, Pairs, draw, found_by, words_of
from qna.labs.capsule_retrieval.training import measure_cost, search
from qna.labs.capsule_retrieval.verdict import made_up, verdict

# every image of a class has its label as its value
LABELS = torch.arange(10).repeat(3)
IMAGES = TensorImages((20 * LABELS).to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8), LABELS)


def generator():
    return torch.Generator().manual_seed(0)


def test_captions_are_two_garments_and_how_they_stand():
    words = words_of(torch.arange(CAPTION_COUNT))
    assert len(words.unique(dim=0)) == CAPTION_COUNT == 200
    assert words_of(torch.tensor([3 * 20 + 10 + 7])).tolist() == [[3, CLASSES + 1, 7]]


def test_an_image_shows_what_its_caption_says():
    pairs = draw("captions", IMAGES, 60, generator())
    assert pairs.names.unique().numel() == 60
    for image, (first, relation, second) in zip(pairs.a, pairs.b.tolist(), strict=True):
        values = {label: 20 * label / 127.5 - 1 for label in (first, second)}
        halves = (image[..., :4], image[..., 4:]) if relation == CLASSES else (image[:, :4], image[:, 4:])
        for half, label in zip(halves, (first, second), strict=True):
            own = (half - values[label]).abs() < 1e-5
            # 16 pixels of the garment, which for label 0 look like the ground
            assert own.sum() == 16 if label else own.all()
            assert (half[~own] == -1).all()


def test_halves_belong_together():
    pairs = draw("halves", IMAGES, 7, generator())
    assert pairs.a.shape == pairs.b.shape == (7, 1, 8, 4)
    assert torch.equal(pairs.a[..., :1], pairs.b[..., :1])
    assert pairs.names.unique().numel() == 7


def test_recall_counts_names_in_both_directions():
    scores = torch.tensor([[3.0, 2.0], [4.0, 2.5]])
    names = torch.tensor([0, 1])
    # rows find 0 and 0; columns find 1 and 1: one of two is right each way
    assert found_by(scores, names, names) == {"recall-1": 50, "recall-5": 100}
    # with one name any of its examples is right
    assert found_by(scores, torch.tensor([0, 0]), torch.tensor([0, 1]))["recall-1"] == 75


def test_a_perfect_network_finds_every_caption():
    class Told(torch.nn.Module):
        see = read = staticmethod(lambda x: x)

        def a(self, x):
            return torch.nn.functional.one_hot(x, CAPTION_COUNT).float()

        def b(self, words):
            names = words[:, 0] * 20 + (words[:, 1] - CLASSES) * 10 + words[:, 2]
            return torch.nn.functional.one_hot(names, CAPTION_COUNT).float()

    names = torch.tensor([5, 9, 9, 111])
    assert search(Told(), "captions", Pairs(names, words_of(names), names)) == {
        "recall-1": 100,
        "recall-5": 100,
    }


@pytest.mark.parametrize("task", ["halves", "captions"])
@pytest.mark.parametrize("routing", [ATTENTION, DYNAMIC, EM, NONE])
def test_modalities_share_their_routing(task, routing):
    config = CapsuleRetrievalConfig(dim=4, out_dim=6)
    network = TwoModalities(task, routing, 3, 8, config)
    assert network.a.routing is network.b.routing
    pairs = draw(task, IMAGES, 5, generator())
    a, b = network(pairs.a, pairs.b)
    assert a.shape == b.shape == (5, 6)
    (a.square().sum() + b.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad)


def test_costs_are_of_the_same_capsules():
    config = CapsuleRetrievalConfig(dim=4, cost_batch=2, seconds=0.001)
    figures = {(f.provider, f.metric): f.p50 for f in measure_cost(config, 3)}
    assert figures[DYNAMIC, "macs"] == 3 * 3 * 4 * (4 + 5) / 1e6
    assert all(figures[name, metric] >= 0 for name in (ATTENTION, EM) for metric in ("time", "memory"))


def test_a_tie_with_no_routing_is_not_better():
    metrics = {case: dict(contenders) for case, contenders in made_up(halves=49.5).items()}
    assert verdict(metrics).word == "direction only"
    assert verdict(made_up(halves=49.0, captions=49.0)).word == "not seen"


@pytest.mark.parametrize(
    "told", [{"batch": 201}, {"judged": 1}, {"counts": (4, 2)}, {"temperature": 0.0}, {"steps": 0}]
)
def test_bad_input(told):
    with pytest.raises(InvalidInput):
        CapsuleRetrievalConfig(**told)
