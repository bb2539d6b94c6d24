"""The rule of the verdict on made-up figures, and that what is compared is of equal size."""

from pathlib import Path

import pytest

from qna._core.errors import InvalidInput, UnknownName
from qna.labs.qna_detection import QnADetectionConfig
from qna.labs.qna_detection.training import BACKBONES, CONVOLUTIONS, QNA, UNTRAINED, train_config
from qna.labs.qna_detection.verdict import compare, made_up, verdict


@pytest.mark.parametrize(
    ("difference", "word"),
    # the standard error of +-1 over two seeds is 1, and a tenth of the control 3
    [(0.5, "held"), (-0.9, "held"), (-1.1, "direction only"), (-2.9, "direction only"), (-3.1, "not seen")],
)
def test_the_rule(difference, word):
    assert verdict(made_up(difference)).word == word


def test_what_finds_no_more_than_without_training_is_not_seen():
    assert verdict(made_up(1.0, untrained=30.5)).word == "not seen"
    assert (
        "rt-detr 31.0 with QnA and 30.0 with convolutions (difference +1.0, standard error 1.0, 2 seeds), no"
        in (verdict(made_up(1.0, untrained=30.5)).figures)
    )


def test_every_detector_decides():
    metrics = {**made_up(0.5)}
    for case in list(metrics):
        if case.startswith("detr"):
            metrics[case] = made_up(-9.0)[case]
    assert verdict(metrics).word == "not seen"
    # one that was not run does not
    only = {case: of for case, of in metrics.items() if case.startswith("rt-detr")}
    assert verdict(only).word == "held"
    assert compare(only, "detr") is None
    for contenders in only.values():
        del contenders[UNTRAINED]
    assert verdict(only).word == "not seen"


def test_the_detectors_are_of_equal_size_and_their_maps_too():
    pytest.importorskip("transformers", reason="transformers is not installed")
    from qna.train.tasks.detection import build_detector

    for detector in ("rt-detr", "detr"):
        counted, strides = [], []
        for backbone in BACKBONES:
            told = train_config(QnADetectionConfig(), detector, backbone, Path("none"), 0)
            network = build_detector(told.network, told.detection, ("a",) * 4, told.images.image_size)
            counted.append(sum(p.numel() for p in network.parameters()))
            strides.append(getattr(network.model.config, "feat_strides", None))
        assert counted[0] == pytest.approx(counted[1], rel=0.03)
        assert strides[0] == strides[1]
    assert list(BACKBONES) == [QNA, CONVOLUTIONS]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"detectors": ()}, "detectors must be one or more that differ"),
        ({"detectors": ("detr", "detr")}, "detectors must be one or more that differ"),
        ({"size": 48}, "size must be a multiple of 32, got 48"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"rate": 0.0}, "rate and minutes must be above 0"),
        ({"drawn": True, "photos": Path("x")}, "drawn scenes take neither stamps nor photos"),
    ],
)
def test_what_cannot_be_tried_is_refused(options, says):
    with pytest.raises(InvalidInput, match=says):
        QnADetectionConfig(**options)
    with pytest.raises(UnknownName, match="unknown detector 'dter'"):
        QnADetectionConfig(detectors=("dter",))
