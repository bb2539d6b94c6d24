"""Every adapter, on every kind of network that it suits; exemptions are strict."""

import json
from dataclasses import fields

import pytest

from qna._core.errors import InvalidInput, UnknownName
from qna.adapters import ADAPTERS, adapter
from tests.adapters.bases import BASES
from tests.adapters.contract import CLAUSES

# adapters that a library computes -> which
NEEDS = {"lora": "peft"}
CASES = [(name, base) for name, row in ADAPTERS.items() for base in sorted(row.bases)]


# torch's own forward mode uses it
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
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


ODD = (
    "3",
    True,
    -1,
    0,
    0.5,
    2.0,
    float("nan"),
    float("inf"),
    None,
    [1, 2],
    (),
    (True, 1),
    ("1", "2"),
    10**30,
    {},
)


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_is_built_by_hand_is_what_a_file_gives_again(name):
    """Whatever a field is given: refused in a sentence, or a configuration that is kept as it is."""
    row, refused = ADAPTERS[name], 0
    for told in fields(row.build):
        for value in ODD:
            try:
                made = row.build(**{**row.example, told.name: value})
            except (InvalidInput, UnknownName):
                refused += 1
                continue
            again = adapter(name, **json.loads(json.dumps(made.settings())))
            assert again == made
            assert repr(again) == repr(made)
    assert refused > 3 * len(fields(row.build))
