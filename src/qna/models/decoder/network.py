"""A decoder of sequences of tokens whose layers mix by any causal mixer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import InvalidInput, check_choice
from qna.mixers import MIXERS
from qna.models._parts.decay import exempt_names
from qna.models._parts.recompute import recomputed
from qna.models.decoder.variants import DecoderVariant
from qna.parts.gated_mlp import GatedMlp
from qna.parts.kv_cache import CachePolicy
from qna.parts.linear import apply_linear
from qna.parts.protocols import GoesOn, KeepsByPolicy
from qna.parts.sequence_state import SequenceState


class DecoderBlock(nn.Module):
    """``x = x + mixer(norm1(x))``, then ``x = x + mlp(norm2(x))``, on sequences (B, N, dim).

    Args:
        dim: channels.
        mixer: causal: (B, N, dim) -> (B, N, dim).
        hidden: channels of the gated MLP.
        norm_eps: of both norms.
    """

    def __init__(self, dim: int, mixer: nn.Module, *, hidden: int, norm_eps: float):
        super().__init__()
        self.norm1 = nn.RMSNorm(dim, eps=norm_eps)
        self.mixer = mixer
        self.norm2 = nn.RMSNorm(dim, eps=norm_eps)
        self.mlp = GatedMlp(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def step(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """The same of the next positions, and the mixer's state then."""
        mixed, state = cast(GoesOn, self.mixer).step(self.norm1(x), state)
        x = x + mixed
        return x + self.mlp(self.norm2(x)), state


