"""The laboratory of QnA's up-sampling: its rule, and that the decoders differ in one layer alone."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.seeds import seeded
from qna.labs.paired import case_of, seed_and_rate
from qna.labs.qna_upsample.config import QnAUpsampleConfig
from qna.labs.qna_upsample.decoders import CLAIMED, FIXED, QNA, UPSAMPLERS, AutoEncoder
from qna.labs.qna_upsample.images import SIDE, images_of, pieces
from qna.labs.qna_upsample.training import PSNR, psnr, train_all
from qna.labs.qna_upsample.verdict import best_of, gain, made_up, verdict


def build(name, dim=16):
    with seeded(0):
        return AutoEncoder(1, dim, 4, name)


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_a_decoder_restores_the_size_and_trains_all_that_it_counts(name):
    network, images = build(name), torch.rand(2, 1, 8, 12)
    restored = network(images)
    assert restored.shape == images.shape
    restored.square().mean().backward()
    without = {n for n, p in network.named_parameters() if p.grad is None}
    held = {f"upsample.{i}.project.{part}" for i in range(2) for part in ("key", "query")}
    assert without == (held if name == FIXED else set())


def test_decoders_start_alike_in_all_else():
    states = [build(name).state_dict() for name in UPSAMPLERS]
    rest = [{k: t for k, t in state.items() if not k.startswith("upsample.")} for state in states]
    for other in rest[1:]:
        assert other.keys() == rest[0].keys()
        assert all(torch.equal(t, other[k]) for k, t in rest[0].items())


def test_without_scores_attention_is_the_same_for_every_image():
    x = torch.randn(2, 3, 4, 16)
    for name, content in ((QNA, True), (FIXED, False)):
        layer = build(name).upsample[0]
        with torch.no_grad():
            layer.project.position.table.normal_()
        first, second = layer.attention_map(x)
        assert torch.equal(first, second) != content


@pytest.mark.parametrize(
    ("name", "per_position"),
    [
        ("nearest", 16 * 16),
        ("bilinear", 16 * 16 + 4 * 16 * 4),
        ("transposed-convolution", 4 * 4 * 16 * 16),
        ("subpixel-convolution", 9 * 16 * 64),
    ],
)
def test_multiply_adds_of_the_controls(name, per_position):
    assert UPSAMPLERS[name](16).macs((2, 3, 5, 16)) == 2 * 3 * 5 * per_position


def test_psnr_by_hand():
    images = torch.zeros(2, 1, 4, 4)
    restored = images + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    assert psnr(restored, images).tolist() == pytest.approx([20.0, 40.0], abs=1e-4)


@pytest.fixture
def photographs(tmp_path):
    """Four photographs of one brightness each, the third the one to hold out, and their brightnesses."""
    image = pytest.importorskip("PIL.Image", reason="qna[models] brings it")
    grey = {"a": 10, "b": 60, "c": 110, "d": 160}
    for name, value in grey.items():
        image.new("RGB", (SIDE + 9, SIDE + 4), (value, 0, 255 - value)).save(tmp_path / f"{name}.png")
    return tmp_path


def test_pieces_to_judge_on_are_of_other_photographs(photographs):
    config = QnAUpsampleConfig(data="photographs", data_dir=photographs, images=9, held_out=4)
    train, held_out = images_of(config, 0)
    assert train.shape == (9, 3, SIDE, SIDE)
    assert train.dtype == torch.uint8
    for part, kept in ((train, [10, 60, 160] * 3), (held_out, [110] * 4)):
        expected = torch.tensor([[grey, 0, 255 - grey] for grey in kept], dtype=torch.uint8)
        assert torch.equal(part, expected[..., None, None].expand_as(part))


def test_pieces_to_train_on_follow_from_the_seed_and_are_cut_anywhere():
    height, width = SIDE + 2, SIDE + 3
    places = torch.arange(height * width).view(1, height, width)
    first, again, other = (pieces([places], 200, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    corners = first[:, 0, 0, 0]
    assert {(int(c) // width, int(c) % width) for c in corners} == {
        (r, c) for r in range(3) for c in range(4)
    }
    assert torch.equal(first - corners.view(-1, 1, 1, 1), places[None, :, :SIDE, :SIDE].expand_as(first))


def test_photographs_of_scikit_image_are_restored_in_colour():
    pytest.importorskip("skimage", reason="qna[dense] brings it")
    config = QnAUpsampleConfig(data="photographs", images=4, held_out=3, dim=8, epochs=1)
    figures = train_all(config, 0, 4e-3)
    restored = {figure.provider: figure.p50 for figure in figures if figure.metric == PSNR}
    assert set(restored) == set(UPSAMPLERS)
    assert all(0 < value < 100 for value in restored.values())
    assert {figure.extra["data"] for figure in figures} == {"photographs"}


def test_photographs_that_are_too_small_or_damaged_are_named(photographs):
    config = QnAUpsampleConfig(data="photographs", data_dir=photographs)
    (photographs / "b.png").write_bytes(b"no image")
    with pytest.raises(InvalidInput, match=r"a photograph cannot be read: b\.png: not an image"):
        images_of(config, 0)
    image = pytest.importorskip("PIL.Image")
    image.new("L", (SIDE, SIDE - 1)).save(photographs / "b.png")
    with pytest.raises(InvalidInput, match=r"must have at least 32 x 32 pixels, b\.png has 31 x 32"):
        images_of(config, 0)


def test_each_decoder_counts_at_its_better_rate():
    metrics = made_up()
    for case, contenders in metrics.items():
        if case.endswith("lr0.032"):
            contenders["bilinear"]["train psnr"] = 30.0
    best = best_of(metrics)
    assert best["bilinear"] == {0: 30.0, 1: 30.0}
    assert best[QNA] == pytest.approx({0: 24.9, 1: 25.1})
    assert gain(best, "bilinear") == pytest.approx((-5.0, 0.1))
    assert verdict(metrics).word == "not seen"


@pytest.mark.parametrize("name", CLAIMED)
def test_the_claim_needs_both(name):
    key = name.replace("-", "_")
    for above, word in ((0.25, "held"), (0.15, "direction only"), (-0.01, "not seen")):
        assert verdict(made_up(**{key: above})).word == word


def test_other_controls_are_told_and_do_not_count():
    found = verdict(made_up(subpixel_convolution=-3.0))
    assert found.word == "held"
    assert "subpixel-convolution 28.00 (+3.00, standard error 0.10)" in found.figures


def test_one_seed_or_a_missing_decoder_is_no_figure():
    metrics = made_up()
    one = {case: at for case, at in metrics.items() if "seed0" in case}
    assert verdict(one).word == "not seen"
    without = {case: {n: v for n, v in at.items() if n != CLAIMED[0]} for case, at in metrics.items()}
    assert verdict(without).word == "not seen"


def test_seeds_are_paired_also_where_some_are_missing():
    metrics = dict(made_up())
    metrics["psnr-seed5-lr0.016"] = {"bilinear": {"train psnr": 24.0}}
    assert gain(best_of(metrics), "bilinear") == pytest.approx((1.0, 0.1))


def test_cases_name_seed_and_rate():
    assert seed_and_rate(case_of(PSNR, 3, 4e-3)) == (3, 4e-3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"dim": 12}, "dim must be a multiple of 8, got 12"),
        ({"rates": (1e-3, 1e-3)}, "rates must be positive and differ"),
        ({"minutes": 0.0}, "minutes must be above 0, got 0"),
    ],
)
def test_what_cannot_be_tried_is_refused(options, says):
    with pytest.raises(InvalidInput, match=says):
        QnAUpsampleConfig(**options)
