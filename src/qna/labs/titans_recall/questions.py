"""What the decoders are asked: recall and needles in one vocabulary, so that one network learns both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qna.data.text import UNSCORED, Needle, Recall
from qna.data.text.long_context import Sequence1d


@dataclass(frozen=True)
class RecallBesideNeedle:
    """Recall in the vocabulary of a needle with as many keys, values and filler: all but the marker.

    Args:
        recall: its tokens are one higher here.
    """

    recall: Recall

    @property
    def vocabulary(self) -> int:
        """The marker too."""
        return 1 + self.recall.vocabulary

    @property
    def shortest(self) -> int:
        """As of `recall`."""
        return self.recall.shortest

    def draw(self, length: int, generator: np.random.Generator) -> Sequence1d:
        """Tokens and targets of one sequence."""
        tokens, targets = self.recall.draw(length, generator)
        return tokens + 1, np.where(targets == UNSCORED, UNSCORED, targets + 1)


@dataclass(frozen=True)
class Either:
    """Sequences of which three in four are recall, which is learned later, and one is a needle.

    Recall is of any number of pairs up to that of `recall`: what fewer teach, more can be asked for sooner.
    """

    recall: RecallBesideNeedle
    needle: Needle

    @property
    def vocabulary(self) -> int:
        """Of both."""
        return max(self.recall.vocabulary, self.needle.vocabulary)

    @property
    def shortest(self) -> int:
        """Of the longer one."""
        return max(self.recall.shortest, self.needle.shortest)

    def draw(self, length: int, generator: np.random.Generator) -> Sequence1d:
        """Tokens and targets of one sequence."""
        if not generator.integers(4):
            return self.needle.draw(length, generator)
        most = self.recall.recall
        fewer = replace(most, pairs=1 + int(generator.integers(most.pairs)))
        return RecallBesideNeedle(fewer).draw(length, generator)
