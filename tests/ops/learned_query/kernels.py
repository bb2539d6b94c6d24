"""The equality of `tests.ops.equality`, of this op."""

from functools import partial

from qna.ops.learned_query import ROW
from tests.ops import equality

NAMES = ("out", "scores", "value", "bias", "weight")
run = partial(equality.run, ROW)
assert_equals_reference = partial(equality.assert_equals_reference, ROW)
