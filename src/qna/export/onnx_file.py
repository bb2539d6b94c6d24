"""Modules as ONNX files, tried in ONNX Runtime before they are kept."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from qna._core.errors import require
from qna._core.files import write_whole
from qna.export.int8 import quantise, rounded
from qna.export.recording import fused, on_cpu, record
from qna.export.shapes import Shape, open_names, tried_sizes
from qna.export.trial import TOLERANCE, Exported, Run, check_difference, largest_difference, outputs_of
from qna.ops import OPS

Progress = Callable[[str], object]
_EXTRA = {"extra": "export", "purpose": "export to ONNX"}


def export_onnx(
    eager: nn.Module,
    path: Path | str,
    *shapes: Shape,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] = ("output",),
    sizes: Sequence[Mapping[str, int]] | None = None,
    int8: bool = False,
    metadata: Mapping[str, str] | None = None,
    progress: Progress = lambda step: None,
) -> Exported:
    """Write the module `eager` as an ONNX file that takes inputs of any size, and try it in ONNX Runtime.

    The file appears when what it computes is within `TOLERANCE` of the module at all `sizes`; one that was
    there before stays otherwise.

    Args:
        eager: the module, in evaluation mode and fp32.
        path: of the file.
        shapes: one per input of the module's forward, with a name for each size that is open: `IMAGES` for a
            network of images, ("batch", "height", "width", 64) for a layer.
        inputs: names of the inputs in the file; None for those of the module's forward.
        outputs: names of the outputs.
        sizes: open sizes to try; None for two batches of maps that are no squares.
        int8: linear maps in 8 bits, by ONNX Runtime's quantiser. The file is then kept when it is nearer to
            the module with its linear maps rounded in torch than that is to the module.
        metadata: what the file tells of itself beside the network.
        progress: told what is done, step by step.

    Raises:
        InvalidInput: the module is in training mode or not in fp32, cannot be recorded for open sizes, or the
            file would not compute the same.
        MissingExtra: onnx, onnxscript or onnxruntime is not installed.
        OSError: the file cannot be written.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, **_EXTRA)
    path, eager = Path(path), on_cpu(eager)
    twin = fused(eager)
    sizes = tried_sizes(open_names(shapes)) if sizes is None else list(sizes)
    names = list(inspect.signature(eager.forward).parameters)[: len(shapes)] if inputs is None else inputs
    progress("recording the graph")
    recorded = record(twin, shapes, for_onnx=True)
    progress("writing its nodes")
    model = _nodes(recorded, list(names), list(outputs))
    _name_sizes(model, shapes)
    model.metadata_props.clear()
    model.metadata_props.update(metadata or {})
    what, difference, size = f"the ONNX file {path.name}", 0.0, 0

    def apart(truth: Callable[..., Any], run: Run) -> float:
        return largest_difference(truth, run, shapes, sizes, what)

    def write(temporary: Path) -> None:
        nonlocal difference, size
        _save(model, temporary, int8)
        progress("trying it in ONNX Runtime")
        run = in_runtime(temporary)
        difference, size = apart(eager, run), temporary.stat().st_size
        if int8:
            # what rounding alone does to the answers is what the file may do
            by_rounding = rounded(twin)
            check_difference(apart(by_rounding, run), apart(eager, partial(outputs_of, by_rounding)), what)
        else:
            check_difference(difference, TOLERANCE, what)

    write_whole(path, write)
    form = f"ONNX, opset {model.opset_imports['']}{', linear maps in 8 bits' if int8 else ''}"
    return Exported(path, form, tuple(sizes), difference, size)


def _save(model: Any, path: Path, int8: bool) -> None:
    ir = require("onnx_ir", **_EXTRA)
    if not int8:
        ir.save(model, path)
        return
    with TemporaryDirectory() as folder:
        plain, rounded_file = Path(folder) / "plain.onnx", Path(folder) / "rounded.onnx"
        ir.save(model, plain)
        quantise(plain, rounded_file)
        quantised = ir.load(rounded_file)
        # the quantiser leaves its own word there
        quantised.metadata_props.clear()
        quantised.metadata_props.update(model.metadata_props)
        ir.save(quantised, path)


def _nodes(recorded: ExportedProgram, inputs: list[str], outputs: list[str]) -> Any:
    """The recorded graph as a model of onnx_ir, without what tells of the machine that it was made on."""
    table = {
        getattr(torch.ops.qna, name).default: nodes
        for row in OPS
        for backend in row.backends
        for name, nodes in backend.onnx.items()
    }
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")  # the exporter's, of its own code
        program = torch.onnx.export(
            recorded,
            input_names=inputs,
            output_names=outputs,
            custom_translation_table=table,
            dynamo=True,
            verbose=False,
            optimize=True,
        )
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    return program.model


def _name_sizes(model: Any, shapes: Sequence[Shape]) -> None:
    """Call the open sizes of the inputs what the caller calls them."""
    ir = require("onnx_ir", **_EXTRA)
    for value, shape in zip(model.graph.inputs, shapes, strict=True):
        value.shape = ir.Shape(shape)


def in_runtime(path: Path, *, threads: int = 0) -> Run:
    """What ONNX Runtime computes, on the CPU.

    Args:
        path: of the file.
        threads: of the runtime's own, which wait busily for a while after each call and hold a core each; 0
            for as many as there are cores.
    """
    runtime = require("onnxruntime", **_EXTRA)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: torch.Tensor) -> list[torch.Tensor]:
        given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, given)]

    return run


@contextmanager
def _quiet(*names: str):
    """Leave out what these loggers would say below an error."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
