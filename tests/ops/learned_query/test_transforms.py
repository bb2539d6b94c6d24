"""Where torch follows what is computed, kernels step aside and the numbers are the reference's."""

from dataclasses import replace

import pytest
import torch
from torch.autograd import forward_ad

from qna._core.errors import NoBackend
from qna.ops import learned_query_attention, packed_learned_query_attention
from qna.ops.learned_query import cpu
from qna.ops.learned_query.cases import BY_NAME

pytestmark = [
    pytest.mark.skipif(bool(cpu.missing()), reason="; ".join(cpu.missing()) or "there"),
    # torch's own, on the first tangent and the first trace
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]

CASE = BY_NAME["2d-stride-3-rectangular"]
NAMES = ("scores", "value", "bias", "weight")


def attend(*tensors, backend=None):
    return learned_query_attention(*tensors, **CASE.window, backend=backend)


@pytest.mark.parametrize("name", NAMES)
def test_a_tangent_is_carried_on(name):
    inputs = CASE.make(torch.float64)
    step = torch.randn(inputs[name].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with forward_ad.dual_level():
        dual = {**inputs, name: forward_ad.make_dual(inputs[name], step)}
        out, tangent = forward_ad.unpack_dual(attend(*dual.values()))
    assert tangent is not None
    far = {sign: attend(*{**inputs, name: inputs[name] + sign * 1e-6 * step}.values()) for sign in (1, -1)}
    # the error of a central difference of step 1e-6
    torch.testing.assert_close(tangent, (far[1] - far[-1]) / 2e-6, rtol=1e-6, atol=1e-8)
    assert torch.equal(out, attend(*inputs.values(), backend="reference"))


def test_a_tangent_of_a_packed_map_is_carried_on():
    inputs = CASE.make(torch.float64)
    packed = torch.cat([inputs["value"].transpose(-1, -2), inputs["scores"]], -2)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(packed, torch.ones_like(packed))
        out = packed_learned_query_attention(dual, inputs["bias"], inputs["weight"], **CASE.window)
        tangent = forward_ad.unpack_dual(out).tangent
        # a constant more for all scores changes nothing, one more for all values the sum of the shares
        ones = attend(inputs["scores"], torch.ones_like(inputs["value"]), inputs["bias"], inputs["weight"])
    torch.testing.assert_close(tangent, ones)


def test_a_level_without_tangents_leaves_the_kernels_in_place():
    inputs = CASE.make()
    with forward_ad.dual_level():
        out = attend(*inputs.values(), backend="cpu")
    assert torch.equal(out, attend(*inputs.values(), backend="cpu"))


def test_a_named_kernel_says_that_it_has_no_tangents():
    inputs = CASE.make()
    with forward_ad.dual_level():
        inputs["value"] = forward_ad.make_dual(inputs["value"], torch.ones_like(inputs["value"]))
        with pytest.raises(NoBackend, match="a tensor has a tangent of forward-mode AD"):
            attend(*inputs.values(), backend="cpu")


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_records_the_reference():
    inputs = tuple(CASE.make().values())
    traced = torch.jit.trace(attend, inputs)
    assert not [node for node in traced.graph.nodes() if node.kind().startswith("qna::")]
    other = tuple(CASE.make(seed=1).values())
    torch.testing.assert_close(traced(*other), attend(*other, backend="reference"))
    # sizes are recorded as such
    larger = tuple(replace(CASE, space=(17, 22), batch=3).make().values())
    torch.testing.assert_close(traced(*larger), attend(*larger, backend="reference"))
    with pytest.raises(NoBackend, match=r"torch\.jit\.trace is recording"):
        torch.jit.trace(lambda *t: attend(*t, backend="cpu"), inputs)


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.jacrev, torch.func.grad])
def test_transforms_are_refused_or_fall_back(transform):
    scores, *rest = BY_NAME["1d"].make().values()

    def total(scores, backend):
        return learned_query_attention(scores, *rest, backend=backend).sum()

    maps = scores.expand(3, *scores.shape) if transform is torch.func.vmap else scores
    with pytest.raises(NoBackend, match=r"torch\.func transform is active, which only the reference can"):
        transform(lambda s: total(s, "cpu"))(maps)
    of_none, of_reference = (transform(lambda s, b=b: total(s, b))(maps) for b in (None, "reference"))
    assert torch.equal(of_none, of_reference)
