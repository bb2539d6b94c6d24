"""The laboratory of sparse attention's time: what is timed and counted, and its rule."""

import pytest

from qna._core.errors import InvalidInput
from qna.labs.sparsifiner_cost.config import SparsifinerCostConfig
from qna.labs.sparsifiner_cost.timing import SPARSE, WHOLE, time_size
from qna.labs.sparsifiner_cost.verdict import made_up, verdict


def test_times_are_of_networks_and_of_parts():
    config = SparsifinerCostConfig(model="vit_tiny_patch16_224", seconds=0.001, layers=(1, 2))
    figures = time_size(config, 64)
    taken = {(f.case, f.provider): f.p50 for f in figures if f.metric == "time"}
    assert len(taken) == 3 + 4
    assert min(taken.values()) > 0
    macs = {f.provider: f.p50 for f in figures if f.metric == "macs"}
    # 17 tokens of 192 channels in 3 heads, 12 blocks; 64 x 64 x 3 pixels and 10 classes
    dense = 2 * 17**2 * 64
    assert macs[WHOLE] == pytest.approx((12 * (12 * 17 * 192**2 + 3 * dense) + 16 * 768 * 192 + 1920) / 1e6)
    # a predictor of a rank of 2, and 5 of 17 keys for 16 tokens
    kept = 2 * 64 * (17 + 16 * 5)
    predictor = 33 * 64 * 32 + 33 * 32 * 2 + 16 * 17 * 2
    assert macs[SPARSE] - macs[WHOLE] == pytest.approx(12 * 3 * (kept + predictor - dense) / 1e6)


def test_the_rule():
    assert verdict(made_up(time=0.95)).word == "held"
    assert verdict(made_up(time=0.96)).word == "direction only"
    assert verdict(made_up(larger=1.0)).word == "direction only"
    assert verdict(made_up(time=1.0, larger=1.0)).word == "not seen"
    one = {"network-384px": made_up()["network-384px"], "network-224px": {WHOLE: {"forward time": 1.0}}}
    assert verdict(one).word == "held"
    assert "missing" in verdict({}).figures


def test_what_cannot_be_is_said():
    for changes, says in (
        ({"sizes": ()}, "sizes and seconds must be above 0"),
        ({"keep": 1.0}, r"keep and tokens must be parts between 0 and 1, got 1\.0"),
        ({"batch": 0}, "batch must be at least 1"),
    ):
        with pytest.raises(InvalidInput, match=says):
            SparsifinerCostConfig(**changes)
