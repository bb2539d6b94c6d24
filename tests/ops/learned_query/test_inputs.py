"""Wrong input gets one clear error that names the values and the way out."""

import pytest
import torch

from qna._core.backends import Backend, select
from qna._core.errors import InvalidInput, NoBackend, UnknownName
from qna.ops import learned_query_attention, use_backend
from qna.ops.learned_query import ROW
from qna.ops.learned_query.cases import BY_NAME, Case
from qna.ops.learned_query.inputs import Inputs


def call(window=None, **changes):
    inputs = {**BY_NAME["2d-3x3"].make(), **changes}
    return learned_query_attention(**inputs, **(window or {}))


T = torch.zeros


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scores": T(2, 7, 2)}, "scores must be (B, *space, L, h)"),
        ({"scores": T(2, 7, 15, 2, 4)}, "disagree: scores (2, 7, 15, 2, 4), value (2, 7, 15, 3, 5)"),
        ({"value": T(2, 7, 14, 3, 5)}, "disagree: scores (2, 7, 15, 2, 3), value (2, 7, 14, 3, 5)"),
        ({"value": T(2, 7, 15, 15)}, "value (2, 7, 15, 15)"),
        ({"bias": T(3, 2, 3)}, "bias must be (*kernel, L, h) with 2 kernel axes and (L, h) = (2, 3)"),
        ({"bias": T(3, 3, 3, 2)}, "bias (3, 3, 3, 2)"),
        ({"bias": T(0, 3, 2, 3), "weight": None}, "bias (0, 3, 2, 3)"),
        ({"weight": T(3, 3, 1, 3)}, "weight must have the shape of bias"),
        ({"scores": T(2, 7, 15, 2, 3, dtype=torch.int64)}, "got int64; try scores.float()"),
        ({"value": T(2, 7, 15, 3, 5, dtype=torch.float64)}, "one dtype, got float32 and float64"),
        ({"bias": T(3, 3, 2, 3, device="meta")}, "one device, got scores on cpu, value on cpu, bias on meta"),
        ({"value": [[1.0]]}, "value must be a tensor, got list"),
        ({"scores": None}, "scores must be a tensor, got NoneType"),
        ({"value": None}, "value must be a tensor, got NoneType"),
        ({"bias": None}, "bias must be a tensor, got NoneType"),
        ({"scores": T(2, 0, 15, 2, 3), "value": T(2, 0, 15, 3, 5)}, "only the batch may be empty"),
    ],
)
def test_tensors_that_do_not_fit(changes, words):
    with pytest.raises(InvalidInput, match=r"^qna\.ops\.learned_query_attention: ") as error:
        call(**changes)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("window", "words"),
    [
        ({"stride": 0}, "stride must be an integer of at least 1, or one for each of 2 axes, got 0"),
        (
            {"stride": (1, 1, 1)},
            "stride must be an integer of at least 1, or one for each of 2 axes, got (1, 1, 1)",
        ),
        ({"dilation": -1}, "dilation must be an integer of at least 1"),
        ({"stride": 1.0}, "stride must be an integer of at least 1, or one for each of 2 axes, got 1.0"),
        ({"stride": (1, 1.0)}, "one for each of 2 axes, got (1, 1.0)"),
        ({"stride": True}, "one for each of 2 axes, got True"),
        ({"stride": None}, "one for each of 2 axes, got None"),
        ({"padding": None}, "padding must be an integer of at least 0, or one for each of 2 axes, got None"),
        ({"dilation": "11"}, "dilation must be an integer of at least 1"),
        ({"stride": 2**31}, "stride must be below 2**31, got 2147483648"),
        ({"padding": (0, 2**63)}, "padding must be below 2**31"),
        ({"dilation": 2**30}, "kernel (3, 3) and dilation (1073741824, 1073741824) spans 2**31 positions"),
        ({"padding": -1}, "padding must be an integer of at least 0"),
        ({"padding": "valid"}, "padding must be 'same', an integer or one per axis, got 'valid'"),
        ({"factor": 0}, "factor must be an integer of at least 1, or one for each of 2 axes, got 0"),
        ({"factor": 2}, "factor (2, 2) gives a window 4 outputs with as many queries each"),
        ({"factor": (3, 1)}, "so L must be a multiple of that, got L = 2"),
        ({"padding": 0, "dilation": 9}, "no window fits: map (7, 15) with padding 0"),
    ],
)
def test_windows_that_do_not_fit(window, words):
    with pytest.raises(InvalidInput) as error:
        call(window)
    assert words in str(error.value)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_one_window_takes_a_stride_of_any_size(backend):
    if ROW.backend(backend).missing():
        pytest.skip("not in this installation")
    inputs = BY_NAME["2d-3x3"].make()
    out = learned_query_attention(**inputs, stride=2**31 - 1, backend=backend)
    assert torch.equal(out, learned_query_attention(**inputs, stride=(7, 15), backend=backend))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_an_empty_batch_gives_gradients_of_zeros(backend):
    if ROW.backend(backend).missing():
        pytest.skip("not in this installation")
    leaves = {k: t.requires_grad_() for k, t in Case("none", (3, 4), (3, 3), batch=0).make().items()}
    learned_query_attention(**leaves, backend=backend).sum().backward()
    assert all(t.grad.shape == t.shape and (t.grad == 0).all() for t in leaves.values())


