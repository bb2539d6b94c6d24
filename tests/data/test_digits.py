import pytest
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.data import load_data


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def test_the_split_is_fixed_and_stratified(digits):
    assert digits.train.pixels.shape == (1437, 1, 8, 8)
    assert digits.held_out.pixels.shape == (360, 1, 8, 8)
    # 360 of 1797 images: every class gives a fifth, to the image
    shares = digits.held_out.labels.bincount() / (
        digits.held_out.labels.bincount() + digits.train.labels.bincount()
    )
    assert (shares - 360 / 1797).abs().max() < 1 / 174
    # the same images on every machine
    weights = torch.arange(360 * 64).view(360, 1, 8, 8)
    assert int((digits.held_out.pixels.long() * weights).sum() % 1_000_003) == 157_767


def test_no_image_is_in_both_parts(digits):
    from sklearn.datasets import load_digits

    def rows(pixels):
        return sorted(map(tuple, pixels.flatten(1).tolist()))

    both = torch.cat([digits.train.pixels, digits.held_out.pixels])
    original = torch.from_numpy(load_digits().images).mul(255 / 16).round().to(torch.uint8)
    assert rows(both) == rows(original)


def test_statistics_are_those_of_the_training_images(digits):
    scaled = digits.train.pixels.double() / 255
    assert digits.mean == pytest.approx((float(scaled.mean()),), rel=1e-12)
    assert digits.std == pytest.approx((float(scaled.std(correction=0)),), rel=1e-12)


def test_unknown_data_names_the_nearest():
    with pytest.raises(UnknownName, match="unknown data 'digit'; did you mean 'digits'"):
        load_data("digit")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="digits come with scikit-learn, not from a folder"):
        load_data("digits", tmp_path)
