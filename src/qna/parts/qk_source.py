"""Where queries and keys come from when it is not the sequence that a mixer mixes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qna._core.errors import InvalidInput
from qna._core.seeds import derive_seed
from qna.parts.drawn_at import normal_at


class QkSource(ABC):
    """A sequence beside that of a network, of which mixers make queries and keys: a frozen value.

    Attributes:
        shared: whether it is one sequence for all that a network reads, which passes its blocks as they do;
            else each sequence has its own, and every block is given what the first one is.
    """

    shared: bool

    @abstractmethod
    def first(
        self, start: int, count: int, embed: Callable[[Tensor], Tensor], text: Tensor | None, like: Tensor
    ) -> Tensor:
        """What the first block is given of it: (1, count, dim) where it is shared, else as `like`.

        Args:
            start: its first position.
            count: positions.
            embed: tokens int64 (n,) -> vectors (n, dim).
            text: the tokens of a fixed text, int64 (n,).
            like: what the network's own sequence begins with there, (B, count, dim).
        """


@dataclass(frozen=True)
class OwnEmbeddings(QkSource):
    """What each sequence itself begins with: the embeddings of its tokens, in every layer."""

    shared = False

    def first(
        self, start: int, count: int, embed: Callable[[Tensor], Tensor], text: Tensor | None, like: Tensor
    ) -> Tensor:
        """As it is."""
        return like


@dataclass(frozen=True)
class FixedNoise(QkSource):
    """Noise of N(0, std^2), drawn for each position: of any length, and always the same.

    Attributes:
        std: of the noise.
        seed: another one gives other noise.
    """

    std: float
    seed: int
    key: int = field(init=False, repr=False)
    shared = True

    def __post_init__(self):
        # no compiler has to follow how it is made
        object.__setattr__(self, "key", derive_seed(self.seed, "queries and keys"))

    def first(
        self, start: int, count: int, embed: Callable[[Tensor], Tensor], text: Tensor | None, like: Tensor
    ) -> Tensor:
        """The noise at these positions."""
        places = torch.arange(count, device=like.device) + start
        return self.std * normal_at(places, like.shape[-1], self.key, like)[None]


@dataclass(frozen=True)
class FixedText(QkSource):
    """A text of so many tokens, embedded as any other.

    Attributes:
        length: its tokens; a longer sequence is refused.
    """

    length: int
    shared = True

    def first(
        self, start: int, count: int, embed: Callable[[Tensor], Tensor], text: Tensor | None, like: Tensor
    ) -> Tensor:
        """The embeddings of its tokens there.

        Raises:
            InvalidInput: the sequence is longer than the text.
        """
        if text is None:
            raise InvalidInput("queries and keys are to be of a fixed text, and there is none")
        if start + count > self.length:
            raise InvalidInput(
                f"queries and keys are of a fixed text of {self.length:,} tokens, and the sequence has "
                f"{start + count:,}; build the mixer with length={start + count} or more, and train it so"
            )
        return embed(text[start : start + count])[None]


_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def counted_words(length: int) -> Tensor:
    """Bytes of "one two three ...", as far as they go, a text of any length: int64 (length,).

    What a fixed text is until another is given; it needs no file, and begins alike at any length.
    """
    text, number = bytearray(), 1
    while len(text) < length:
        text += f"{_word(number)} ".encode()
        number += 1
    return torch.tensor(list(text[:length]), dtype=torch.int64)


def _word(n: int) -> str:
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if n >= size:
            return f"{_word(n // size)} {name}" + (f" {_word(n % size)}" if n % size else "")
    if n >= 20:
        return _TENS[n // 10 - 2] + (f"-{_ONES[n % 10]}" if n % 10 else "")
    return _ONES[n]
