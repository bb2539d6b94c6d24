from fractions import Fraction

import pytest

from qna.parts.reach import SAME_PLACE, Reach


@pytest.mark.parametrize(
    ("reach", "position", "seen", "stride"),
    [
        (SAME_PLACE, 5, (5, 5), 1),
        (Reach.of_window(3, before=1), 5, (4, 6), 1),
        (Reach.of_window(4, stride=2, dilation=3, before=2), 5, (8, 17), 2),
        (Reach.of_blocks(7), 15, (14, 20), 1),
        (Reach(1, 0, 0, 3), 8, (2, 2), Fraction(1, 3)),
        # (5 + 1/2) / 2 - 1/2 lies between 2 and 3
        (Reach(1, 0, 1, 2, 1), 5, (2, 3), Fraction(1, 2)),
        (Reach(1, 0, 1, 2, 1), 0, (-1, 0), Fraction(1, 2)),
    ],
)
def test_sources(reach, position, seen, stride):
    assert reach.sources(position, position) == seen
    assert reach.stride == stride


def test_sources_of_several_are_those_of_all():
    for reach in (Reach.of_window(4, stride=3, before=2), Reach.of_blocks(4), Reach(1, -1, 2, 3, 1)):
        for low in range(-3, 9):
            for high in range(low, 12):
                each = [reach.sources(i, i) for i in range(low, high + 1)]
                assert reach.sources(low, high) == (min(a for a, _ in each), max(b for _, b in each))
