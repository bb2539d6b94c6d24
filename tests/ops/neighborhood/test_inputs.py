"""Wrong input gets one clear error that names the values and the way out."""

import math

import pytest
import torch

from qna._core.backends import Backend, select
from qna._core.errors import InvalidInput, UnknownName
from qna.ops import neighborhood_attention, neighborhood_av, neighborhood_qk, use_backend
from qna.ops.neighborhood.cases import BY_NAME
from qna.ops.neighborhood.inputs import NeighborhoodInputs

T = torch.zeros
OPTIONAL = ("bias", "extra_keys", "extra_values", "key_mask")
CASE = BY_NAME["2d-3x3"]


def call(**changes):
    return neighborhood_attention(**{**CASE.make(), **CASE.window, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"q": [[1.0]]}, "q must be a tensor, got list"),
        ({"v": None}, "v must be a tensor, got NoneType"),
        (
            {"k": T(2, 7, 9, 3, 5).int()},
            "k must be one of (float32, float64, bfloat16, float16), got int32; try k.float()",
        ),
        ({"k": T(2, 7, 9, 3, 5).to(torch.float8_e5m2)}, "got float8_e5m2; try k.float()"),
        ({"v": T(2, 7, 9, 3, 5).to_sparse()}, "v must be a dense tensor, got torch.sparse_coo"),
        ({"q": T(7, 9, 5)}, "q must be (B, *space, heads, channels) with 1 to 3 space axes"),
        (
            {"q": T(2, 3, 7, 9, 5)},
            "must agree in batch, space and heads, and q and k in channels, got q (2, 3",
        ),
        ({"k": T(2, 7, 9, 3, 4)}, "q (2, 7, 9, 3, 5), k (2, 7, 9, 3, 4), v (2, 7, 9, 3, 5)"),
        ({"v": T(2, 7, 8, 3, 5)}, "v (2, 7, 8, 3, 5)"),
        ({"v": T(2, 7, 9, 3, 0)}, "only the batch may be empty"),
        ({"k": T(2, 7, 9, 3, 5).double()}, "one dtype, got q float32, k float64, v float32"),
        ({"k": T(2, 7, 9, 3, 5, device="meta")}, "on one device, got k on meta beside cpu"),
        ({"bias": T(3, 5, 3)}, "(heads, *(2 kernel_size - 1)) = (3, 5, 5), got float32 (3, 5, 3)"),
        ({"bias": T(3, 5, 5).int()}, "got int32 (3, 5, 5)"),
        ({"bias": 1.0}, "got float"),
        ({"bias": T(3, 5, 5, device="meta")}, "got bias on meta beside cpu"),
        (
            {"extra_values": None},
            "dtype of q, float32, got float32 (2, 2, 3, 5) and NoneType",
        ),
        ({"extra_keys": T(2, 3, 5)}, "got float32 (2, 3, 5) and float32 (2, 2, 3, 5)"),
        ({"extra_keys": T(2, 2, 3, 5).double()}, "got float64 (2, 2, 3, 5)"),
        (
            {"extra_values": T(2, 4, 3, 5)},
            "extra_values must be (2, 2, 3, 5) beside q and v, got (2, 4, 3, 5)",
        ),
        ({"extra_keys": T(2, 2, 3, 5, device="meta")}, "got extra_keys on meta beside cpu"),
        ({"key_mask": T(2, 7, 9)}, "key_mask must be a bool tensor (B, *space) = (2, 7, 9)"),
        ({"key_mask": T(2, 9, 7).bool()}, "True where a key may be attended, got bool (2, 9, 7)"),
        ({"scale": math.inf}, "scale must be a finite number or None, got inf"),
        ({"scale": True}, "got True"),
        ({"kernel_size": 8}, "on axis 0 kernel_size 8 is larger than the map, which has 7 positions"),
        ({"dilation": (1, 4)}, "on axis 1 kernel_size 3 with dilation 4 spans 12 positions"),
        ({"dilation": (1, 4)}, "use a kernel_size of at most 2"),
        ({"stride": 4}, "stride 4 is larger than kernel_size 3"),
        (
            {"kernel_size": (3, 3, 3)},
            "kernel_size must be an integer of at least 1, or one for each of 2 axes",
        ),
        ({"kernel_size": 3.0}, "got 3.0"),
        ({"kernel_size": T(()).int()}, "got tensor(0"),
        ({"is_causal": 1}, "is_causal must be a bool, or one for each of 2 axes, got 1"),
        ({"is_causal": (True,)}, "got (True,)"),
        ({"is_causal": T(()).bool()}, "got tensor(False)"),
        ({"border": "reflect"}, "unknown border 'reflect'; known: clamp, mask, zero"),
        ({"strides": 2}, "did you mean 'stride'?"),
        ({"backend": "cuda"}, "unknown backend 'cuda'"),
    ],
)
def test_what_does_not_fit(changes, words):
    with pytest.raises(InvalidInput) as error:
        call(**changes)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("half", "words"),
    [
        (
            lambda: neighborhood_qk(T(2, 7, 3, 4), T(2, 7, 3, 5), kernel_size=3),
            "neighborhood_qk: q, k must agree",
        ),
        (lambda: neighborhood_qk(T(2, 7, 3, 4), T(2, 7, 3, 4), kernel_size=8), "neighborhood_qk: on axis 0"),
        (
            lambda: neighborhood_av(T(2, 7, 3, 4), T(2, 7, 3, 5), kernel_size=3),
            "one number for each of 3 taps",
        ),
        (
            lambda: neighborhood_av(T(2, 7, 2, 3), T(2, 7, 3, 5), kernel_size=3),
            "neighborhood_av: weights, v must",
        ),
    ],
)
def test_halves_name_themselves(half, words):
    with pytest.raises(InvalidInput) as error:
        half()
    assert words in str(error.value)


def test_a_block_may_name_the_backend_of_another_op():
    op = (Backend("here", None), Backend("reference", None))
    Backend("elsewhere", None)
    inputs = NeighborhoodInputs.checked(*(T(1, 3, 1, 1),) * 3, 3, {}, scale=None, **dict.fromkeys(OPTIONAL))
    for name, taken in (("here", 0), ("reference", 1), ("elsewhere", 0)):
        with use_backend(name):
            assert select("op", op, inputs, None) is op[taken]
            assert select("op", op, inputs, "reference") is op[1]
    with use_backend("elswhere"), pytest.raises(UnknownName, match="did you mean 'elsewhere'"):
        select("op", op, inputs, None)
    with pytest.raises(UnknownName, match="unknown backend 'elsewhere'; did you mean 'here'"):
        select("op", op, inputs, "elsewhere")
