import pytest
import torch

from qna.eval import Calibration


def logits_of(probabilities):
    """Logits of two classes whose first has these probabilities."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p, 1 - p], 1).log()


def test_a_hand_worked_example():
    """Confidences .95 .92 (one right), .65 .62 (both right), .52 (wrong), in 10 bins.

    Bin (.9, 1]: 2 images, accuracy .5, confidence .935, gap .435; bin (.6, .7]: 2, 1, .635, .365;
    bin (.5, .6]: 1, 0, .52, .52. ECE = (2 * .435 + 2 * .365 + .52) / 5 = .424.
    """
    calibration = Calibration(bins=10)
    labels = torch.tensor([0, 1, 0, 0, 1])
    calibration.add(logits_of([0.95, 0.92, 0.65, 0.62, 0.52]), labels)
    # logits are read in single precision
    assert calibration.error == pytest.approx(0.424, abs=1e-6)
    found = {round(b.low, 1): b for b in calibration.bins() if b.images}
    assert sorted(found) == [0.5, 0.6, 0.9]
    assert (found[0.9].images, found[0.9].accuracy) == (2, 0.5)
    assert found[0.9].confidence == pytest.approx(0.935, abs=1e-6)


def test_batches_add_up():
    g = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 4, generator=g), torch.randint(0, 4, (50,), generator=g)
    whole, parts = Calibration(), Calibration()
    whole.add(logits, labels)
    for start in range(0, 50, 7):
        parts.add(logits[start : start + 7], labels[start : start + 7])
    assert parts.error == pytest.approx(whole.error, rel=1e-12)
    assert sum(b.images for b in parts.bins()) == 50
    assert len(parts.bins()) == 15


def test_certain_and_right_is_calibrated_certain_and_wrong_is_not():
    certain = torch.tensor([[100.0, 0.0]]).expand(6, 2)
    right, wrong = Calibration(), Calibration()
    right.add(certain, torch.zeros(6).long())
    wrong.add(certain, torch.ones(6).long())
    assert (right.error, wrong.error) == (0.0, 1.0)
    assert Calibration().error == 0.0


def test_an_edge_belongs_to_the_bin_below_it():
    calibration = Calibration(bins=2)
    calibration.add(torch.zeros(1, 2), torch.tensor([0]))  # a confidence of exactly one half
    assert [b.images for b in calibration.bins()] == [1, 0]
