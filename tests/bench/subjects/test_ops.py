import torch

from qna.bench.subjects.ops import op_inputs


def test_what_is_measured_is_judged_as_a_call_of_the_op_would_be():
    table = torch.zeros(3, 3, 2, 4)
    inputs = op_inputs(torch.zeros(1, 5, 7, 2, 4), torch.zeros(1, 5, 7, 4, 8), table, table)
    assert inputs.window.out == (5, 7)
    assert inputs.queries == 2
