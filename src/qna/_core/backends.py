"""Backend selection: each backend declares its limits once; dispatch, error text and `qna doctor` read them.

A backend answers two questions with lists of sentences: what this machine lacks (`missing`), and what of
its limits keeps these inputs from it (`reasons`). Dispatch takes the first backend with no answer to either.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch.autograd import forward_ad

from qna._core.errors import NoBackend, check_choice

logger = logging.getLogger("qna")


class OpInputs(Protocol):
    """What an op hands to its backends; `describe` is the line that error texts print."""

    @property
    def device(self) -> torch.device:
        """Where all tensors are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the maps."""
        ...

    @property
    def tensors(self) -> Sequence[torch.Tensor | None]:
        """All of them."""
        ...

    def describe(self) -> str:
        """Shapes, dtypes and devices in one line."""
        ...


def _nothing(*_: Any) -> list[str]:
    return []


# of the backends of all ops
_names: set[str] = set()


@dataclass(frozen=True)
class Backend:
    """One implementation of an op, with the limits that it declares.

    Attributes:
        name: what a caller writes in ``backend=``.
        run: the implementation.
        device: device type that it serves, or None for all. ``backend=None`` asks no other; a faster backend
            that serves the inputs' device and still declines is worth a notice.
        dtypes: of maps that it takes, or None for all.
        most: sizes of the inputs by the name of their attribute, and how large each may be.
        opaque: whether torch sees one call and not what is computed, so that no transform, tangent or trace
            passes through it.
        missing: sentences on what this machine lacks, empty where the backend can run.
        declines: sentences on what else keeps these inputs from it, empty where nothing does.
        onnx: of its ops in torch, by their names, what writes a recorded call as nodes of ONNX: a function of
            the op's arguments, tensors and open sizes being values of onnxscript.
    """

    name: str
    run: Callable[..., Any]
    device: str | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    most: Mapping[str, int] = field(default_factory=dict)
    opaque: bool = False
    missing: Callable[[], list[str]] = _nothing
    declines: Callable[[Any], list[str]] = _nothing
    onnx: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def __post_init__(self):
        _names.add(self.name)

    def reasons(self, inputs: OpInputs) -> list[str]:
        """Every reason why this backend cannot run `inputs` here; empty if it can."""
        # what is only recorded needs nothing of this machine
        reasons = [] if _recording_onnx and self.onnx else list(self.missing())
        if self.opaque:
            if _recording_onnx and not self.onnx:
                reasons.append("a graph is recorded for ONNX, which has no nodes for what it computes")
            reasons += _seen_through(inputs)
        if self.device is not None and inputs.device.type != self.device:
            reasons.append(f"device is {inputs.device.type}, needs {self.device}")
        if self.dtypes is not None and inputs.dtype not in self.dtypes:
            names = ", ".join(map(short, self.dtypes))
            reasons.append(f"dtype is {short(inputs.dtype)}, needs one of ({names})")
        for name, most in self.most.items():
            if (size := getattr(inputs, name)) > most:
                reasons.append(f"{name} is {size}, needs at most {most}")
        return reasons + self.declines(inputs)


def short(dtype: torch.dtype) -> str:
    """A dtype's name without the module's."""
    return str(dtype).removeprefix("torch.")


def _seen_through(inputs: OpInputs) -> list[str]:
    """What of torch wants to see all that is computed of these inputs, and would be wrong without."""
    if torch.onnx.is_in_onnx_export():
        return ["torch.onnx.export is recording, and ONNX has no such operation but what the reference uses"]
    # torch.compile has transforms and traces of its own, and cannot trace the questions
    if torch.compiler.is_compiling():
        return []
    reasons = []
    if torch._C._are_functorch_transforms_active():
        reasons.append("a torch.func transform is active, which only the reference can follow")
    # outside of a level no tensor has a tangent
    elif forward_ad._current_level >= 0 and any(
        t is not None and forward_ad.unpack_dual(t).tangent is not None for t in inputs.tensors
    ):
        reasons.append("a tensor has a tangent of forward-mode AD, which only the reference can carry on")
    if torch._C._get_tracing_state() is not None:
        reasons.append("torch.jit.trace is recording, which only the reference lets see what is computed")
    return reasons


_default: str | None = None
_recording_onnx = False
_noticed: set[tuple[str, str]] = set()


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Make `name` what ``backend=None`` means inside the block; the way to export or debug a whole model.

    A named backend never falls back. An op that has none of this name takes what it would outside of the
    block. Ops check the name when they are called.
    """
    global _default  # noqa: PLW0603 - a ContextVar would break torch.compile(fullgraph=True)
    before, _default = _default, name
    try:
        yield
    finally:
        _default = before


@contextmanager
def recording_onnx() -> Iterator[None]:
    """Inside the block graphs are recorded for ONNX: opaque backends serve if they have nodes for it."""
    global _recording_onnx  # noqa: PLW0603 - as above
    before, _recording_onnx = _recording_onnx, True
    try:
        yield
    finally:
        _recording_onnx = before


def select(op: str, backends: Sequence[Backend], inputs: OpInputs, requested: str | None) -> Backend:
    """Return the backend that runs `inputs`.

    Args:
        op: public name of the op, for the error text.
        backends: the op's backends, fastest first.
        inputs: what the backends judge.
        requested: a backend's name, which never falls back, or None for the first that can.

    Raises:
        UnknownName: with the nearest names.
        NoBackend: with the inputs, every backend asked and each of its reasons.
    """
    own = [b.name for b in backends]
    if requested is not None:
        check_choice("backend", requested, own)
    elif _default is not None and check_choice("backend", _default, _names) in own:
        requested = _default
    declined: list[tuple[Backend, list[str]]] = []
    device = inputs.device.type
    for backend in backends:
        if backend.name != requested if requested is not None else backend.device not in (None, device):
            continue
        reasons = backend.reasons(inputs)
        if not reasons:
            if declined and not torch.compiler.is_compiling():
                _notice(op, declined, backend)
            return backend
        declined.append((backend, reasons))
    raise NoBackend(_no_backend_text(op, declined, backends, inputs, requested))


def _notice(op: str, faster: list[tuple[Backend, list[str]]], chosen: Backend) -> None:
    """Say once per op and chosen backend that a faster one for this device exists and why it is not used."""
    if (op, chosen.name) not in _noticed:
        _noticed.add((op, chosen.name))
        why = "; ".join(f"{b.name}: {', '.join(reasons)}" for b, reasons in faster)
        logger.warning("%s runs on backend %r, because %s. More: qna doctor", op, chosen.name, why)


def _no_backend_text(
    op: str,
    declined: list[tuple[Backend, list[str]]],
    backends: Sequence[Backend],
    inputs: OpInputs,
    requested: str | None,
) -> str:
    lines = [f"{op}: no backend can run {inputs.describe()}, backend={requested!r}"]
    for backend, reasons in declined:
        lines += [f"  {backend.name}:", *(f"    - {reason}" for reason in reasons)]
    others = [b.name for b in backends if b not in [d for d, _ in declined] and not b.reasons(inputs)]
    lines.append(f"  Try: {' or '.join(f'backend={n!r}' for n in [*others, None])}. More: qna doctor")
    return "\n".join(lines)
