"""Ops of `qna.ops.OPS` as peers, by backend, made of their rows alone.

Learned-query attention has a definition that is written independently, in `learned_query`. An op without one
is held to its reference in fp64, which its own tests hold to loops over the definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

from torch import Tensor

from qna.bench.measure.contender import Contender, Peer, Setting
from qna.bench.measure.gate import pick
from qna.bench.subjects.ops import LEARNED_QUERY, case_of, op_rows


def build(setting: Setting, level: str, *, row: Any, backend: str | None) -> Contender:
    """The op on the tensors that a case of its own makes at the setting's sizes."""
    case = case_at(setting, row)
    made = case.make(setting.torch_dtype, setting.device)
    leaves = {name: t.detach().requires_grad_() for name, t in made.items() if t is not None}

    def definition(leaves: Mapping[str, Tensor], at: Tensor) -> Tensor:
        return pick(row.function(**leaves, **case.window, backend=row.backends[-1].name), at)

    def forward() -> Tensor:
        return row.function(**leaves, **case.window, backend=backend)

    terms = prod(case.kernel) + setting.dim // setting.attention_heads
    extra = {"backend": backend or "dispatched", "held_to": "its reference in fp64"}
    return Contender(forward, leaves, definition, terms, extra)


def case_at(setting: Setting, row: Any) -> Any:
    """The op's case with the setting's sizes."""
    heads = setting.attention_heads
    return case_of(
        row,
        batch=setting.batch,
        space=setting.space,
        kernel=setting.kernel,
        heads=heads,
        head_dim=setting.dim // heads,
        queries=setting.queries,
    )


def declines(setting: Setting, level: str, mode: str) -> str | None:
    """The level of layers; what a backend lacks it says itself when it is called."""
    return "an op: its layers are mixers of the registry" if level == "layer" else None


def peers_of(op: str, row: Any) -> tuple[Peer, ...]:
    """The op as dispatched, under its own name, and each backend by name."""
    chosen = {op: None, **{f"{op}-{b.name}": b.name for b in row.backends}}
    return tuple(
        Peer(name, row.name, partial(build, row=row, backend=b), declines, of_all=b is None, op=op)
        for name, b in chosen.items()
    )


PEERS = tuple(peer for op, row in op_rows().items() if op != LEARNED_QUERY for peer in peers_of(op, row))
