import gc
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna._core.files import write_whole
from qna.train.checkpoint import (
    Progress,
    Saved,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
    save_weights,
)
from qna.train.fitting import load_whole
from qna.train.folder import cut_log


def trained(seed=0, steps=2):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return network, optimizer


def save(path, network, optimizer, progress=None):
    save_checkpoint(
        path,
        network=network,
        average=None,
        optimizer=optimizer,
        saved=Saved(progress or Progress(), {"scale": 2.0}, {"data": {"images": 3}}),
    )


def equal_states(a, b):
    return all(torch.equal(a[n], b[n]) for n in a) and a.keys() == b.keys()


def test_everything_comes_back_to_the_bit(tmp_path):
    network, optimizer = trained()
    progress = Progress(
        epoch=1, step=7, step_in_epoch=2, loss_sum=0.1 + 0.2, images=5, history=[{"loss": 1 / 3}]
    )
    save(tmp_path / "c", network, optimizer, progress)
    other, other_optimizer = trained(seed=1, steps=0)
    back = load_checkpoint(tmp_path / "c", network=other, average=None, optimizer=other_optimizer)
    assert back == Saved(progress, {"scale": 2.0}, {"data": {"images": 3}})
    assert equal_states(network.state_dict(), other.state_dict())
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        assert equal_states(optimizer.state[a], other_optimizer.state[b])
    # and the next update is the same
    for n, o in [(network, optimizer), (other, other_optimizer)]:
        o.zero_grad()
        n(torch.ones(5, 3).cumsum(0)).square().sum().backward()
        o.step()
    assert equal_states(network.state_dict(), other.state_dict())


def test_weights_reload_to_the_same_outputs(tmp_path):
    network, _ = trained()
    save_weights(tmp_path / "w", network, {"config": {"a": 1}})
    other, _ = trained(seed=1)
    tensors, about = load_tensors(tmp_path / "w")
    assert about == {"config": {"a": 1}}
    load_whole(other, tensors, "w")
    x = torch.randn(6, 3)
    assert torch.equal(network.eval()(x), other.eval()(x))


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.999])
def test_a_file_cut_short_is_refused(tmp_path, part):
    network, optimizer = trained()
    save(tmp_path / "c", network, optimizer)
    whole = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(whole[: int(part * len(whole))])
    before = {n: t.clone() for n, t in network.state_dict().items()}
    with pytest.raises(InvalidInput, match="is not a checkpoint of qna"):
        load_checkpoint(tmp_path / "c", network=network, average=None, optimizer=optimizer)
    assert equal_states(before, network.state_dict())


def test_a_missing_or_foreign_file_is_refused(tmp_path):
    network, optimizer = trained()
    with pytest.raises(InvalidInput, match="none is not a checkpoint of qna: FileNotFoundError"):
        load_tensors(tmp_path / "none")
    save(tmp_path / "c", network, optimizer)
    with pytest.raises(InvalidInput, match="is not a checkpoint of this run"):
        load_checkpoint(tmp_path / "c", network=nn.Linear(3, 4), average=None, optimizer=optimizer)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "c"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError(28, os.strerror(28))

    with pytest.raises(OSError, match="No space left"):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists what is mapped")
def test_what_is_loaded_does_not_hold_the_file(tmp_path):
    network, optimizer = trained()
    save(tmp_path / "held", network, optimizer)
    load_checkpoint(tmp_path / "held", network=network, average=None, optimizer=optimizer)
    gc.collect()
    assert str(tmp_path / "held") not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("seconds", float("nan"), "its header is not JSON: NaN is not a number"),
        ("epoch", 0.5, "epoch must be int, got 0.5"),
        ("epoch", 9, "no run can be in epoch 9"),
        ("step", -1, "no run can be in epoch 0, update -1"),
        ("history", {}, "history must be list"),
        ("steps", 1, "unknown field of progress 'steps'"),
    ],
)
def test_progress_that_no_run_makes_is_refused(tmp_path, part, value, said):
    network, optimizer = trained()
    save(tmp_path / "c", network, optimizer)
    tensors, about = load_tensors(tmp_path / "c")
    about["progress"][part] = value
    save_tensors(tmp_path / "c", tensors, about)
    with pytest.raises(InvalidInput, match=f"c is not a checkpoint of .*{said}"):
        load_checkpoint(tmp_path / "c", network=network, average=None, optimizer=optimizer)


def test_an_epoch_that_the_checkpoint_does_not_hold_is_cut_from_the_log(tmp_path):
    """Its last update may be saved, and the process killed between the epoch's line and its checkpoint."""
    events = [{"event": "update", "step": 4, "epoch": 2}, {"event": "epoch", "step": 4, "epoch": 2}]
    (tmp_path / "log").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"event": "upd')
    assert cut_log(tmp_path / "log", 4, 2) == events
    assert cut_log(tmp_path / "log", 4, 1) == events[:1]