class Decoder(nn.Module):
    """Tokens to logits of the token that follows each: embedding, blocks, norm, head.

    The network of LLaMA (Touvron et al., arXiv 2302.13971): RMSNorm before each branch, rotary positions
    inside the mixers that have them, gated MLPs, no biases. In the place of its attention stands any causal
    mixer, or several that layers take in turn.

    Args:
        vocabulary: tokens that there are.
        variant: widths, depth and mixers.
        max_length: positions that a sequence may have; None for any, as all mixers here take.

    Raises:
        UnknownName: for a mixer that there is not or an argument that it does not take, with the nearest.
        InvalidInput: a mixer that is not causal, or refuses its arguments.
    """

    def __init__(self, vocabulary: int, variant: DecoderVariant, *, max_length: int | None = None):
        super().__init__()
        v = variant
        checks.positive("Decoder", vocabulary=vocabulary, dim=v.dim, depth=v.depth, hidden=v.hidden)
        if max_length is not None:
            checks.positive("Decoder", max_length=max_length)
        self.vocabulary, self.variant, self.max_length = vocabulary, v, max_length
        self.embed = nn.Embedding(vocabulary, v.dim)
        mixers = turns(v)
        self.blocks = nn.ModuleList(
            DecoderBlock(
                v.dim, build_mixer(v, *mixers[i % len(mixers)]), hidden=v.hidden, norm_eps=v.norm_eps
            )
            for i in range(v.depth)
        )
        self.norm = nn.RMSNorm(v.dim, eps=v.norm_eps)
        self.head = None if v.tied else nn.Linear(v.dim, vocabulary, bias=False)
        for layer in (self.embed, self.head):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02)
        self.grad_checkpointing = False

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 (B, N) -> logits (B, N, vocabulary)."""
        self._check(tokens, 0)
        x = self.embed(tokens)
        for block in self.blocks:
            x = recomputed(block, x) if self.grad_checkpointing and self.training else block(x)
        return self._logits(x)

    def init_state(
        self,
        batch: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        policy: CachePolicy | None = None,
    ) -> SequenceState:
        """What is known before the first token of `batch` sequences.

        Args:
            batch: sequences.
            device: where it lies; None for where the weights do.
            dtype: of what is kept; None for the weights'.
            policy: what layers with keys and values keep of them; None for all that they can see.

        Raises:
            InvalidInput: a policy, and no layer that keeps by one.
        """
        place = {"device": device, "dtype": dtype}
        mixers = [block.mixer for block in cast(Sequence[DecoderBlock], self.blocks)]
        if policy is not None and not any(isinstance(mixer, KeepsByPolicy) for mixer in mixers):
            names = ", ".join(sorted({type(mixer).__name__ for mixer in mixers}))
            raise InvalidInput(f"{policy} is for layers that keep keys and values, and {names} do not")
        held = {}
        for i, mixer in enumerate(mixers):
            if policy is not None and isinstance(mixer, KeepsByPolicy):
                held[f"block{i}"] = mixer.policy_state(batch, policy, **place)
            else:
                held[f"block{i}"] = cast(GoesOn, mixer).init_state(batch, **place)
        return SequenceState(self.configuration, batch, 0, held)

    def step(self, tokens: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Go on with the next tokens, a whole prompt or one: int64 (B, N) -> logits (B, N, vocabulary).

        Raises:
            InvalidInput: the state is another model's or of another number of sequences, or the sequence
                becomes longer than `max_length`.
        """
        self._check(tokens, state.length)
        state.check(self.configuration, tokens.shape[0])
        x, held = self.embed(tokens), {}
        for i, block in enumerate(cast(Sequence[DecoderBlock], self.blocks)):
            x, held[f"block{i}"] = block.step(x, state[f"block{i}"])
        return self._logits(x), state.after(tokens.shape[1], **held)

    def state_bytes(self, size: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
        """Bytes of the state after sequences of `size` = (B, N)."""
        inner = (*size[:2], self.variant.dim)
        mixers = [cast(GoesOn, block.mixer) for block in cast(Sequence[DecoderBlock], self.blocks)]
        return sum(mixer.state_bytes(inner, dtype) for mixer in mixers)

    @property
    def configuration(self) -> str:
        """By which its states are known; layers ask theirs themselves."""
        v = self.variant
        names = ", ".join(name for name, _ in turns(v))
        return f"Decoder({self.vocabulary}, dim={v.dim}, depth={v.depth}, mixers={names})"

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the blocks' inputs for the backward pass."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Scales of norms and biases, and what mixers name."""
        return {name for name, p in self.named_parameters() if p.ndim < 2} | exempt_names(self)

    def _check(self, tokens: Tensor, before: int) -> None:
        if tokens.ndim != 2 or tokens.is_floating_point():
            raise InvalidInput(
                f"Decoder: tokens must be whole numbers (B, N), got {tokens.dtype} {tuple(tokens.shape)}"
            )
        if tokens.shape[1] == 0:
            raise InvalidInput(f"Decoder: only the batch may be empty, got {tuple(tokens.shape)}")
        if self.max_length is not None and before + tokens.shape[1] > self.max_length:
            raise InvalidInput(
                f"Decoder: sequences have at most max_length={self.max_length} tokens, got {before} and then "
                f"{tokens.shape[1]}"
            )

    def _logits(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return F.linear(x, self.embed.weight) if self.head is None else apply_linear(self.head, x)


def turns(variant: DecoderVariant) -> list[tuple[str, dict[str, Any]]]:
    """The mixers that layers take in turn, with the arguments that are given for each.

    Raises:
        InvalidInput: what is neither a mixer's name, nor a name with arguments, nor several of these.
    """
    mixers = variant.mixers
    if isinstance(mixers, str) or _is_pair(mixers):
        mixers = (mixers,)
    made: list[tuple[str, dict[str, Any]]] = []
    several: Any = mixers if isinstance(mixers, tuple | list) else (None,)
    for mixer in several:
        if isinstance(mixer, str):
            made.append((mixer, {}))
        elif _is_pair(mixer):
            made.append((mixer[0], dict(mixer[1])))
        else:
            raise InvalidInput(
                "mixers must be a name, a name with arguments as ('SlidingAttention1d', {'window': 64}), or "
                f"several of these, got {variant.mixers!r}"
            )
    if not made:
        raise InvalidInput("mixers must name at least one")
    return made


def build_mixer(variant: DecoderVariant, name: str, arguments: dict[str, Any]) -> nn.Module:
    """A causal mixer of the registry; heads are the variant's where it takes them and none are given."""
    row = MIXERS[check_choice("mixer", name, MIXERS)]
    if not row.traits.causal:
        causal = ", ".join(n for n, r in MIXERS.items() if r.traits.causal)
        raise InvalidInput(f"{name} is not causal and cannot be a decoder's mixer; these are: {causal}")
    takes = inspect.signature(row.build).parameters.keys() - {"dim"}
    for argument in arguments:
        check_choice(f"argument of {name}", argument, takes)
    heads = {"num_heads": variant.num_heads, "kv_heads": variant.kv_heads}
    given = {key: value for key, value in heads.items() if key in takes}
    return row.create(variant.dim, **{**given, **arguments})


def _is_pair(mixer: Any) -> bool:
    return (
        isinstance(mixer, tuple | list)
        and len(mixer) == 2
        and isinstance(mixer[0], str)
        and isinstance(mixer[1], dict)
    )
