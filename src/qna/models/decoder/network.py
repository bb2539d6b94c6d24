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
from qna.models.decoder.streams import BESIDE, Streams, Through, text_of
from qna.models.decoder.variants import DecoderVariant
from qna.parts.gated_mlp import GatedMlp
from qna.parts.kv_cache import CachePolicy
from qna.parts.linear import apply_linear
from qna.parts.protocols import FixesMap, GoesOn, KeepsByPolicy
from qna.parts.qk_source import QkSource
from qna.parts.sequence_state import SequenceState, SharedByAll


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

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """(B, N, dim) -> (B, N, dim); `source`, (B or 1, N, dim), for a mixer that takes a `qk_source`."""
        x = x + self.mixer(*self._normed(x, source))
        return x + self.mlp(self.norm2(x))

    def step(
        self, x: Tensor, state: SequenceState, source: Tensor | None = None
    ) -> tuple[Tensor, SequenceState]:
        """The same of the next positions, and the mixer's state then."""
        x_normed, *others = self._normed(x, source)
        mixed, state = cast(GoesOn, self.mixer).step(x_normed, state, *others)
        x = x + mixed
        return x + self.mlp(self.norm2(x)), state

    def _normed(self, x: Tensor, source: Tensor | None) -> list[Tensor]:
        # a source is read as the sequence itself is
        return [self.norm1(t) for t in (x, source) if t is not None]


