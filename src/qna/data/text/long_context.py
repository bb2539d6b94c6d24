"""Sequences that are drawn to ask one thing: what a network still knows of what it read long before.

Each is a frozen configuration with a `vocabulary` and `draw(length, generator)`; all that is drawn follows
from the generator. Answers alone are scored, at any length from the shortest on, so that networks can be
asked beyond the lengths that they were trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from qna._core import checks
from qna._core.errors import InvalidInput
from qna._core.named_options import configured
from qna._core.seeds import derive_seed
from qna.data.text.batch import UNSCORED, TokenBatch, stacked

# tokens and targets, (N,) each
Sequence1d: TypeAlias = tuple[np.ndarray, np.ndarray]


class SequenceKind(Protocol):
    """What every kind of sequence can do."""

    @property
    def vocabulary(self) -> int:
        """Tokens that there are."""
        ...

    @property
    def shortest(self) -> int:
        """The least length."""
        ...

    def draw(self, length: int, generator: np.random.Generator) -> Sequence1d:
        """Tokens and targets of one sequence, (length,) each."""
        ...


@dataclass(frozen=True)
class Recall:
    """Multi-query associative recall (Arora et al., "Zoology", arXiv 2312.04927).

    First `pairs` of a key and its value, then every key once more, at places drawn among filler: the target
    of each is its value. Keys, values and filler are tokens apart.

    Args:
        pairs: to be remembered.
        keys: that there are, at least `pairs`.
        values: that there are.
        filler: tokens that stand between and say nothing.
    """

    pairs: int = 8
    keys: int = 32
    values: int = 32
    filler: int = 8

    def __post_init__(self):
        checks.positive(type(self).__name__, **vars(self))
        if self.keys < self.pairs:
            raise InvalidInput(f"recall: {self.pairs} pairs need as many keys, got keys={self.keys}")

    @property
    def vocabulary(self) -> int:
        """Keys, then values, then filler."""
        return self.keys + self.values + self.filler

    @property
    def shortest(self) -> int:
        """Pairs, and all keys again."""
        return 3 * self.pairs

    def draw(self, length: int, generator: np.random.Generator) -> Sequence1d:
        """Pairs at the beginning; queries in any order at any places behind them."""
        keys = generator.permutation(self.keys)[: self.pairs]
        values = self.keys + generator.integers(self.values, size=self.pairs)
        tokens = self.keys + self.values + generator.integers(self.filler, size=length)
        targets = np.full(length, UNSCORED)
        start = 2 * self.pairs
        tokens[:start:2], tokens[1:start:2] = keys, values
        places = start + generator.permutation(length - start)[: self.pairs]
        tokens[places], targets[places] = keys, values
        return tokens, targets


@dataclass(frozen=True)
class Needle:
    """A needle in a haystack: one marked key with its value somewhere in filler, asked for at the end.

    The marker and the key come once more at the end; the targets there are the tokens of the value, one after
    the other.

    Args:
        keys: that there are.
        values: tokens that a value is made of.
        width: tokens of a value.
        filler: tokens of the haystack, none of them a key or a value.
        needles: marked keys in the haystack, of which one is asked for.
    """

    keys: int = 16
    values: int = 16
    width: int = 2
    filler: int = 64
    needles: int = 1

    def __post_init__(self):
        checks.positive(type(self).__name__, **vars(self))
        if self.keys < self.needles:
            raise InvalidInput(f"needle: {self.needles} needles need as many keys, got keys={self.keys}")

    @property
    def vocabulary(self) -> int:
        """The marker, keys, values, filler."""
        return 1 + self.keys + self.values + self.filler

    @property
    def shortest(self) -> int:
        """The needles, and the question."""
        return (self.needles + 1) * (self.width + 2) - 1

    def draw(self, length: int, generator: np.random.Generator) -> Sequence1d:
        """Needles at places drawn evenly, apart from each other, and the question."""
        tokens = 1 + self.keys + self.values + generator.integers(self.filler, size=length)
        targets = np.full(length, UNSCORED)
        keys = 1 + generator.permutation(self.keys)[: self.needles]
        values = 1 + self.keys + generator.integers(self.values, size=(self.needles, self.width))
        whole = self.width + 2
        # the last token of the value is a target alone
        hay = length - (whole - 1)
        # places in a haystack whose needles are points, in order, are places that keep needles apart
        free = generator.permutation(hay - self.needles * (whole - 1))[: self.needles]
        for number, place in enumerate(np.sort(free) + np.arange(self.needles) * (whole - 1)):
            tokens[place : place + whole] = [0, keys[number], *values[number]]
        asked = generator.integers(self.needles)
        tokens[hay:] = [0, keys[asked], *values[asked, :-1]]
        targets[hay + 1 :] = values[asked]
        return tokens, targets


@dataclass(frozen=True)
class Copy:
    """A string, a separator, and the string again, which is scored.

    Args:
        symbols: tokens of the string.
    """

    symbols: int = 16

    def __post_init__(self):
        checks.positive(type(self).__name__, **vars(self))

    @property
    def vocabulary(self) -> int:
        """Symbols, the separator, and what fills up an even length."""
        return self.symbols + 2

    @property
    def shortest(self) -> int:
        """A symbol, the separator."""
        return 2

    def draw(self, length: int, generator: np.random.Generator) -> Sequence1d:
        """As long a string as goes twice into the length; what is left over comes first."""
        half = length // 2
        string = generator.integers(self.symbols, size=half)
        # the last symbol of the second time is a target alone
        tokens = np.concatenate([string, [self.symbols], string[:-1]])
        targets = np.concatenate([np.full(half, UNSCORED), string])
        if length % 2:
            tokens, targets = np.insert(tokens, 0, self.symbols + 1), np.insert(targets, 0, UNSCORED)
        return tokens, targets


@dataclass(frozen=True)
class Induction:
    """An induction head's question (Fu et al., arXiv 2212.14052): what followed a token the time before?

    A marker stands once among other tokens, and again at the end, where the token that followed it is the
    target.

    Args:
        symbols: tokens beside the marker.
    """

    symbols: int = 16

    def __post_init__(self):
        checks.positive(type(self).__name__, **vars(self))

    @property
    def vocabulary(self) -> int:
        """Symbols and the marker."""
        return self.symbols + 1

    @property
    def shortest(self) -> int:
        """The marker, what follows, the marker."""
        return 3

    def draw(self, length: int, generator: np.random.Generator) -> Sequence1d:
        """The marker at a place drawn evenly."""
        tokens = generator.integers(self.symbols, size=length)
        targets = np.full(length, UNSCORED)
        place = generator.integers(length - 2)
        tokens[place] = tokens[-1] = self.symbols
        targets[-1] = tokens[place + 1]
        return tokens, targets


KINDS: dict[str, type[Any]] = {"recall": Recall, "needle": Needle, "copy": Copy, "induction": Induction}


@dataclass(frozen=True)
class Drawn:
    """Sequences of a kind, each a function of seed, length and number.

    Attributes:
        kind: what is asked.
        length: tokens of each.
        count: of them.
        seed: beside that of a batch; held-out sequences have one of their own.
    """

    kind: Any
    length: int
    count: int
    seed: int | str = 0

    def __post_init__(self):
        checks.positive("drawn sequences", length=self.length, count=self.count)
        if self.length < self.kind.shortest:
            raise InvalidInput(
                f"{self.kind} needs sequences of at least {self.kind.shortest} tokens, got {self.length}"
            )

    def __len__(self) -> int:
        return self.count

    def batch(self, numbers: Sequence[int], seed: int) -> TokenBatch:
        """The sequences of these numbers, by `seed`."""
        return stacked([self.one(number, seed) for number in numbers])

    @property
    def digest(self) -> str:
        """Of what decides them."""
        return f"{self.kind} {self.length} {self.count} {self.seed}"

    def one(self, number: int, seed: int) -> Sequence1d:
        """Tokens and targets of one sequence."""
        drawn_from = derive_seed(self.seed, seed, "sequence", self.length, number)
        return self.kind.draw(self.length, np.random.default_rng(drawn_from))


def kind_of(text: str) -> Any:
    """The kind that "recall" or "recall:pairs=8,keys=32" names.

    Raises:
        UnknownName: for a kind or an option that there is not, with the nearest names.
        InvalidInput: a value that is no whole number, or is refused.
    """
    return configured("kind of sequences", text, KINDS)
