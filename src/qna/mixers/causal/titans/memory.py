"""The neural memory of Titans: weights that learn, while a sequence is read, to give values for keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.errors import InvalidInput
from qna.mixers.causal.mixer import CausalMixer
from qna.mixers.causal.titans.learning import Lesson, Weights, forward, learned, lesson, read, spread
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.precision import without_autocast
from qna.parts.sequence_state import SequenceState

ABOUT = About(
    title="Titans: Learning to Memorize at Test Time",
    authors="Behrouz, Zhong, Mirrokni",
    venue="arXiv 2025",
    arxiv="2501.00663",
    read="notes on the paper's equations; its authors published no code",
    differs="",
    status="after",
)


class NeuralMemory1d(CausalMixer):
    """A memory that is learned while it is read (Behrouz, Zhong, Mirrokni, arXiv 2501.00663, section 3)::

        k, v, q = conv(x W_K), conv(x W_V), conv(x W_Q)        k, q of norm 1 in each head
        S_t = eta_t S_(t-1) - theta_t grad |M(k_t) - v_t|^2
        M_t = (1 - alpha_t) M_(t-1) + S_t                      y_t = M_t(q_t)
        out = (RMSNorm(y) * sigmoid(x W_G)) W_O

    In each head M is an MLP of `depth` layers; each token computes eta and alpha in (0, 1) and theta up to
    `step`. Gradients are taken at the weights with which the chunk of `chunk` positions began, so a chunk of
    1 is the recurrence itself and larger ones are faster and another function; chunks are counted from the
    first position of the sequence, whatever parts it comes in. It knows order by what it has read alone.

    Of N positions with C channels, heads of d, memories of p weights a head and chunks of c it takes about
    ``N (6 C^2 + h (6 p + c (2 depth + 1) d))`` multiply-adds; the state is ``h (2 p + c (2 depth d + 3))``
    numbers and the tail of the convolutions, whatever the length, and is kept in single precision at least.

    A memory of several layers that has forgotten everything learns nothing any more: at weights of 0 its
    gradients are 0. A linear one does.

    Ours, where the public text is open: SiLU between layers, hidden layers of `expansion` d channels, no
    residual and no norm inside the memory, heads, that norm and gate, gates by a sigmoid of a linear map of
    the input.

    Args:
        dim: channels of input and output.
        num_heads: memories side by side; divides `dim`.
        depth: layers of a memory; 1 is linear.
        expansion: hidden channels of a memory, in channels of a head.
        chunk: positions whose gradients are taken at once.
        conv: positions of the depthwise convolutions, each position among them; 1 for none.
        momentum: whether past surprise moves the weights; without, eta is 0.
        decay: whether weights are forgotten; without, alpha is 0.

        step: the largest theta. Steps of a chunk add up, so larger chunks and more layers bear smaller ones:
            at first weights and with random input, two layers stayed finite over 8,192 positions with 0.05
            and chunks of 16 and 64, and ran away with chunks of 128, or with 0.1 and chunks of 64.

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, sizes below 1, or a step that is not above 0.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        depth: int = 2,
        expansion: int = 1,
        chunk: int = 16,
        conv: int = 4,
        momentum: bool = True,
        decay: bool = True,
        step: float = 0.05,
    ):
        super().__init__()
        owner = type(self).__name__
        checks.positive(owner, depth=depth, expansion=expansion, chunk=chunk, conv=conv)
        if not 0 < step < math.inf:
            raise InvalidInput(f"{owner}: step must be above 0 and finite, got {step}")
        self.dim = self.out_dim = dim
        self.step_size = float(step)
        self.num_heads, self.head_dim = num_heads, checks.head_dim(owner, dim, num_heads)
        self.depth, self.expansion, self.chunk, self.conv = depth, expansion, chunk, conv
        self.momentum, self.decay = momentum, decay
        self.query, self.key, self.value, self.gate, self.out = (
            nn.Linear(dim, dim, bias=False) for _ in range(5)
        )
        # theta, eta and alpha of every head
        self.rates = nn.Linear(dim, (1 + momentum + decay) * num_heads)
        for linear in (self.query, self.key, self.value, self.gate, self.out, self.rates):
            init_linear_(linear)
        self.convs = nn.Parameter(torch.zeros(3, dim, conv))
        self.norm = nn.RMSNorm(self.head_dim, eps=1e-6)
        widths = [self.head_dim, *[expansion * self.head_dim] * (depth - 1), self.head_dim]
        # no list of parameters, which is a module that nobody calls
        for layer, (inner, out) in enumerate(pairwise(widths)):
            self.register_parameter(f"memory{layer}", nn.Parameter(torch.empty(num_heads, out, inner)))
        self.reset_parameters()

    @property
    def memory(self) -> tuple[Tensor, ...]:
        """Weights of the memory before the first position, of each layer: (heads, out, in)."""
        return tuple(getattr(self, f"memory{layer}") for layer in range(self.depth))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Convolutions that pass their position on, memories of unit gain, half the step, slow decay."""
        self.convs.zero_()
        self.convs[..., -1] = 1.0
        for weight in self.memory:
            nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
        self.rates.bias.zero_()
        if self.decay:
            self.rates.bias[-self.num_heads :] = -8.0

    def begin(self, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """The memory that is learned outside, nothing that moves it, and nothing before the first
        position."""
        exact = torch.promote_types(dtype, torch.float32)
        weights = [w.to(device=device, dtype=exact).expand(batch, *w.shape) for w in self.memory]
        heads = batch, self.num_heads
        held: dict[str, Any] = {
            "tail": torch.zeros(batch, self.conv - 1, 3 * self.dim, device=device, dtype=dtype)
        }
        for layer, weight in enumerate(weights):
            held[f"weights{layer}"], held[f"momenta{layer}"] = weight, torch.zeros_like(weight)
            held[f"inputs{layer}"] = weight.new_zeros(*heads, 0, weight.shape[-1])
            held[f"errors{layer}"] = weight.new_zeros(*heads, 0, weight.shape[-2])
        for name in ("rate", "keep", "forget"):
            held[name] = weights[0].new_zeros(*heads, 0)
        return held

    def advance(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Chunk by chunk; the last one may stay open."""
        (query, key, value), tail = self._projected(x, state["tail"])
        weights, momenta, open_lesson = self._held(state)
        gates = self._gates(x, weights[0].dtype)
        parts, begin, n = [], 0, x.shape[1]
        with without_autocast(x.device):
            query, key, value = (self._heads(t).to(weights[0].dtype) for t in (query, key, value))
            query, key = _of_norm_one(query), _of_norm_one(key)
            while begin < n:
                stop = min(n, begin + self.chunk - len(open_lesson))
                new = lesson(
                    weights,
                    key[:, :, begin:stop],
                    value[:, :, begin:stop],
                    tuple(g[..., begin:stop] for g in gates),
                )
                open_lesson = open_lesson.followed_by(new)
                reach = spread(open_lesson.rate, open_lesson.keep, open_lesson.decay)
                parts.append(read(weights, momenta, open_lesson, reach, query[:, :, begin:stop]))
                if len(open_lesson) == self.chunk:
                    weights, momenta = learned(weights, momenta, open_lesson, reach)
                    open_lesson = _nothing(open_lesson)
                begin = stop
            y = torch.cat(parts, 2) if parts else query
            y = self.norm(y.to(self.norm.weight.dtype)).transpose(1, 2).flatten(2)
        y = y.to(x.dtype) * apply_linear(self.gate, x).sigmoid()
        return apply_linear(self.out, y), state.after(n, tail=tail, **_named(weights, momenta, open_lesson))

    def recall(self, x: Tensor, weights: Weights) -> Tensor:
        """What weights give back for tokens that they do not learn from: (B, N, C) -> (B, N, C).

        Args:
            x: tokens; their queries pass no convolution.
            weights: of each layer, (B, heads, out, in), as a state holds them.
        """
        query = self._heads(F.silu(apply_linear(self.query, x)))
        with without_autocast(x.device):
            query = _of_norm_one(query.to(weights[0].dtype))
            y = self.norm(forward(weights, query).to(self.norm.weight.dtype))
        return y.transpose(1, 2).flatten(2).to(x.dtype)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for sequences of `size` = (B, N, dim)."""
        positions = math.prod(size[:2])
        maps = 5 * self.dim**2 + self.rates.out_features * self.dim + 3 * self.dim * self.conv
        weights = sum(w[0].numel() for w in self.memory)
        later = sum(w[0].numel() for w in self.memory[1:])
        wide = sum(sum(w.shape[1:]) for w in self.memory)
        whole, rest = divmod(size[1], self.chunk)
        # a key forward and its errors back, a query through weights and momenta, and the pairs of a chunk
        each = 3 * weights + later
        pairs = whole * self.chunk**2 + rest**2
        moved = whole * self.chunk * 2 * weights
        products = whole * (self.chunk**3 + self.chunk**2) + rest**3 + rest**2
        heads = size[1] * each + pairs * wide + moved + products
        return positions * maps + size[0] * self.num_heads * heads

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, keys and values, turned into heads and normed."""
        return 6 * math.prod(size[:2]) * self.dim

    def state_bytes(self, size: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
        """Bytes of weights, momenta, what the open chunk taught and the convolutions' tail."""
        exact = torch.promote_types(dtype, torch.float32).itemsize
        taught = size[1] % self.chunk
        weights = 2 * sum(w.numel() for w in self.memory)
        tokens = taught * self.num_heads * (3 + sum(sum(w.shape[1:]) for w in self.memory))
        tail = (self.conv - 1) * 3 * self.dim * dtype.itemsize
        return size[0] * (exact * (weights + tokens) + tail)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return (
            f"{self.dim}, num_heads={self.num_heads}, depth={self.depth}, expansion={self.expansion}, "
            f"chunk={self.chunk}, conv={self.conv}, momentum={self.momentum}, decay={self.decay}, "
            f"step={self.step_size:g}"
        )

    def _projected(self, x: Tensor, tail: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Queries, keys and values (B, N, C) behind convolution and SiLU, and the inputs that the next
        need."""
        made = torch.cat([apply_linear(linear, x) for linear in (self.query, self.key, self.value)], -1)
        every = torch.cat([tail.to(made.dtype), made], 1)
        kernels = self.convs.flatten(0, 1)[:, None].to(made.dtype)
        mixed = F.conv1d(every.mT, kernels, groups=len(kernels)).mT
        kept = every[:, every.shape[1] - (self.conv - 1) :].to(tail.dtype)
        return F.silu(mixed).chunk(3, -1), kept

    def _gates(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """theta, eta and alpha of every head, (B, h, N)."""
        made = list(apply_linear(self.rates, x).to(dtype).sigmoid().mT.split(self.num_heads, 1))
        zero = torch.zeros_like(made[0])
        rate = self.step_size * made.pop(0)
        keep = made.pop(0) if self.momentum else zero
        return rate, keep, made.pop(0) if self.decay else zero

    def _heads(self, t: Tensor) -> Tensor:
        return t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _held(self, state: SequenceState) -> tuple[Weights, Weights, Lesson]:
        names = ("weights", "momenta", "inputs", "errors")
        weights, momenta, inputs, errors = (
            tuple(state[f"{name}{layer}"] for layer in range(self.depth)) for name in names
        )
        return weights, momenta, Lesson(inputs, errors, state["rate"], state["keep"], state["forget"])


def _of_norm_one(t: Tensor) -> Tensor:
    return t / t.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def _nothing(taught: Lesson) -> Lesson:
    """The lesson of no token."""
    inputs, errors = (tuple(t[:, :, :0] for t in every) for every in (taught.inputs, taught.errors))
    return replace(
        taught, inputs=inputs, errors=errors, rate=taught.rate[..., :0], keep=taught.keep[..., :0],
        decay=taught.decay[..., :0],
    )  # fmt: skip


def _named(weights: Weights, momenta: Weights, taught: Lesson) -> dict[str, Tensor]:
    """As a state holds them."""
    held = {"rate": taught.rate, "keep": taught.keep, "forget": taught.decay}
    for name, every in (
        ("weights", weights), ("momenta", momenta), ("inputs", taught.inputs), ("errors", taught.errors),
    ):  # fmt: skip
        held |= {f"{name}{layer}": tensor for layer, tensor in enumerate(every)}
    return held


ROW = MixerRow(
    NeuralMemory1d,
    replace(
        ABOUT,
        differs="heads, SiLU inside the memory and the norm and gate behind it are our choice; gates are per "
        "token and head",
    ),
    Example(
        (9,),
        {"num_heads": 2, "chunk": 16, "step": 0.01, "decay": False},
        long={"chunk": 64, "step": 0.05, "decay": True},
    ),
    Traits(1, heads=True, causal=True),
)
