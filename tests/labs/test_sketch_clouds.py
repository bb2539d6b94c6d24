"""Guided clouds: things, sketches, both levels of attention, diffusion by its formulas, distances by hand."""

import itertools
import math
import re
from pathlib import Path

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.labs.sketch_clouds.collection import collect
from qna.labs.sketch_clouds.config import SketchCloudsConfig
from qna.labs.sketch_clouds.diffusion import (
    chamfer,
    draw_colours,
    draw_points,
    drawn,
    earth_movers,
    scheduler,
)
from qna.labs.sketch_clouds.networks import Guide, PointDenoiser, SketchCapsules, Told
from qna.labs.sketch_clouds.sketches import DENSE, SIDE, sketch
from qna.labs.sketch_clouds.things import KINDS, VOCABULARY, Cloud, Thing, as_numbers, drawn_things
from qna.labs.sketch_clouds.training import parts_by_colour
from qna.labs.sketch_clouds.verdict import made_up, verdict

CHAIR = Thing("chair", (0.5, 0.5, 0.5), ("red", "blue", "green"))


def told(batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sketches = (torch.rand(batch, 1, SIDE, SIDE, generator=generator) > 0.9).float()
    return Told(sketches, torch.randint(len(VOCABULARY), (batch, 8), generator=generator))


def denoiser(*, placed=False, **told_sizes):
    torch.manual_seed(0)
    return PointDenoiser(16, 2, 3, SIDE, placed=placed, **told_sizes).eval()


def test_captions_name_the_kind_and_its_parts():
    assert CHAIR.caption() == ("chair", "with", "red", "seat", "blue", "back", "green", "legs")
    assert CHAIR.caption(colours=False) == ("chair",)
    numbers = as_numbers([CHAIR.caption(), ("mug",)])
    assert [VOCABULARY[i] for i in numbers[0]] == list(CHAIR.caption())
    assert [VOCABULARY[i] for i in numbers[1]] == ["mug", *[""] * 7]
    assert len(set(VOCABULARY)) == len(VOCABULARY)


def test_things_are_of_all_kinds_and_two_parts_are_never_alike():
    things = drawn_things(24, seed=1)
    assert {thing.kind for thing in things} == set(KINDS)
    assert all(len(set(thing.colours)) == len(thing.parts) for thing in things)
    assert things == drawn_things(24, seed=1) != drawn_things(24, seed=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
def test_a_thing_fits_and_its_normals_are_of_length_one(kind, sizes):
    thing = Thing(kind, sizes, ("red", "green", "blue")[: len(KINDS[kind].parts)])
    cloud = thing.sampled(2000, seed=0)
    assert cloud.points.abs().max() < 1.6
    assert cloud.parts.unique().tolist() == list(range(len(thing.parts)))
    torch.testing.assert_close(cloud.normals.norm(dim=1), torch.ones(2000))
    assert torch.equal(thing.sampled(50, seed=3).points, thing.sampled(50, seed=3).points)


def test_legs_are_below_the_seat_and_the_back_above():
    cloud = CHAIR.sampled(3000, seed=0)
    seat, back, legs = (cloud.points[cloud.parts == part, 2] for part in range(3))
    assert legs.max() < seat.max()
    assert seat.max() < back.max()
    assert torch.equal(
        CHAIR.colours_of(torch.tensor([2, 0])), torch.tensor([[0.1, 0.65, 0.2], [0.85, 0.1, 0.1]])
    )


def test_a_sketch_has_lines_at_borders_and_creases_alone():
    # a wall that faces the eye: a frame, and nothing inside it
    side = torch.linspace(-0.8, 0.8, 200)
    x, z = torch.meshgrid(side, side, indexing="ij")
    turned = 0.6
    points = torch.stack([x * math.cos(turned), -x * math.sin(turned), z], -1).reshape(-1, 3)
    normals = torch.tensor([-math.sin(turned), -math.cos(turned), 0.0]).expand_as(points)
    lines = sketch(Cloud(points, normals, torch.zeros(len(points))))[0]
    rows, columns = lines.nonzero().T
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    assert lines[top + 1 : bottom, left + 1 : right].sum() == 0
    assert lines[top, left : right + 1].all()
    assert lines[top : bottom + 1, left].all()
    # a table's top hides what is behind it, and its legs stand before the ground
    table = sketch(Thing("table", (0.5, 0.5, 0.5), ("red", "blue")).sampled(DENSE, 0))
    assert 20 < table.sum() < 250


def test_both_levels_of_attention_are_their_equations():
    torch.manual_seed(1)
    encoder = SketchCapsules(8, 3, 16).double()
    drawing = told(seed=4).sketch[:1, :, :16, :16].double()
    drawing[:, :, :4, 4:8] = 0
    features = encoder.norm(encoder.see(drawing)[0].flatten(1).T + encoder.place)
    there = [i for i in range(16) if drawing[0, 0].unfold(0, 4, 4).unfold(1, 4, 4)[i // 4, i % 4].any()]
    assert 1 not in there
    for k in range(3):
        scores = {i: math.exp((encoder.ask[k] @ features[i]).item()) for i in there}
        weights = encoder.weights(drawing)[0, k].flatten()
        for i in range(16):
            expected = scores.get(i, 0) / sum(scores.values())
            assert weights[i].item() == pytest.approx(expected, rel=1e-9)
    poses = torch.stack(
        [
            sum(
                w * encoder.value(f)
                for w, f in zip(encoder.weights(drawing)[0, k].flatten(), features, strict=True)
            )
            for k in range(3)
        ]
    )
    from qna.parts.capsules import Capsules

    activations = encoder.activation(poses).squeeze(-1).sigmoid()
    routed = encoder.routing(Capsules(poses[None, None], activations[None, None]))
    torch.testing.assert_close(encoder(drawing), (routed.activations[..., None] * routed.poses)[:, 0])


def test_a_blank_sheet_says_nothing_and_is_finite():
    encoder = SketchCapsules(8, 3, 16)
    said = encoder(torch.zeros(2, 1, 16, 16))
    assert not said.any()
    said.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_a_permutation_of_points_permutes_the_noise():
    network, order = denoiser(placed=True), torch.randperm(9)
    noisy, points = torch.randn(2, 9, 3), torch.randn(2, 9, 3)
    time = torch.tensor([3, 700])
    with torch.no_grad():
        moved = network(noisy[:, order], time, told(), points[:, order])
        torch.testing.assert_close(
            moved, network(noisy, time, told(), points)[:, order], rtol=1e-4, atol=1e-5
        )


def test_everything_that_is_told_matters():
    network, noisy = denoiser(), torch.randn(2, 9, 3)
    with torch.no_grad():
        first = network(noisy, torch.tensor([3, 3]), told())
        for other in (
            network(noisy, torch.tensor([4, 4]), told()),
            network(noisy, torch.tensor([3, 3]), Told(told(seed=1).sketch, told().words)),
            network(noisy, torch.tensor([3, 3]), Told(told().sketch, told(seed=1).words)),
        ):
            assert (other - first).abs().max() > 1e-4


def test_every_parameter_learns():
    network = denoiser(placed=True)
    network(
        torch.randn(2, 5, 3), torch.tensor([1, 2]), told(), torch.randn(2, 5, 3)
    ).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_noise_is_added_by_the_formula():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    clean, noise = torch.randn(4, 5, 3), torch.randn(4, 5, 3)
    time = torch.tensor([0, 10, 500, 999])
    noisy = scheduler().add_noise(clean, noise, time)
    for i, t in enumerate(time.tolist()):
        kept = (1 - betas)[: t + 1].prod().item()
        expected = math.sqrt(kept) * clean[i] + math.sqrt(1 - kept) * noise[i]
        torch.testing.assert_close(noisy[i], expected, rtol=1e-4, atol=1e-5)


def test_who_knows_the_noise_draws_the_thing():
    clean = torch.randn(2, 7, 3)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)

    class Knows(torch.nn.Module):
        guide = staticmethod(lambda sketch, words: torch.zeros(2, 1))

        def forward(self, noisy, time, guide, points=None):
            kept = (1 - betas)[: int(time[0]) + 1].prod()
            return ((noisy - kept.sqrt() * clean) / (1 - kept).sqrt()).float()

    # at the first of 20 steps the thing is 0.006 of what is seen, so fp32 leaves about 1e-5 of it unknown
    torch.testing.assert_close(drawn(Knows(), told(), 7, few=20, seed=0), clean, rtol=0, atol=1e-4)


def test_colours_never_move_a_point():
    network, points = denoiser(placed=True), torch.randn(2, 6, 3)
    before = points.clone()
    colours = draw_colours(network, told(), points, 3, seed=0)
    assert torch.equal(points, before)
    assert colours.shape == points.shape
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert torch.equal(colours, draw_colours(network, told(), points, 3, seed=0))
    # painted again by other words
    assert not torch.equal(
        colours, draw_colours(network, Told(told().sketch, told(seed=2).words), points, 3, 0)
    )


def test_distances_by_hand():
    a = torch.tensor([[[0.0, 0, 0], [3, 0, 0]]])
    b = torch.tensor([[[0.0, 4, 0], [3, 0, 1]]])
    # a's nearest: sqrt(10) and 1; b's: 4 and 1
    assert chamfer(a, b).item() == pytest.approx((math.sqrt(10) + 1) / 2 + (4 + 1) / 2)
    assert earth_movers(a, b).item() == pytest.approx((4 + 1) / 2)
    x, y = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    for i in range(2):
        best = min(
            (x[i] - y[i, list(order)]).norm(dim=1).mean().item() for order in itertools.permutations(range(5))
        )
        assert earth_movers(x, y)[i].item() == pytest.approx(best, rel=1e-5)
    assert earth_movers(x, x).abs().max() < 1e-3


def test_parts_are_told_by_colour():
    colours = CHAIR.colours_of(torch.tensor([0, 1, 2, 2])) + 0.1
    assert parts_by_colour(colours[None], [CHAIR]).tolist() == [[0, 1, 2, 2]]


def test_a_collection_is_what_its_things_are():
    found = collect(4, 20, 0, "some")
    for i, thing in enumerate(found.things):
        assert torch.equal(found.colours[i], thing.colours_of(found.parts[i]))
        assert [VOCABULARY[w] for w in found.captions[i] if w] == list(thing.caption())
    assert found.told(slice(2), colours=False).words[:, 1:].sum() == 0
    assert found.sketches.shape == (4, 1, SIDE, SIDE)


def test_a_point_that_moved_is_no_verdict():
    metrics = {case: {n: dict(f) for n, f in of.items()} for case, of in made_up().items()}
    metrics["colour-seed1"]["own words"]["none points-moved"] = 1e-9
    assert verdict(metrics).word == "not seen"


@pytest.mark.parametrize(
    "build",
    [
        lambda: SketchCapsules(8, 3, 18),
        lambda: SketchCapsules(8, 3, 16)(torch.zeros(1, 1, 12, 16)),
        lambda: Guide(9, 3, 16),
        lambda: denoiser()(torch.zeros(1, 2, 3), torch.zeros(1), told(1), torch.zeros(1, 2, 3)),
        lambda: denoiser(placed=True)(torch.zeros(1, 2, 3), torch.zeros(1), told(1)),
        lambda: SketchCloudsConfig(judged=10),
        lambda: SketchCloudsConfig(dim=12),
        lambda: SketchCloudsConfig(few=0),
    ],
)
def test_bad_input(build):
    with pytest.raises(InvalidInput):
        build()


def test_the_example_of_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "sketch-clouds.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    found = {}
    exec(code, found)
    assert torch.equal(found["points"], found["before"])
    assert draw_points is found["draw_points"]
