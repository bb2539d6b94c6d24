"""The laboratory of image sizes: its rule, and that its networks begin as one function."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.data.images.labelled import TensorImages
from qna.labs.vsa_size.config import VSASizeConfig
from qna.labs.vsa_size.networks import FIXED, NETWORKS, SHIFTED, VARIED, build
from qna.labs.vsa_size.training import resized
from qna.labs.vsa_size.verdict import TOP1, at_size, made_up, sizes_of, verdict

CONFIG = VSASizeConfig()


def mixers(network):
    return [type(b.mixer).__name__ for stage in network.stages for b in stage if hasattr(b, "mixer")]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (VARIED, ["VariedSizeWindowAttention2d"] * 4),
        (FIXED, ["WindowAttention2d"] * 4),
        (SHIFTED, ["WindowAttention2d", "ShiftedWindowAttention2d"] * 2),
    ],
)
def test_where_windows_lie(name, wanted):
    assert mixers(build(name, CONFIG, size=16, channels=1, seed=0)) == wanted


@pytest.mark.parametrize("size", CONFIG.sizes)
@torch.no_grad()
def test_networks_begin_as_one_function_and_learn_different_ones(size):
    networks = {n: build(n, CONFIG, size=size, channels=1, seed=3).double().eval() for n in NETWORKS}
    x = torch.randn(2, 1, size, size, dtype=torch.float64)
    logits = {name: network(x) for name, network in networks.items()}
    assert (logits[VARIED] - logits[FIXED]).abs().max() < 1e-12
    assert (logits[SHIFTED] - logits[FIXED]).abs().max() > 1e-4
    networks[VARIED].stages[0][0].mixer.scales.bias.fill_(0.5)
    assert (networks[VARIED](x) - logits[FIXED]).abs().max() > 1e-4


def test_sizes_change_the_images_alone():
    images = TensorImages(torch.randint(0, 255, (3, 1, 28, 28), dtype=torch.uint8), torch.tensor([0, 1, 2]))
    larger = resized(images, 48)
    assert larger.pixels.shape == (3, 1, 48, 48)
    assert larger.pixels.dtype == torch.uint8
    assert torch.equal(larger.labels, images.labels)
    means = [i.pixels.double().mean() for i in (images, larger)]
    assert abs(means[0] - means[1]) < 2


@pytest.mark.parametrize(
    ("figures", "word"),
    [
        ({}, "held"),
        # above one standard error, not above two
        ({"noise": 1.8}, "direction only"),
        ({"noise": 4.0}, "not seen"),
        ({"small": 3.0}, "not seen"),
        # grows, and never gains
        ({"small": -3.0, "large": -1.0}, "not seen"),
    ],
)
def test_the_rule(figures, word):
    assert verdict(made_up(**figures)).word == word


def test_each_network_counts_at_its_better_rate():
    metrics = dict(made_up())
    for case, contenders in metrics.items():
        if case.endswith("lr0.01"):
            contenders[FIXED] = {TOP1: 95.0}
    assert sizes_of(metrics) == [16, 48]
    assert at_size(metrics, 48)[FIXED] == {0: 95.0, 1: 95.0}
    assert verdict(metrics).word == "not seen"


def test_one_seed_or_one_size_is_no_figure():
    for part in ("seed0", "pixels16"):
        assert verdict({case: at for case, at in made_up().items() if part in case}).word == "not seen"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"dim": 12}, "dim must be a multiple of 8, got 12"),
        ({"sizes": (16, 40)}, r"sizes must be multiples of 16, .* got \(16, 40\)"),
        ({"sizes": (32, 16)}, r"sizes must grow, two or more, got \(32, 16\)"),
        ({"sizes": (16,)}, "sizes must grow, two or more"),
        ({"rates": (-1.0,)}, "rates must be positive and differ"),
        ({"minutes": 0.0}, "minutes must be above 0, got 0"),
    ],
)
def test_what_cannot_be_tried_is_refused(options, says):
    with pytest.raises(InvalidInput, match=says):
        VSASizeConfig(**options)
