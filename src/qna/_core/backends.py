"""Backend selection: each backend declares its limits once; dispatch, error text and `qna doctor` read them.

A backend answers two questions with lists of sentences: what this machine lacks (`missing`), and why it
cannot take these inputs (`declines`). Dispatch takes the first backend with no answer to either.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from qna._core.errors import NoBackend, check_choice

logger = logging.getLogger("qna")


class OpInputs(Protocol):
    """What an op hands to its backends; `describe` is the line that error texts print."""

    @property
    def device(self) -> torch.device:
        """Where all tensors are."""
        ...

    def describe(self) -> str:
        """Shapes, dtypes and devices in one line."""
        ...


@dataclass(frozen=True)
class Backend:
    """One implementation of an op, with the limits that it declares.

    Attributes:
        name: what a caller writes in ``backend=``.
        device: device type that it serves, or None for all. ``backend=None`` asks no other; a faster backend
            that serves the inputs' device and still declines is worth a notice.
        missing: sentences on what this machine lacks, empty where the backend can run.
        declines: sentences on why these inputs cannot run, empty where they can.
        run: the implementation.
    """

    name: str
    device: str | None
    missing: Callable[[], list[str]]
    declines: Callable[[Any], list[str]]
    run: Callable[..., torch.Tensor]

    def reasons(self, inputs: OpInputs) -> list[str]:
        """Every reason why this backend cannot run `inputs` here; empty if it can."""
        return [*self.missing(), *self.declines(inputs)]


_default: str | None = None
_noticed: set[tuple[str, str]] = set()


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Make `name` what ``backend=None`` means inside the block; the way to export or debug a whole model.

    A named backend never falls back. Ops check the name when they are called.
    """
    global _default  # noqa: PLW0603 - a ContextVar would break torch.compile(fullgraph=True)
    before, _default = _default, name
    try:
        yield
    finally:
        _default = before


def select(op: str, backends: Sequence[Backend], inputs: OpInputs, requested: str | None) -> Backend:
    """Return the backend that runs `inputs`.

    Args:
        op: public name of the op, for the error text.
        backends: the op's backends, fastest first.
        inputs: what the backends judge.
        requested: a backend's name, which never falls back, or None for the first that can.

    Raises:
        NoBackend: with the inputs, every backend asked and each of its reasons.
    """
    requested = _default if requested is None else requested
    if requested is not None:
        check_choice("backend", requested, [b.name for b in backends])
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
