"""Contracts: clauses that every row of a registry is held to, and strict exemptions from them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass(frozen=True)
class Clause:
    """A part of a contract.

    Attributes:
        run: raises where a row breaks it.
        applies: whether it is asked of a row.
        costly: whether it is left to representatives.
    """

    run: Callable[..., None]
    applies: Callable[[Any], bool]
    costly: bool


@dataclass(frozen=True)
class Contract:
    """Clauses by their names, for rows that have a `name` and exemptions: clause -> why the row breaks it.

    An exemption is strict: the clause is run all the same, and must fail.
    """

    clauses: dict[str, Clause] = field(default_factory=dict)

    def clause(self, applies: Callable[[Any], bool] = lambda row: True, *, costly: bool = False):
        """Enter the decorated function, of a row or of what is tested in its name, under its own name."""

        def enter(run):
            self.clauses[run.__name__] = Clause(run, applies, costly)
            return run

        return enter

    def names(self, row, *, costly: bool = False) -> list[str]:
        """Clauses that apply to a row: those for every row, or the costly ones."""
        return [n for n, clause in self.clauses.items() if clause.costly == costly and clause.applies(row)]

    def hold(self, row, name: str, *tested) -> None:
        """Hold a row to one clause, or to its exemption; the clause gets `tested`, else the row."""
        clause, reason = self.clauses[name], row.exempt.get(name)
        arguments = tested or (row,)
        if reason is None:
            clause.run(*arguments)
            return
        try:
            clause.run(*arguments)
        except Exception:
            return
        pytest.fail(f"{row.name} passes {name}: the exemption ({reason}) is no longer needed")

    def hold_exemptions(self, row) -> None:
        """Every exemption must name a clause that applies, and give a reason."""
        known = {*self.names(row), *self.names(row, costly=True)}
        assert set(row.exempt) <= known, f"{row.name} is exempt from what does not apply to it"
        assert all(row.exempt.values())
