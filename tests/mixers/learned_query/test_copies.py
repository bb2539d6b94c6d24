"""No copy of a map stands between the projections and the kernel, forward or backward."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import qna
from qna.ops.learned_query import cpu
from qna.parts import product_routes
from qna.parts.product_routes import CONVOLUTION, LINEAR

pytestmark = pytest.mark.skipif(bool(cpu.missing()), reason="; ".join(cpu.missing()) or "there")

BATCH, SIZE, DIM = 2, 12, 32


def storages(tree):
    tensors = [t for t in tree_leaves(tree) if isinstance(t, torch.Tensor)]
    return {t.untyped_storage().data_ptr() for t in tensors if t.numel() >= BATCH * SIZE * SIZE * 8}


class MapSizedWork(TorchDispatchMode):
    """Names of the ops that fill memory of their own, at least as large as a map of scores, or one given."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if storages(result) - storages(args) or (func._schema.is_mutable and storages(args)):
            self.names.append(func.name())
        return result


# of each route, what fills a map: forward, and backward for the gradient of its input
WORK = {
    LINEAR: ({"aten::mm", "aten::addmm"}, {"aten::mm"}),
    CONVOLUTION: ({"aten::convolution"}, {"aten::convolution_backward"}),
}


@pytest.mark.parametrize("route", WORK)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("build", [qna.QnA2d, qna.QnAUpsample2d])
def test_a_training_step_copies_no_map(monkeypatch, build, bias, fused, route):
    monkeypatch.setattr(product_routes, "route", lambda *shape: route)
    layer = build(DIM, num_heads=4, kernel_size=3, bias=bias, backend="cpu")
    layer = layer.fuse() if fused else layer
    x = torch.randn(BATCH, SIZE, SIZE, DIM, requires_grad=True)
    with torch.no_grad():
        g = torch.randn_like(layer(x))
    with MapSizedWork() as work:
        torch.autograd.grad(layer(x), [x, *(p for p in layer.parameters() if p.requires_grad)], g)
    product, backward = WORK[route]
    kernel = "qna::learned_query_cpu"
    expected = [product, {kernel}, product, backward, {f"{kernel}_backward"}, backward]
    assert len(work.names) == len(expected)
    assert all(name in names for name, names in zip(work.names, expected, strict=True)), work.names
