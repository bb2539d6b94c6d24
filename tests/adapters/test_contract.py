"""Every adapter, on every kind of network that it suits; exemptions are strict."""

import pytest

from qna.adapters import ADAPTERS
from tests.adapters.bases import BASES
from tests.adapters.contract import CLAUSES

# adapters that a library computes -> which
NEEDS = {"lora": "peft"}
CASES = [(name, base) for name, row in ADAPTERS.items() for base in sorted(row.bases)]


@pytest.mark.parametrize("clause", CLAUSES)
@pytest.mark.parametrize(("name", "base"), CASES, ids=[f"{name}-{base}" for name, base in CASES])
def test_contract(name, base, clause, tmp_path):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason="an extra brings it")
    row, check = ADAPTERS[name], CLAUSES[clause]
    if clause in row.exempt:
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the exemption is for
            check(row, base, tmp_path)
    else:
        check(row, base, tmp_path)


@pytest.mark.parametrize("name", ADAPTERS)
def test_rows(name):
    row = ADAPTERS[name]
    assert row.name == name
    assert row.bases
    assert row.bases <= BASES.keys()
    assert row.exempt.keys() <= CLAUSES.keys()
