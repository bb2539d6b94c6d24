"""A module recorded as a graph in which sizes stay open."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config

from qna._core.backends import recording_onnx, short
from qna._core.errors import InvalidInput
from qna.export.shapes import Shape, empty, open_names, recorded_sizes
from qna.parts.protocols import Fuses


def on_cpu(module: nn.Module) -> nn.Module:
    """The module, or a copy of it on the CPU, as a file is to compute it.

    Raises:
        InvalidInput: it is in training mode, in which it would be another function, or not of fp32 numbers.
    """
    name, tensors = type(module).__name__, (*module.parameters(), *module.buffers())
    if module.training:
        raise InvalidInput(f"{name} is in training mode: call its eval() before it is exported")
    if other := {t.dtype for t in tensors if t.is_floating_point()} - {torch.float32}:
        raise InvalidInput(
            f"{name} holds numbers of {', '.join(sorted(map(short, other)))}: call its float() before it is "
            "exported"
        )
    return module if {t.device.type for t in tensors} <= {"cpu"} else copy.deepcopy(module).cpu()


def fused(module: nn.Module) -> nn.Module:
    """A copy of `module` whose parts have their cheaper forms for inference, where they offer one."""
    twin = copy.deepcopy(module)
    for part in list(twin.modules()):
        if isinstance(part, Fuses):
            # a part that cannot, because a tool has put something on it, stays as it is
            with suppress(InvalidInput):
                part.fuse()
    return twin


def record(module: nn.Module, shapes: Sequence[Shape], *, for_onnx: bool) -> ExportedProgram:
    """The graph of `module` for inputs of `shapes`.

    Ops of this package stay one node each where a kernel can be named: with `for_onnx` a kernel that ONNX has
    nodes for, otherwise whichever would run.

    Raises:
        InvalidInput: the module's graph depends on a size that is to be open.
    """
    sizes = recorded_sizes(open_names(shapes))
    dynamic = tuple({i: Dim.DYNAMIC for i, s in enumerate(shape) if isinstance(s, str)} for shape in shapes)
    with (
        warnings.catch_warnings(),
        # sizes of 1 are to be no case of their own
        _config.patch(backed_size_oblivious=True),  # pyright: ignore[reportAttributeAccessIssue]
        recording_onnx() if for_onnx else nullcontext(),
    ):
        warnings.simplefilter("ignore")  # the recorder's, of its own code
        try:
            recorded = torch.export.export(module, empty(shapes, sizes), dynamic_shapes=dynamic)
        except Exception as error:  # what a module does to the recorder is not listed anywhere
            if isinstance(error, InvalidInput):
                raise
            cause = " ".join(str(error).split())
            raise InvalidInput(
                f"{type(module).__name__} cannot be recorded for any {', '.join(sizes)}: {cause[:300]}; name "
                "fewer sizes in its shape"
            ) from error
    # which an archive would keep
    recorded.example_inputs = None
    return recorded
