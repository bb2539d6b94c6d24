"""Whole networks as graphs for any batch, height and width: torch.export, ONNX, torch.jit.trace."""

import pytest
import timm
import torch
from torch.export import Dim

from qna import use_backend
from qna.export import IMAGES, TOLERANCE, export_onnx, export_program
from qna.models import FAMILIES
from tests.models.random_images import images

FAST = "qna_vit_nano_16"
# those of images of one size have no open sizes
NAMES = sorted(
    name
    for family in FAMILIES.values()
    for name, variant in family.variants.items()
    if not family.timm_cfg(variant).get("fixed_input_size")
)
EACH = [n if n == FAST else pytest.param(n, marks=pytest.mark.long) for n in NAMES]
each_model = pytest.mark.parametrize("name", EACH)
OPEN = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}


def build(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # tables and biases start at zero and would hide errors
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def with_pool(pool):
    model = build(FAST)
    model.reset_classifier(7, pool)
    for parameter in model.head.parameters():
        parameter.data.normal_(std=0.2)
    return model.eval()


def several_windows(model):
    """An image on which every layer has several windows on each axis: exporters take 1 for a constant."""
    reductions = [info["reduction"] for info in model.feature_info]
    stages = [model.get_submodule(info["module"]) for info in model.feature_info]
    steps = [
        max(getattr(getattr(block, "mixer", None), "window_size", (2, 2))) * reduction + 1
        for stage, reduction in zip(stages, reductions, strict=True)
        for block in stage
    ]
    return images(max(steps), max(steps) + 2 * reductions[-1])


def sizes_of(model):
    """The size at which every layer has several windows, a smaller odd one, a longer one; other batches."""
    height, width = several_windows(model).shape[2:]
    sizes = [(2, height, width), (1, height // 2 - 1, width // 3), (3, height, 2 * width + 1)]
    return [dict(zip(("batch", "height", "width"), size, strict=True)) for size in sizes]


# minutes each, on a slow machine
@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_onnx_of_any_size(name, tmp_path):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="qna[export] brings it")
    model = build(name)
    exported = export_onnx(model, tmp_path / "model.onnx", IMAGES, sizes=sizes_of(model))
    assert exported.difference < TOLERANCE


@pytest.mark.long
@pytest.mark.parametrize("pool", ["qnav1", "qnav2"])
def test_onnx_with_a_pooling_of_learned_queries(pool, tmp_path):
    """Whose tables are resized to maps that are smaller and larger than theirs."""
    pytest.importorskip("onnxruntime", reason="qna[export] brings it")
    model = with_pool(pool)
    sizes = [{"batch": 2, "height": n, "width": n + 3} for n in (8, 16, 29, 60)]
    assert export_onnx(model, tmp_path / "model.onnx", IMAGES, sizes=sizes).difference < TOLERANCE


@pytest.mark.long
@pytest.mark.parametrize("name", [FAST])
def test_an_archive_of_any_size(name, tmp_path):
    model = build(name)
    sizes = [
        *sizes_of(model),
        {"batch": 1, "height": 16, "width": 16},
        {"batch": 1, "height": 64, "width": 32},
    ]
    assert export_program(model, tmp_path / "model.pt2", IMAGES, sizes=sizes).difference < TOLERANCE


@each_model
def test_torch_export_of_any_size(name):
    """No size becomes a constant; what is refused is a map of one window where the example had several."""
    model = build(name)
    exported = torch.export.export(model, (several_windows(model),), dynamic_shapes=(OPEN,))
    assert len({s for s in exported.range_constraints if exported.range_constraints[s].upper > 10**6}) == 3
    height, width = several_windows(model).shape[2:]
    run = exported.module()
    for x in (images(height + 3, width + 2, batch=3), images(height, 2 * width + 1)):
        with torch.no_grad():
            torch.testing.assert_close(run(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_model_is_made_and_run_of_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        model = timm.create_model(FAST, num_classes=7).eval()
        logits = model(torch.empty(2, 3, 33, 47))
    assert logits.shape == (2, 7)
    assert {type(p.data).__name__ for p in model.parameters()} == {"FakeTensor"}


@pytest.mark.filterwarnings("ignore")  # the tracer's own: the checks of shapes are not recorded
@pytest.mark.parametrize("pool", ["qnav1", "qnav2"])
def test_a_traced_pooling_of_learned_queries_is_right_for_other_sizes(pool):
    """Whose tables are resized in the graph: traced at a smaller map and at theirs, run below and above."""
    model = with_pool(pool)
    with torch.no_grad():
        for size in [(2, 3), (4, 4)]:
            traced = torch.jit.trace(model.head, torch.randn(2, *size, model.num_features), check_trace=False)
            for other in [(4, 4), (2, 7), (1, 1), (9, 5)]:
                x = torch.randn(3, *other, model.num_features)
                torch.testing.assert_close(traced(x), model.head(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # the tracer's own: the checks of shapes are not recorded
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("size", [(40, 72), (16, 16)])
def test_a_traced_graph_is_right_for_other_sizes(size, backend):
    model = build(FAST)
    with torch.no_grad(), use_backend(backend):
        traced = torch.jit.trace(model, images(*size), check_trace=False)
        for x in (images(33, 47, batch=1), images(16, 16, batch=3), images(90, 9)):
            torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-5)
