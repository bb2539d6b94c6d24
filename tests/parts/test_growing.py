"""What grows is a value: appends do not change older ones, and cost no copy where there is room."""

import pickle
from copy import deepcopy

import pytest
import torch

from qna.parts.growing import Growing


def rows(n, seed=0):
    return torch.randn(2, 3, n, 4, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[torch.no_grad, torch.enable_grad, torch.inference_mode], autouse=True)
def mode(request):
    with request.param():
        yield request.param


def test_it_is_what_was_appended():
    made, parts = Growing(rows(0)), []
    for i, n in enumerate((3, 1, 1, 200, 1, 90)):
        parts.append(rows(n, i))
        made = made.append(parts[-1])
        assert torch.equal(made.tensor, torch.cat(parts, 2))
        assert len(made) == sum(p.shape[2] for p in parts)
        assert made.nbytes == made.tensor.numel() * 4


def test_two_ways_on_from_one():
    base = Growing(rows(5)).append(rows(1, 1))
    one, two = base.append(rows(2, 2)), base.append(rows(3, 3))
    again = one.append(rows(1, 4))
    assert torch.equal(base.tensor, torch.cat([rows(5), rows(1, 1)], 2))
    assert torch.equal(one.tensor, torch.cat([base.tensor, rows(2, 2)], 2))
    assert torch.equal(two.tensor, torch.cat([base.tensor, rows(3, 3)], 2))
    assert torch.equal(again.tensor, torch.cat([one.tensor, rows(1, 4)], 2))


def test_the_last():
    made = Growing(rows(300))
    kept = made.last(5).append(rows(2, 1))
    assert torch.equal(kept.tensor, torch.cat([rows(300)[:, :, -5:], rows(2, 1)], 2))
    assert kept.tensor.untyped_storage().nbytes() < made.tensor.untyped_storage().nbytes() / 2
    assert made.last(300) is made
    assert len(made.last(0)) == 0
    assert torch.equal(made.tensor, rows(300))


def test_selected_and_copied():
    made = Growing(rows(5)).append(rows(1, 1))
    chosen = made.select(torch.tensor([1, 1, 0]))
    assert torch.equal(chosen.append(rows(1, 2)[[0, 1, 1]]).tensor[:, :, :6], made.tensor[[1, 1, 0]])
    for twin in (deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(twin.append(rows(1, 3)).tensor, made.append(rows(1, 3)).tensor)


def test_room_is_used_and_a_tensor_of_inference_mode_is_left_alone(mode):
    if mode is torch.enable_grad:
        # there it is concatenated, for what is saved for a backward pass
        return
    made = Growing(rows(0)).append(rows(10))
    more = made.append(rows(1, 1))
    assert more.tensor.data_ptr() == made.tensor.data_ptr()
    if mode is torch.inference_mode:
        with torch.inference_mode(False), torch.no_grad():
            later = more.append(rows(1, 2))
        assert later.tensor.data_ptr() != made.tensor.data_ptr()
        assert torch.equal(later.tensor, torch.cat([rows(10), rows(1, 1), rows(1, 2)], 2))
