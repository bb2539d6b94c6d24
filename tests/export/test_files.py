"""What is refused, what a file tells, and 8 bits."""

import dataclasses
import json
import math
import sys

import pytest
import torch
from torch import nn

from qna._core.backends import recording_onnx
from qna._core.errors import InvalidInput, MissingExtra
from qna.export import export_onnx, export_program
from qna.export.int8 import RoundedLinear, in_bytes, rounded
from qna.export.trial import check_difference, largest_difference
from qna.ops.learned_query import cpu
from qna.ops.learned_query.inputs import Inputs

onnx = pytest.importorskip("onnx", reason="qna[export] brings it")
runtime = pytest.importorskip("onnxruntime", reason="qna[export] brings it")
pytest.importorskip("onnxscript", reason="qna[export] brings it")

ROWS = ("batch", "length", 16)
EXPORTERS = [export_onnx, export_program]


class Linears(nn.Sequential):
    """Two linear maps: quickly written."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8, bias=False))
        self.eval()


@pytest.mark.parametrize("export", EXPORTERS)
def test_training_mode_is_refused(export, tmp_path):
    with pytest.raises(InvalidInput, match=r"Linears is in training mode: call its eval\(\)"):
        export(Linears().train(), tmp_path / "m", ROWS)


@pytest.mark.parametrize("export", EXPORTERS)
def test_other_numbers_are_refused(export, tmp_path):
    with pytest.raises(InvalidInput, match=r"Linears holds numbers of bfloat16: call its float\(\)"):
        export(Linears().bfloat16(), tmp_path / "m", ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("export", EXPORTERS)
def test_a_size_that_cannot_be_open_is_named(export, tmp_path):
    class OfOneLength(nn.Module):
        def forward(self, x):
            return x.view(-1, 100, 16)[:, : 2 if x.shape[1] > 5 else 1]

    with pytest.raises(
        InvalidInput, match=r"OfOneLength cannot be recorded for any batch, length: .*name fewer"
    ):
        export(OfOneLength().eval(), tmp_path / "m", ROWS)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("export", EXPORTERS)
def test_a_file_that_computes_something_else_is_not_kept(export, tmp_path):
    """A module that records one branch and runs another: the file that was there stays."""

    class Turncoat(Linears):
        def forward(self, x):
            return super().forward(x) * (1.001 if torch.compiler.is_compiling() else 1)

    path = tmp_path / "m"
    path.write_bytes(b"before")
    with pytest.raises(InvalidInput, match=r"m was not kept: it is off by .* and may be by 1\.0e-04"):
        export(Turncoat(), path, ROWS)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("export", EXPORTERS)
def test_a_disk_that_is_full_is_an_error_and_leaves_nothing(export, tmp_path):
    resource = pytest.importorskip("resource", reason="only POSIX limits the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            export(Linears(), tmp_path / "m", ROWS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
def test_an_onnx_file_tells_what_it_is_given_and_nothing_of_the_machine(int8, tmp_path):
    told = {"classes": json.dumps(["a", "b"])}
    steps = []
    exported = export_onnx(
        Linears(), tmp_path / "m.onnx", ROWS, outputs=["y"], metadata=told, progress=steps.append, int8=int8
    )
    assert len(steps) == 3
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == told
    (given,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("input", ["batch", "length", 16])
    assert answer.name == "y"
    raw = (tmp_path / "m.onnx").read_bytes()
    assert str(tmp_path.parent).encode() not in raw
    assert b"site-packages" not in raw
    assert f"ONNX, opset {onnx.load(tmp_path / 'm.onnx').opset_import[0].version}" in str(exported)
    assert "batch x length = 1x37, 3x64" in str(exported)


@pytest.mark.slow
def test_linear_maps_in_8_bits_are_those_that_torch_rounds(tmp_path):
    """To rounding of sums: in ONNX Runtime each product is of integers, here of the same numbers in fp32."""
    module, path = Linears(), tmp_path / "m.onnx"
    plain = export_onnx(module, tmp_path / "plain.onnx", ROWS)
    exported = export_onnx(module, path, ROWS, int8=True)
    assert plain.difference < 1e-5 < exported.difference
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("MatMulInteger") == 2
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    first = rounded(Linears())[0]
    assert isinstance(first, RoundedLinear)
    x = torch.randn(3, 50, 16)
    (answer,) = session.run(None, {"input": x.numpy()})
    with torch.no_grad():
        hidden = module[1](first(x))
        expected = rounded(Linears())[2](hidden)
        step = (hidden.amax() - hidden.amin()) / 255
        # the hidden numbers differ by rounding of fp32, so that some may fall to the next step
        most = step * module[2].weight.abs().sum(1).max()
    difference = (torch.from_numpy(answer) - expected).abs()
    assert difference.max() <= most
    assert (difference > 1e-5).float().mean() < 0.01


def test_bytes_hold_256_steps_of_which_one_is_zero():
    x = torch.randn(1000, dtype=torch.float64) * 3 + 1
    steps = in_bytes(x, x.amin(), x.amax())
    scale = (x.amax() - x.amin()) / 255
    assert (steps - x).abs().max() <= scale / 2 * (1 + 1e-12)
    assert len(steps.unique()) <= 256
    assert torch.equal((steps / scale).round() * scale, steps)
    for constant in (torch.zeros(3), torch.full((3,), 2.5), torch.full((3,), -2.5)):
        torch.testing.assert_close(in_bytes(constant, constant.amin(), constant.amax()), constant)


def test_nan_is_further_than_all():
    sizes = [{"n": 4}, {"n": 5}]
    far = largest_difference(lambda x: x, lambda x: (x / 0 * 0,), [("n", 2)], sizes, "it")
    assert math.isnan(far)
    with pytest.raises(InvalidInput, match=r"it was not kept: it is off by nan"):
        check_difference(far, 1e-4, "it")


def test_other_shapes_are_named():
    with pytest.raises(InvalidInput, match=r"it gives \(4, 1\) at n=4, eager \(4, 2\)"):
        largest_difference(lambda x: x, lambda x: (x[:, :1],), [("n", 2)], [{"n": 4}], "it")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_what_is_missing_is_named(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    told = rf"export to ONNX needs the package '{package}': pip install 'qna\[export\]'"
    with pytest.raises(MissingExtra, match=told):
        export_onnx(Linears(), tmp_path / "m.onnx", ROWS)


def test_a_kernel_without_nodes_declines_while_a_graph_is_recorded_for_onnx():
    """And one with nodes serves where it is not installed, since nothing runs."""
    scores, value, bias = torch.zeros(1, 4, 2, 3), torch.ones(1, 4, 3, 5), torch.zeros(3, 2, 3)
    window = {"stride": 1, "padding": "same", "dilation": 1}
    inputs = Inputs.apart(scores, value, bias, None, window)
    backend = dataclasses.replace(cpu.BACKEND, missing=lambda: ["it is not in this installation"])
    assert "it is not in this installation" in backend.reasons(inputs)
    with recording_onnx():
        assert backend.reasons(inputs) == []
        other = dataclasses.replace(backend, onnx={})
        assert any("which has no nodes for what it computes" in r for r in other.reasons(inputs))