def test_kernels_word_their_limits_alike():
    inputs = {k: t.to("meta") for k, t in BY_NAME["2d-3x3"].make(torch.float64).items()}
    judged = Inputs.apart(**inputs, geometry={"stride": 1, "padding": "same", "dilation": 1, "factor": 1})
    for backend in ROW.backends[:-1]:
        reasons = backend.reasons(judged)
        assert f"device is meta, needs {backend.device}" in reasons
        if torch.float64 not in backend.dtypes:
            assert "dtype is float64, needs one of (float32, bfloat16, float16)" in reasons


def test_sizes_have_limits():
    case = Case("large", (2, 2), (1, 1), batch=1, queries=300, heads=1, head_dim=5000)
    judged = Inputs.apart(
        **case.make(), geometry={"stride": 1, "padding": "same", "dilation": 1, "factor": 1}
    )
    reasons = ROW.backend("triton").reasons(judged)
    assert "head_dim is 5000, needs at most 4096" in reasons
    assert "queries is 300, needs at most 256" in reasons


def test_unknown_backend_names_the_nearest():
    with pytest.raises(UnknownName, match="unknown backend 'referense'; did you mean 'reference'"):
        call({"backend": "referense"})


def stand_ins(ran):
    def named(name, device, missing, declines):
        answers = {"missing": lambda: missing, "declines": lambda _: declines}
        return Backend(name, lambda *a: ran.append(name), device=device, **answers)

    return (
        named("fast", "cuda", ["no GPU that torch sees"], []),
        named(
            "near", "cpu", [], ["dtype is float32, needs one of (float64,)", "kernel is (3, 3), needs (1,)"]
        ),
        named("plain", None, [], []),
    )


def op_inputs():
    geometry = {"stride": 1, "padding": "same", "dilation": 1, "factor": 1}
    return Inputs.apart(**BY_NAME["2d-3x3"].make(), geometry=geometry)


def test_the_error_lists_the_inputs_and_every_reason():
    with pytest.raises(NoBackend) as error:
        select("qna.ops.some_op", stand_ins([]), op_inputs(), "near")
    assert str(error.value) == (
        "qna.ops.some_op: no backend can run scores (2, 7, 15, 2, 3), value (2, 7, 15, 3, 5), kernel (3, 3), "
        "stride (1, 1), dilation (1, 1), dtype float32, device cpu, backend='near'\n"
        "  near:\n"
        "    - dtype is float32, needs one of (float64,)\n"
        "    - kernel is (3, 3), needs (1,)\n"
        "  Try: backend='plain' or backend=None. More: qna doctor"
    )


def test_none_falls_back_and_says_so_once(caplog):
    for _ in range(2):
        assert select("qna.ops.once", stand_ins([]), op_inputs(), None).name == "plain"
    assert [r.getMessage() for r in caplog.records] == [
        "qna.ops.once runs on backend 'plain', because near: dtype is float32, needs one of (float64,), "
        "kernel is (3, 3), needs (1,). More: qna doctor"
    ]


def test_use_backend_changes_what_none_means_and_never_falls_back():
    with use_backend("fast"), pytest.raises(NoBackend, match="no GPU that torch sees"):
        select("qna.ops.some_op", stand_ins([]), op_inputs(), None)
    assert select("qna.ops.some_op", stand_ins([]), op_inputs(), None).name == "plain"
    with use_backend("reference"):
        assert torch.equal(call(), call({"backend": "reference"}))
