"""Shapes with open sizes."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.export import IMAGES
from qna.export.shapes import empty, open_names, random, recorded_sizes, tried_sizes


def test_a_name_in_two_shapes_is_one_size():
    shapes = [("batch", "length", 4), ("batch", "length", 2, 3)]
    assert open_names(shapes) == ["batch", "length"]
    a, b = empty(shapes, {"batch": 2, "length": 9})
    assert a.shape == (2, 9, 4)
    assert b.shape == (2, 9, 2, 3)


@pytest.mark.parametrize("wrong", [(1.5, "n"), (0, "n"), (True, "n"), (1, 2)])
def test_what_is_no_shape_is_named(wrong):
    with pytest.raises(
        InvalidInput, match=r"a shape holds names and positive integers|no size of .* is open"
    ):
        open_names([wrong])


def test_a_size_that_is_not_given_is_named():
    with pytest.raises(
        InvalidInput, match=r"no size is given for width of \('batch', 3, 'height', 'width'\)"
    ):
        random([IMAGES], {"batch": 1, "height": 2})


def test_what_is_tried_differs_from_what_is_recorded_and_is_no_square():
    names = open_names([IMAGES])
    recorded, tried = recorded_sizes(names), tried_sizes(names)
    assert {sizes["batch"] for sizes in tried} == {1, 3}
    for sizes in tried:
        assert all(sizes[name] != recorded[name] for name in names)
        assert sizes["height"] != sizes["width"]
    assert torch.equal(*(random([IMAGES], tried[0])[0] for _ in range(2)))
