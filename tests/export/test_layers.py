"""Every mixer, and the op, as a file: ONNX Runtime and torch.export give what eager gives, at any size."""

from itertools import islice

import pytest
import torch
from torch import nn

from qna.export import TOLERANCE, export_onnx, export_program
from qna.mixers import MIXERS
from qna.ops import learned_query, learned_query_attention
from tests.mixers.contract import build

onnxruntime = pytest.importorskip("onnxruntime", reason="qna[export] brings it")
for package in ("onnx", "onnxscript"):
    pytest.importorskip(package, reason="qna[export] brings it")

pytestmark = pytest.mark.slow
# a graph takes seconds to write: one mixer of each op that has nodes of its own, and the plainest
QUICK = {"QnA2d", "QnAUpsample1d", "WindowAttention2d"}
OF_ANY_SIZE = [row for row in MIXERS.values() if row.traits.any_size]
NAMES = ("height", "width", "depth")


def sizes_of(axes, *given):
    """Open sizes of maps, each with another batch."""
    return [
        {"batch": 1 + 2 * (i % 2), **dict(zip(NAMES, islice(space, axes), strict=False))}
        for i, space in enumerate(given)
    ]


def shape_of(row):
    return ("batch", *NAMES[: row.traits.axes], row.example.dim)


def some(rows):
    return pytest.mark.parametrize(
        "row",
        [pytest.param(row, id=row.name, marks=() if row.name in QUICK else pytest.mark.long) for row in rows],
    )


@some(OF_ANY_SIZE)
def test_mixers_in_onnx(row, tmp_path):
    mixer = build(row).eval()
    sizes = sizes_of(row.traits.axes, (1, 1, 1), (7, 2, 3), (4, 9, 5), (12, 8, 4), (31, 20, 2))
    exported = export_onnx(mixer, tmp_path / "mixer.onnx", shape_of(row), sizes=sizes)
    assert exported.difference < TOLERANCE / 10
    assert exported.sizes == tuple(sizes)


@some(OF_ANY_SIZE)
def test_mixers_in_archives(row, tmp_path):
    """Not of one position, where checks that torch keeps with a graph refuse some."""
    mixer = build(row).eval()
    sizes = sizes_of(row.traits.axes, (7, 2, 3), (4, 9, 5), (12, 8, 4), (31, 20, 2), (2, 1, 1))
    exported = export_program(mixer, tmp_path / "mixer.pt2", shape_of(row), sizes=sizes)
    assert exported.difference < TOLERANCE / 10
    # what is recorded with is large, and not kept; a graph that names every tap of its windows is larger
    assert exported.bytes < (2e6 if row.name == "ContMix2d" else 1e6)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # the exporter's, of its own code
def test_torchs_own_exporter_gets_the_reference(tmp_path):
    """Which it can take apart, where this package's nodes are not known to it."""
    mixer, x = build(MIXERS["QnA2d"]).eval(), torch.randn(2, 9, 11, 8)
    dynamic = (dict.fromkeys(range(3), torch.export.Dim.DYNAMIC),)
    torch.onnx.export(mixer, (x,), tmp_path / "m.onnx", dynamo=True, dynamic_shapes=dynamic, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    for size in [(1, 2, 7), (3, 20, 6)]:
        x = torch.randn(*size, 8)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), mixer(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, row in MIXERS.items() if row.traits.strided])
def test_strided_mixers_in_onnx(name, tmp_path):
    row = MIXERS[name]
    mixer = row.create(row.example.dim, **{**row.example.arguments, "stride": 2}).eval()
    sizes = sizes_of(row.traits.axes, (1, 1, 1), (8, 3, 2), (5, 10, 4))
    assert export_onnx(mixer, tmp_path / "m.onnx", shape_of(row), sizes=sizes).difference < TOLERANCE / 10


class Calls(nn.Module):
    """The op on one map, once for each of several windows, with weights and without."""

    def __init__(self, cases):
        super().__init__()
        self.windows = [case.window for case in cases for _ in range(2)]
        tables = [case.make(weighted=weighted) for case in cases for weighted in (True, False)]
        self.tables = [(t["bias"], t["weight"]) for t in tables]

    def forward(self, scores, value):
        calls = zip(self.tables, self.windows, strict=True)
        return tuple(learned_query_attention(scores, value, *t, **window) for t, window in calls)


def groups():
    """Cases of the op that can share a map, as one graph is written in the time of a few."""
    alike = {}
    for case in learned_query.ROW.cases:
        alike.setdefault((len(case.space), case.queries, case.heads, case.head_dim), []).append(case)
    quick = [(1, 2, 3, 5)]
    return [
        pytest.param(cases, id="-".join(map(str, key)), marks=[] if key in quick else pytest.mark.long)
        for key, cases in alike.items()
    ]


@pytest.mark.parametrize("cases", groups())
def test_the_op_in_onnx(cases, tmp_path):
    case = cases[0]
    space = ("batch", *NAMES[: len(case.space)])
    shapes = [(*space, case.queries, case.heads), (*space, case.heads, case.head_dim)]
    outputs = [f"{case.name} {weighted}" for case in cases for weighted in ("weighted", "plain")]
    sizes = sizes_of(len(case.space), (13, 9, 7), (20, 31, 8))
    exported = export_onnx(Calls(cases).eval(), tmp_path / "op.onnx", *shapes, outputs=outputs, sizes=sizes)
    assert exported.difference < TOLERANCE / 10


def test_scores_of_minus_infinity_and_half_precision_in_onnx(tmp_path):
    """Masked positions get nothing, a window of masked ones gives 0, bf16 is summed in fp32."""
    case = learned_query.ROW.cases[0]
    module = Calls([case]).eval()

    class Masked(nn.Module):
        def forward(self, scores, value):
            masked = scores.masked_fill(scores < 0.5, float("-inf"))
            return (*module(masked, value), module(masked.bfloat16(), value.bfloat16())[0].float())

    space = ("batch", "height")
    shapes = [(*space, case.queries, case.heads), (*space, case.heads, case.head_dim)]
    sizes = [{"batch": 2, "height": 40}]
    exported = export_onnx(
        Masked().eval(), tmp_path / "op.onnx", *shapes, outputs=["a", "b", "c"], sizes=sizes
    )
    assert exported.difference < 2 * torch.finfo(torch.bfloat16).eps
