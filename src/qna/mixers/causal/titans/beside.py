"""Memory beside attention: as a gate (MAG) and as a layer before it (MAL)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qna._core import checks
from qna.mixers.causal.mixer import CausalMixer
from qna.mixers.causal.sliding import SlidingAttention1d
from qna.mixers.causal.titans.memory import ABOUT, NeuralMemory1d
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.sequence_state import SequenceState


class MemoryBeside(CausalMixer):
    """A neural memory and attention in a sliding window, both of which have read persistent tokens first.

    Args:
        dim: channels of input and output.
        num_heads: heads of both.
        window: positions that attention sees, each its own among them.
        persistent: learned tokens before the sequence; attention sees them from everywhere.
        kv_heads: of attention's keys and values, a divisor of `num_heads`; None for as many.
        rope_base: of attention's rotary positions; None for none.
        memory: further arguments of `NeuralMemory1d`.

    Raises:
        InvalidInput: as both, or `persistent` below 0.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window: int,
        persistent: int = 4,
        kv_heads: int | None = None,
        rope_base: float | None = 10_000.0,
        memory: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        checks.natural(type(self).__name__, persistent=persistent)
        self.dim = self.out_dim = dim
        self.persistent = nn.Parameter(torch.empty(persistent, dim))
        nn.init.normal_(self.persistent, std=0.02)
        self.attention = SlidingAttention1d(
            dim, window=window, sinks=persistent, num_heads=num_heads, kv_heads=kv_heads, rope_base=rope_base
        )
        self.memory = NeuralMemory1d(dim, num_heads=num_heads, **(memory or {}))
        self.complete()

    def complete(self) -> None:
        """Make what stands beside both."""
        return

    @abstractmethod
    def both(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState, SequenceState]:
        """The next outputs, and the states of attention and of memory."""

    def begin(self, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """Both, behind the persistent tokens."""
        held = {
            name: mixer.init_state(batch, device=device, dtype=dtype)
            for name, mixer in (("attention", self.attention), ("memory", self.memory))
        }
        if not len(self.persistent):
            return held
        prefix = self.persistent.to(device=device).expand(batch, -1, -1)
        state = SequenceState(self.configuration, batch, 0, held)
        _, attention, memory = self.both(prefix, state)
        return {"attention": attention, "memory": memory}

    def advance(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """One behind, or beside, the other."""
        y, attention, memory = self.both(x, state)
        return y, state.after(x.shape[1], attention=attention, memory=memory)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for sequences of `size` = (B, N, dim), persistent tokens included."""
        return sum(mixer.macs(self._behind(size)) for mixer in (self.attention, self.memory))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: the larger of both, and what the other gave."""
        behind = self._behind(size)
        return max(self.attention.held(behind), self.memory.held(behind)) + size[0] * size[1] * self.dim

    def state_bytes(self, size: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
        """Bytes of both states."""
        return sum(mixer.state_bytes(self._behind(size), dtype) for mixer in (self.attention, self.memory))

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        told = ", ".join(mixer.extra_repr() for mixer in (self.attention, self.memory))
        return f"{told}, persistent={len(self.persistent)}"

    def _behind(self, size: Sequence[int]) -> tuple[int, int, int]:
        return size[0], size[1] + len(self.persistent), self.dim


class MemoryAsGate1d(MemoryBeside):
    """Titans' MAG (Behrouz, Zhong, Mirrokni, arXiv 2501.00663, section 4.2)::

        out = RMSNorm(attention([P, x])) * sigmoid(RMSNorm(memory([P, x])))

    with learned persistent tokens P and attention in a sliding window, so that the state does not grow. The
    learned vectors of both norms are the paper's; that the sigmoid is of the memory is our reading. Arguments
    of `MemoryBeside`.
    """

    def complete(self) -> None:
        """Two norms."""
        self.attention_norm, self.memory_norm = (nn.RMSNorm(self.dim, eps=1e-6) for _ in range(2))

    def both(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState, SequenceState]:
        """Side by side."""
        y, attention = self.attention.step(x, state["attention"])
        z, memory = self.memory.step(x, state["memory"])
        weight = self.memory_norm.weight
        y, z = self.attention_norm(y.to(weight.dtype)), self.memory_norm(z.to(weight.dtype))
        return (y * z.sigmoid()).to(x.dtype), attention, memory


class MemoryAsLayer1d(MemoryBeside):
    """Titans' MAL (Behrouz, Zhong, Mirrokni, arXiv 2501.00663, section 4.3)::

        out = attention(memory([P, x]))

    with learned persistent tokens P and attention in a sliding window, so that the state does not grow.
    Arguments of `MemoryBeside`.
    """

    def both(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState, SequenceState]:
        """Memory first."""
        z, memory = self.memory.step(x, state["memory"])
        y, attention = self.attention.step(z, state["attention"])
        return y, attention, memory


_STEPS = "mixers inside go on from states, by step, which no hook sees"
_MEMORY = {"chunk": 16, "step": 0.01, "decay": False}
_EXAMPLE = {"num_heads": 2, "window": 3, "persistent": 2, "memory": _MEMORY}
ROWS = tuple(
    MixerRow(
        mixer,
        replace(ABOUT, differs=differs),
        Example((9,), _EXAMPLE, long={"window": 1024, "memory": {"chunk": 64}}),
        Traits(1, heads=True, causal=True),
        exempt={"hooks_fire_on_every_module": _STEPS},
    )
    for mixer, differs in (
        (MemoryAsGate1d, "of the two that are normed the memory passes the sigmoid; the norms are RMSNorms"),
        (MemoryAsLayer1d, "heads of attention are as many as the memory's"),
    )
)
