"""Every registered mixer meets the contract; arguments are checked; exemptions are strict."""

from dataclasses import replace

import pytest
import torch

import qna
from qna._core.errors import InvalidInput, UnknownName
from qna.mixers import FAMILIES, MIXERS
from tests.mixers import causal_contract, contract

# its clauses are among the others'
assert causal_contract

# of each family one mixer goes through torch's own compiler, the others through its tracing alone
REPRESENTATIVES = [next((r for r in f.ROWS if r.traits.axes == 2), f.ROWS[0]).name for f in FAMILIES]


@pytest.mark.parametrize(
    ("name", "clause"), [(name, clause) for name in MIXERS for clause in contract.clauses_of(MIXERS[name])]
)
def test_contract(name, clause):
    contract.hold(MIXERS[name], clause)


@pytest.mark.parametrize("name", MIXERS)
def test_exemptions_name_clauses(name):
    contract.hold_exemptions(MIXERS[name])


def test_every_mixer_that_goes_on_says_so():
    goes_on = [name for name, row in MIXERS.items() if hasattr(row.build, "init_state")]
    assert goes_on == [name for name, row in MIXERS.items() if row.traits.causal]


@pytest.mark.long
# torch's own compiler imports a module that uses it
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_compiles_with_inductor_and_dynamic_sizes(name):
    contract.hold(MIXERS[name], "compiles_with_inductor_and_dynamic_sizes")


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, row in MIXERS.items() if row.traits.causal])
def test_steps_compile_without_graph_breaks(name):
    contract.hold(MIXERS[name], "steps_compile_without_graph_breaks")


def test_an_exemption_is_run_and_must_fail():
    exempt = replace(MIXERS["QnA2d"], exempt={"an_empty_batch": "a toy"})
    with pytest.raises(pytest.fail.Exception, match=r"QnA2d passes an_empty_batch: the exemption \(a toy\)"):
        contract.hold(exempt, "an_empty_batch")
    with pytest.raises(AssertionError, match="exempt from what does not apply"):
        contract.hold_exemptions(replace(exempt, exempt={"an_image_depends_on_its_batch": "a toy"}))


def test_create_mixer():
    torch.manual_seed(0)
    mixer = qna.create_mixer("QnA2d", 8, num_heads=2, kernel_size=3)
    assert isinstance(mixer, qna.QnA2d)
    assert (mixer.dim, mixer.num_heads, mixer.kernel_size) == (8, 2, (3, 3))


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "told"),
    [
        ("QnA2", {}, UnknownName, r"unknown mixer 'QnA2'; did you mean 'QnA2d' or"),
        (
            "WindowAttention2d",
            {"num_heads": 2, "window_size": 3, "stride": 2, "shift": 1},
            InvalidInput,
            "^WindowAttention2d does not take stride, shift; beside dim it takes num_heads, window_size, ",
        ),
        ("QnA2d", {"num_heads": 2}, InvalidInput, "^QnA2d needs kernel_size, which has no default$"),
    ],
)
def test_create_mixer_refuses_in_one_sentence(name, arguments, kind, told):
    with pytest.raises(kind, match=told):
        qna.create_mixer(name, 8, **arguments)