class Decoder(nn.Module):
    """Tokens to logits of the token that follows each: embedding, blocks, norm, head.

    The network of LLaMA (Touvron et al., arXiv 2302.13971): RMSNorm before each branch, rotary positions
    inside the mixers that have them, gated MLPs, no biases. In the place of its attention stands any causal
    mixer, or several that layers take in turn. Where mixers make queries and keys of another sequence
    (`parts.protocols.TakesQkSource`), the decoder takes that through its blocks beside its own.

    Args:
        vocabulary: tokens that there are.
        variant: widths, depth and mixers.
        max_length: positions that a sequence may have; None for any, as all mixers here take.

    Raises:
        UnknownName: for a mixer that there is not or an argument that it does not take, with the nearest.
        InvalidInput: a mixer that is not causal, or refuses its arguments.

    Attributes:
        text: int64 (n,), of which mixers that ask for a fixed text make queries and keys; None where none
            does. See `fix_text`.
    """

    text: Tensor | None

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
        self.register_buffer("text", text_of(self._mixers, vocabulary))
        self.norm = nn.RMSNorm(v.dim, eps=v.norm_eps)
        self.head = None if v.tied else nn.Linear(v.dim, vocabulary, bias=False)
        for layer in (self.embed, self.head):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02)
        self.grad_checkpointing = False

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 (B, N) -> logits (B, N, vocabulary)."""
        self._check(tokens, 0)

        def through(i: int, x: Tensor, source: Tensor | None, which: QkSource | None) -> Tensor:
            inputs = (x,) if source is None else (x, source)
            block = self.blocks[i]
            return recomputed(block, *inputs) if self.grad_checkpointing and self.training else block(*inputs)

        return self._logits(self._walk(Streams.of(self._mixers), tokens, 0, through))

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
        mixers = self._mixers
        if policy is not None and not any(isinstance(mixer, KeepsByPolicy) for mixer in mixers):
            names = ", ".join(sorted({type(mixer).__name__ for mixer in mixers}))
            raise InvalidInput(f"{policy} is for layers that keep keys and values, and {names} do not")
        held = {}
        for i, mixer in enumerate(mixers):
            if policy is not None and isinstance(mixer, KeepsByPolicy):
                held[f"block{i}"] = mixer.policy_state(batch, policy, **place)
            else:
                held[f"block{i}"] = cast(GoesOn, mixer).init_state(batch, **place)
        streams = Streams.of(mixers)
        if streams.shared:
            held[BESIDE] = streams.states(mixers, **place)
        return SequenceState(self.configuration, batch, 0, held)

    def step(self, tokens: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Go on with the next tokens, a whole prompt or one: int64 (B, N) -> logits (B, N, vocabulary).

        Raises:
            InvalidInput: the state is another model's or of another number of sequences, or the sequence
                becomes longer than `max_length`.
        """
        self._check(tokens, state.length)
        state.check(self.configuration, tokens.shape[0])
        streams = Streams.of(self._mixers)
        beside = dict(zip(streams.shared, state[BESIDE].held, strict=True)) if streams.shared else {}
        before: dict[QkSource | None, SequenceState] = {None: state, **beside}
        held: dict[QkSource | None, dict[str, Any]] = {which: {} for which in before}

        def through(i: int, x: Tensor, source: Tensor | None, which: QkSource | None) -> Tensor:
            name, block = f"block{i}", cast(DecoderBlock, self.blocks[i])
            x, held[which][name] = block.step(x, before[which][name], source)
            return x

        x, count = self._walk(streams, tokens, state.length, through), tokens.shape[1]
        if beside:
            after = tuple(before[which].after(count, **held[which]) for which in beside)
            held[None][BESIDE] = SharedByAll(after)
        return self._logits(x), state.after(count, **held[None])

    def state_bytes(self, size: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
        """Bytes of the state after sequences of `size` = (B, N)."""
        inner = (*size[:2], self.variant.dim)
        own = sum(cast(GoesOn, mixer).state_bytes(inner, dtype) for mixer in self._mixers)
        return own + Streams.of(self._mixers).state_bytes(self._mixers, size[1], inner[2], dtype)

    def fix_text(self, tokens: Tensor) -> None:
        """Give the text that mixers make queries and keys of: int64 (n,), at least as long as they ask for.

        It is kept with the weights; networks are trained for one text, and another is another network.

        Raises:
            InvalidInput: no mixer asks for a text, it is too short, or has tokens that there are not.
        """
        if self.text is None:
            raise InvalidInput("Decoder: no mixer makes queries and keys of a fixed text")
        if tokens.ndim != 1 or tokens.dtype != torch.int64 or len(tokens) < len(self.text):
            raise InvalidInput(
                f"Decoder: the fixed text must be int64 ({len(self.text)},) or longer, got {tokens.dtype} "
                f"{tuple(tokens.shape)}"
            )
        if not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocabulary:
            raise InvalidInput(
                f"Decoder: tokens of the fixed text must be from 0 to {self.vocabulary - 1}, got "
                f"{int(tokens.min())} to {int(tokens.max())}"
            )
        self.text.copy_(tokens[: len(self.text)])
        self.release_maps()

    @torch.no_grad()
    def fix_maps(self, length: int) -> None:
        """Keep the attention that does not depend on what is read, for sequences of up to `length` tokens.

        What it is made of is read once more, for the last time: afterwards no sequence beside the decoder's
        own passes its blocks. It holds until `release_maps`, or training mode, in which weights change.

        Raises:
            InvalidInput: no layer has such attention, or `length` is beyond a fixed text.
        """
        checks.positive("Decoder", length=length)
        self.release_maps()
        streams = Streams.of(self._mixers)
        if not streams.shared:
            raise InvalidInput("Decoder: no layer has attention that is the same whatever is read")
        found: dict[int, Tensor] = {}

        def through(i: int, x: Tensor, source: Tensor | None, which: QkSource | None) -> Tensor:
            block, asked = cast(DecoderBlock, self.blocks[i]), streams.asked[i]
            if asked is not None and asked.shared and source is not None:
                found[i] = block.norm1(source)
            # the decoder's own sequence says nothing here
            return x if which is None else block(x, source)

        tokens = torch.zeros(1, length, dtype=torch.int64, device=self.embed.weight.device)
        self._walk(streams, tokens, 0, through)
        for i, source in found.items():
            cast(FixesMap, self._mixers[i]).fix_map(length, source)

    def release_maps(self) -> None:
        """Attend by queries and keys again."""
        for mixer in self._mixers:
            if isinstance(mixer, FixesMap):
                mixer.release_map()

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

    @property
    def _mixers(self) -> list[nn.Module]:
        return [block.mixer for block in cast(Sequence[DecoderBlock], self.blocks)]

    def _walk(self, streams: Streams, tokens: Tensor, start: int, through: Through) -> Tensor:
        """Embed, and take all sequences through the blocks."""
        own = self.embed(tokens)
        beside = {
            source: source.first(start, tokens.shape[1], self.embed, self.text, own)
            for source in streams.shared
        }
        return streams.walk(own, beside, through)

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
