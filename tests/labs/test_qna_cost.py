"""The rule of the verdict on made-up figures, and that what is compared is of equal cost."""

from pathlib import Path

import pytest

from qna._core.errors import InvalidInput
from qna.bench.subjects.accuracy import macs
from qna.labs.qna_cost import QnACostConfig
from qna.labs.qna_cost.layers import OVERLAPPING, PLAIN, QNA, TILES
from qna.labs.qna_cost.training import NETWORKS, train_config
from qna.labs.qna_cost.verdict import compare_accuracy, gains, made_up, verdict
from qna.train.tasks.classification import build_classifier


@pytest.mark.parametrize(
    ("memory", "time", "accuracy", "plain", "word"),
    [
        (10.1, 5.1, 0.0, 1.1, "held"),
        (9.9, 5.1, 0.0, 1.1, "direction only"),
        (10.1, 4.9, 0.0, 1.1, "direction only"),
        # the compiled kernel alone is no gain of the method
        (10.1, 5.1, 0.0, 0.9, "direction only"),
        # the standard error of +-0.1 over two seeds is 0.1
        (10.1, 5.1, -0.09, 1.1, "held"),
        (10.1, 5.1, -0.15, 1.1, "direction only"),
        (10.1, 5.1, -0.25, 1.1, "not seen"),
        (0.9, 5.1, 1.0, 1.1, "not seen"),
        (10.1, 0.9, 1.0, 1.1, "not seen"),
    ],
)
def test_the_rule(memory, time, accuracy, plain, word):
    assert verdict(made_up(memory, time, accuracy, plain=plain)).word == word


def test_a_gain_that_does_not_grow_with_the_window_is_not_the_claim():
    metrics = dict(made_up(12.0, 6.0, 1.0))
    metrics["layer-k3"], metrics["layer-k13"] = metrics["layer-k13"], metrics["layer-k3"]
    assert verdict(metrics).word == "not seen"
    assert verdict({case: of for case, of in metrics.items() if case != "layer-k3"}).word == "not seen"


def test_the_cheaper_control_and_the_worse_mode_count():
    metrics = made_up(12.0, 6.0, 0.0)
    at = metrics["layer-k13"]
    assert gains(metrics, QNA, OVERLAPPING, 13) == pytest.approx((12.0, 6.0))
    at[OVERLAPPING[1]]["forward memory"] /= 4  # it took twice as much, now half
    assert gains(metrics, QNA, OVERLAPPING, 13) == pytest.approx((6.0, 6.0))
    at[QNA]["forward+backward time"] *= 3
    assert gains(metrics, QNA, OVERLAPPING, 13) == pytest.approx((6.0, 2.0))
    # one that has no room for its windows leaves the other; without both there is no ratio
    del at[OVERLAPPING[1]]
    assert gains(metrics, QNA, OVERLAPPING, 13) == pytest.approx((12.0, 2.0))
    del at[OVERLAPPING[0]]
    assert gains(metrics, QNA, OVERLAPPING, 13) is None
    assert verdict(metrics).word == "not seen"


def test_memory_below_a_page_cannot_be_seen():
    metrics = made_up(12.0, 6.0, 0.0)
    for mode in ("forward", "forward+backward"):
        metrics["layer-k13"][QNA][f"{mode} memory"] = 0.0
    assert gains(metrics, QNA, OVERLAPPING, 13)[0] == pytest.approx(100 * 256)


def test_each_network_counts_at_its_better_rate():
    metrics = made_up(12.0, 6.0, 0.5)
    for case in metrics:
        if case.endswith("lr0.016"):
            metrics[case]["window-attention"]["train top1"] = 95.0
    found = compare_accuracy(metrics)
    assert (found.ours, found.control, found.seeds) == (pytest.approx(90.5), 95.0, 2)
    assert found.error == pytest.approx(0.1)
    assert verdict(metrics).word == "not seen"


def test_the_sentence_names_what_decided():
    metrics = dict(made_up(12.0, 6.0, 0.5))
    metrics["layer-k13"] = {**metrics["layer-k13"], TILES: metrics["layer-k13"][PLAIN]}
    assert verdict(metrics).figures == (
        "At 13x13 the cheaper overlapping control takes 12 times the memory and 6 times the time of QnA's "
        "layer, at 3x3 6 and 3 times; of QnA in plain torch 2 and 2 times; windows that tile the map take 6 "
        "and 3 times of QnA's layer; at equal cost 90.50 % right against 90.00 % (difference +0.50, standard "
        "error 0.10, 2 seeds)."
    )


def test_the_networks_cost_the_same_and_qna_not_more():
    counted = []
    for name in NETWORKS:
        options = train_config(QnACostConfig(), name, Path("none"), 0, 8e-3).network
        network = build_classifier(options, classes=10, channels=1, image_size=16)
        counted.append((sum(p.numel() for p in network.parameters()), macs(network, (1, 1, 16, 16))))
    (ours, ours_macs), (control, control_macs) = counted
    assert 0.99 * control < ours <= control
    assert 0.93 * control_macs < ours_macs <= control_macs


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"windows": (3, 4)}, "windows must be odd and ascending"),
        ({"windows": (7, 3)}, "windows must be odd and ascending"),
        ({"side": 11}, "side must be a multiple of 4, 5, 6, 7 or 8, got 11"),
        ({"dim": 48}, "dim must be a multiple of 32, got 48"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"rates": (1e-3, 1e-3)}, "rates must be positive and differ"),
        ({"minutes": 0.0}, "seconds and minutes must be above 0"),
    ],
)
def test_what_cannot_be_tried_is_refused(options, says):
    with pytest.raises(InvalidInput, match=says):
        QnACostConfig(**options)
