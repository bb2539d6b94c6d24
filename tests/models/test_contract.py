"""Every registered model meets timm's contract; exemptions are strict."""

import pytest

from qna.models import FAMILIES
from tests.models.contract import CONTRACT

# parameters; some clauses hold a model four times over, in float64
LARGEST = 250_000_000


def cases(costly):
    """A clause for each model up to `LARGEST`; those of all but a family's smallest are long."""
    return [
        pytest.param(
            *(family, name, clause),
            id=f"{name}-{clause}",
            marks=() if name == smallest(family) else pytest.mark.long,
        )
        for family in FAMILIES.values()
        for name, variant in family.variants.items()
        if variant.parameters <= LARGEST
        for clause in CONTRACT.names(family, costly=costly)
    ]


def smallest(family):
    return min(family.variants, key=lambda name: family.variants[name].parameters)


@pytest.mark.parametrize(("family", "name", "clause"), cases(costly=False))
def test_contract(family, name, clause):
    CONTRACT.hold(family, clause, name)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name", "clause"), cases(costly=True))
def test_costly_clauses(family, name, clause):
    CONTRACT.hold(family, clause, name)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_exemptions_name_clauses(family):
    CONTRACT.hold_exemptions(family)
