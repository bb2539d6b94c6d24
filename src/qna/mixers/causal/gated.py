"""Causal softmax attention with gates, and the two ways in which others lay its weights out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from qna._core.about import About
from qna._core.errors import InvalidInput, check_choice
from qna.mixers.causal.full import CausalAttention1d
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.head_gate import Gates, HeadGate
from qna.parts.linear import apply_linear
from qna.parts.rotary import HALVES, Rotary


class GatedCausalAttention1d(CausalAttention1d):
    """Attention to all that came before, gated (Qiu et al., NeurIPS 2025, arXiv 2505.06708)::

        y = out(attend(q, k, v) * sigmoid(x W))

    with W without bias, a gate for each position, head and channel, or one for each head. It costs what
    attention does, and N C w multiply-adds for w gates; the cache is the same, since a gate is its query's
    and needs nothing of other positions. With W = 0 all is halved; there is no gate that begins open.
    Gates on queries and keys stand behind their norms and before they are turned.

    Args:
        dim: channels of input and output.
        num_heads: this and the following are those of `SoftmaxAttention`.
        rope_dim: channels of a head that are turned, the first ones; None for all.
        qk_norm: queries and keys pass an RMSNorm (eps 1e-6) over a head's channels, as in Qwen3.
        gates: a `Gates`, or a mapping of its fields; None for its defaults.

    Raises:
        InvalidInput: heads do not divide, or channels of the output where they are gated by heads.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        rope_base: float | None = 10_000.0,
        rope_layout: str = HALVES,
        rope_scale: float = 1.0,
        rope_dim: int | None = None,
        qk_norm: bool = False,
        gates: Gates | Mapping[str, Any] | None = None,
    ):
        super().__init__(
            dim,
            num_heads=num_heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            bias=bias,
            rope_base=rope_base,
            rope_layout=rope_layout,
            rope_scale=rope_scale,
        )
        heads = self.heads
        if rope_dim is not None:
            if rope_base is None or not 0 < rope_dim <= heads.head_dim:
                raise InvalidInput(
                    f"rope_dim must be from 2 to {heads.head_dim}, of a mixer that turns queries and keys, "
                    f"got {rope_dim} and rope_base={rope_base}"
                )
            self.rotary = Rotary(rope_dim, rope_base, rope_layout, rope_scale)
        made = (nn.RMSNorm(heads.head_dim, eps=1e-6) if qk_norm else nn.Identity() for _ in range(2))
        self.query_norm, self.key_norm = made
        self.where = _gates(gates or {})
        if self.where.position in ("key", "value"):
            shape = heads.kv_heads, heads.head_dim
        elif self.where.position == "projected":
            if dim % num_heads:
                raise InvalidInput(
                    f"gates on what is projected divide its channels among heads: num_heads={num_heads} does "
                    f"not divide dim={dim}"
                )
            shape = num_heads, dim // num_heads
        else:
            shape = num_heads, heads.head_dim
        self.gates = HeadGate(dim, *shape, **self.where.options())
        # a text that no compiler has to make
        self._told = (
            f"rope_dim={rope_dim or heads.head_dim}, qk_norm={qk_norm}, gates={self.where.in_words()}"
        )

    def project(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, normed, gated and turned where they are."""
        query, key, value = self.heads(x)
        query, key = _normed(self.query_norm, query), _normed(self.key_norm, key)
        query, key, value = (
            self._gated(x, t) if self.where.position == name else t
            for name, t in (("query", query), ("key", key), ("value", value))
        )
        if self.rotary is not None:
            turns = self.rotary.turns_from(start, x.shape[1], query)
            query, key = self.rotary.rotate(query, turns), self.rotary.rotate(key, turns)
        return query, key, value

    def joined(self, attended: Tensor, x: Tensor) -> Tensor:
        """The heads' output, gated and projected."""
        if self.where.position == "output":
            attended = self._gated(x, attended)
        y = apply_linear(self.out, attended.transpose(1, 2).flatten(2))
        if self.where.position == "projected":
            y = self.gates(x, y.unflatten(-1, (self.heads.num_heads, -1))).flatten(2)
        return y

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for sequences of `size` = (B, N, dim), those of the gates included."""
        gate = self.gates.gate
        count = gate.out_features if isinstance(gate, nn.Linear) else 0
        return super().macs(size) + prod(size) * count

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{super().extra_repr()}, {self._told}"

    def _gated(self, x: Tensor, t: Tensor) -> Tensor:
        return self.gates(x, t.transpose(1, 2)).transpose(1, 2)


def _normed(norm: nn.Module, t: Tensor) -> Tensor:
    """In the dtype of the norm's weight, which autocast leaves as it is."""
    return norm(t.to(norm.weight.dtype)).to(t.dtype) if isinstance(norm, nn.RMSNorm) else t


def _gates(told: Gates | Mapping[str, Any]) -> Gates:
    if isinstance(told, Gates):
        return told
    known = [f.name for f in fields(Gates)]
    if strange := [name for name in told if name not in known]:
        raise InvalidInput(f"gates do not take {', '.join(strange)}; they take {', '.join(known)}")
    return Gates(**told)


# how queries and gates share a map: those of the heads that share keys together, or head by head
AUTHORS, TRANSFORMERS = "authors", "transformers"
LAYOUTS = (AUTHORS, TRANSFORMERS)
_NAMES = {
    "heads.key": "k_proj",
    "heads.value": "v_proj",
    "out": "o_proj",
    "query_norm": "q_norm",
    "key_norm": "k_norm",
}


def from_fused(
    state: Mapping[str, Tensor], layout: str, *, num_heads: int, kv_heads: int, head_dim: int
) -> dict[str, Tensor]:
    """Weights of one layer of others' gated attention, under the names of `GatedCausalAttention1d`.

    Args:
        state: "q_proj.weight" and so on, of queries and gates in one map.
        layout: "authors": of qiuzh20/gated_attention, where queries of the heads that share keys are followed
            by their gates; or "transformers", of Qwen3-Next, where each head's queries are, and RMSNorms
            multiply by one more than their weight. With as many heads of keys as of queries both are one.
        num_heads: of queries.
        kv_heads: of keys and values.
        head_dim: channels of a head.

    Raises:
        InvalidInput: sizes that are neither those of gates for each channel nor for each head.
        UnknownName: another layout, with the nearest names.
    """
    shared = _shared(layout, num_heads, kv_heads)
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, kind = name.rsplit(".", 1)
        if module == "q_proj":
            per = _width(layout, len(tensor), num_heads, head_dim)
            groups = tensor.unflatten(0, (num_heads // shared, shared * (head_dim + per)))
            query, gate = groups.split([shared * head_dim, shared * per], 1)
            found[f"heads.query.{kind}"], found[f"gates.gate.{kind}"] = (
                query.flatten(0, 1),
                gate.flatten(0, 1),
            )
        else:
            ours = next((ours for ours, theirs in _NAMES.items() if theirs == module), None)
            if ours is None:
                raise InvalidInput(
                    f"a layer of gated attention has no {name}; it has q_proj, {', '.join(_NAMES.values())}"
                )
            more = 1.0 if layout == TRANSFORMERS and module.endswith("_norm") else 0.0
            found[f"{ours}.{kind}"] = tensor + more if more else tensor
    return found


def to_fused(mixer: GatedCausalAttention1d, layout: str) -> dict[str, Tensor]:
    """The way back: weights of the mixer under others' names; see `from_fused`.

    Raises:
        InvalidInput: gates that share no map with queries in others' code: elsewhere than on the output,
            shared, added or without input; or, for transformers, one for each head.
        UnknownName: another layout, with the nearest names.
    """
    heads, where = mixer.heads, mixer.where
    fused = where == Gates(per=where.per, bias=where.bias)
    if not fused or (layout == TRANSFORMERS and where.per == "head"):
        raise InvalidInput(f"the layout of {layout} has no place for {where.in_words()}")
    shared = _shared(layout, heads.num_heads, heads.kv_heads)
    state = mixer.state_dict()
    found: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        query, gate = (state.get(f"{name}.{kind}") for name in ("heads.query", "gates.gate"))
        if query is None and gate is None:
            continue
        if query is None or gate is None:
            raise InvalidInput(
                "queries and gates share a map, so both have a bias or none has; got "
                f"bias={query is not None} and Gates.bias={where.bias}"
            )
        parts = [t.unflatten(0, (heads.num_heads // shared, -1)) for t in (query, gate)]
        found[f"q_proj.{kind}"] = torch.cat(parts, 1).flatten(0, 1)
    for name, tensor in state.items():
        module, kind = name.rsplit(".", 1)
        if module in _NAMES:
            less = 1.0 if layout == TRANSFORMERS and module.endswith("_norm") else 0.0
            found[f"{_NAMES[module]}.{kind}"] = tensor - less if less else tensor
    return found


def _shared(layout: str, num_heads: int, kv_heads: int) -> int:
    """Heads whose queries lie together."""
    check_choice("layout of gated attention", layout, LAYOUTS)
    return num_heads // kv_heads if layout == AUTHORS else 1


def _width(layout: str, rows: int, num_heads: int, head_dim: int) -> int:
    """Gates of a head."""
    for per in (head_dim, 1):
        if rows == num_heads * (head_dim + per) and (per > 1 or layout == AUTHORS):
            return per
    raise InvalidInput(
        f"q_proj of {num_heads} heads of {head_dim} has {2 * num_heads * head_dim} rows with gates for each "
        f"channel and, of the authors, {num_heads * (head_dim + 1)} with one for each head, got {rows}"
    )


ROW = MixerRow(
    GatedCausalAttention1d,
    About(
        title="Gated Attention for Large Language Models: Non-linearity, Sparsity, and Attention-Sink-Free",
        authors="Qiu, Wang, Zheng et al.",
        venue="NeurIPS 2025",
        arxiv="2505.06708",
        read="the abstract; the authors' code, qiuzh20/gated_attention at 49645df (MIT), and transformers "
        "5.24's Qwen3-Next (Apache-2.0)",
        differs="gates have a map of their own, where theirs share one with the queries (`from_fused`, "
        "`to_fused`); softmax and norms stay in double precision where the input is",
        status="exact",
    ),
    Example((9,), {"num_heads": 4, "kv_heads": 2, "qk_norm": True}),
    Traits(1, heads=True, causal=True),
)
