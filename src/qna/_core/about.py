"""What a system is: the published work behind it, and how sure it is that the code equals it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# exact: equal to the authors' code, tested; formula: equal to the paper's equations, tested;
# after: the public text leaves details open, and the docstring says which choices are ours
Status = Literal["exact", "formula", "after"]


@dataclass(frozen=True)
class About:
    """The published work that a row of a registry implements.

    Attributes:
        title: of the paper.
        authors: as the paper lists them; "et al." after the third.
        venue: with the year: "CVPR 2022".
        arxiv: number, "2112.11435"; None where there is none.
        read: what was read for it: the paper, code at a commit, and the code's licence.
        differs: what differs from the authors' code, and why; "" where nothing does.
        status: how sure the equality is.
    """

    title: str
    authors: str
    venue: str
    arxiv: str | None
    read: str
    differs: str
    status: Status
