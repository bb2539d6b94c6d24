"""Two real processes that train, without shards (DDP) and with them (FSDP2)."""

import json
import shlex
import shutil
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from qna._core.errors import InvalidInput
from qna.train import resume
from qna.train.checkpoint import load_tensors
from qna.train.config import NetworkOptions
from qna.train.network import load_start
from qna.train.tasks.classification import build_classifier
from tests.train.processes import OPTIONS, RIG, log, torchrun
from tests.train.sharded_runs import PAIRS

pytestmark = pytest.mark.slow

# 5 updates in each of 2 epochs
SHARDED = shlex.split(
    "train --data digits --model test_vit --image-size 32 --batch-size 64 --accumulate 2 --epochs 2 "
    "--save-every 3 --drop-path 0.2 --mixup 0.8 --erase 0.3 --ema 0.9 --clip 1 --precision bf16 "
    "--grad-checkpointing --sharding fsdp --device cpu --threads 1"
)


def assert_same_weights(a, b):
    ours, theirs = (load_tensors(folder / "model.safetensors")[0] for folder in (a, b))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    path = tmp_path_factory.mktemp("rig") / "rig.py"
    path.write_text(RIG)
    return path


def draw_photos(folder):
    """Two classes; evaluation deals images out in turn: one process has five in two batches, the other four.

    Returns:
        Two that cannot be read, one for each process.
    """
    for part, counts in (("train", (8, 8)), ("val", (4, 5))):
        for name, colour, count in zip(("dark", "light"), (20, 220), counts, strict=True):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40, 32), (colour,) * 3).save(folder / part / name / f"{i}.png")
    bad = [folder / "val" / "dark" / name for name in ("0.png", "1.png")]
    for path in bad:
        path.write_bytes(b"")
    return bad


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """What each of two processes saw of the same runs with and without shards."""
    folder = tmp_path_factory.mktemp("compared")
    bad = draw_photos(folder / "photos")
    run = torchrun("-m", "tests.train.sharded_runs", folder)
    assert run.returncode == 0, run.stderr
    return SimpleNamespace(folder=folder, bad=bad, seen=json.loads((folder / "results.json").read_text()))


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_every_image_is_judged_once_and_unreadable_ones_are_named(compared, sharding):
    run = compared.folder / f"photos-{sharding}"
    named = [line["image"].partition(": ")[0] for line in log(run) if line["event"] == "unreadable"]
    assert sorted(named) == sorted(map(str, compared.bad))
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["unreadable"], metrics["held_out"]) == (2, 7)
    assert [sum(row) for row in metrics["confusion"]] == [2, 5]


@pytest.mark.parametrize("name", PAIRS)
def test_shards_change_no_number(compared, name):
    for process in compared.seen:
        pair = process["pairs"][name]
        ddp, fsdp = pair["ddp"], pair["fsdp"]
        assert fsdp["blocks"] == (6 if name == "qna" else 2)
        assert len(fsdp["losses"]) == 8
        assert sum(map(sum, fsdp["confusion"])) == 11
        if name in ("accumulation", "clipping"):
            # four gradients, or the squares of which the norm is made, are summed in another order
            assert fsdp["losses"] == pytest.approx(ddp["losses"], rel=1e-5)
            continue
        # halves of two gradients are added, in either order, and all else is done element by element
        assert fsdp["losses"] == ddp["losses"]
        assert (fsdp["loss"], fsdp["confusion"]) == (ddp["loss"], ddp["confusion"])
        assert pair["equal_weights"]


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_a_run_that_breaks_off_goes_on_bit_for_bit(compared, sharding):
    way = {"none": "ddp", "fsdp": "fsdp"}[sharding]
    whole, folder = compared.folder / "everything random" / way, compared.folder / f"broken-{sharding}"
    for process in compared.seen:
        # checkpoints after every third update; the last one before the seventh is the sixth
        assert process["broken off"][sharding] == process["pairs"]["everything random"][way]["losses"][6:]
    assert log(folder) == log(whole)
    assert_same_weights(folder, whole)
    # one process writes
    assert not (compared.folder / f"broken-{sharding}-2").exists()


def test_each_process_has_half_of_the_network(compared):
    first, second = (process["pairs"]["qna"]["fsdp"]["parts"] for process in compared.seen)
    for one, other in zip(first, second, strict=True):
        assert one + other == pytest.approx(1)
        # a parameter with an odd number of rows is not split evenly
        assert abs(one - other) < 0.01


def test_clipping_takes_the_norm_of_the_whole_gradient(compared):
    for process in compared.seen:
        ddp, fsdp = (process["pairs"]["clipping"][way]["norms"] for way in ("ddp", "fsdp"))
        # sums of squares in another order
        assert fsdp == pytest.approx(ddp, rel=1e-6)
        clipped, free = (
            process["pairs"][name]["fsdp"]["losses"] for name in ("clipping", "gradient checkpointing")
        )
        assert clipped[0] == free[0]
        assert clipped[1] != free[1]


@pytest.mark.parametrize("place", ["shard", "pointer"])
def test_a_full_disk_in_one_process_ends_both_and_the_run_goes_on(compared, place):
    whole = compared.seen[0]["pairs"]["gradient checkpointing"]["ddp"]["losses"]
    for process in compared.seen:
        found = process["full disk"][place]
        assert "File too large" in found["said"]
        assert "checkpoint.json is whole and holds the run up to update 3 of 8; go on with" in found["said"]
        assert found["first"] == whole[:4]
        assert found["rest"] == whole[3:]
    left = compared.seen[0]["full disk"][place]["left"]
    assert len([name for name in left if name.startswith("shards")]) == 1
    assert not [name for name in left if name.startswith(".")]


def test_a_weight_that_is_not_finite_in_one_process_ends_both(compared):
    for process in compared.seen:
        said = process["not finite"]
        assert said.startswith("a weight is not finite at update 7 ")
        assert "checkpoint.json is whole and holds the run up to update 4 of 8" in said


def test_the_processes_end_without_the_group_of_their_runs(compared):
    assert [(compared.folder / f"left-{rank}").read_text() for rank in (0, 1)] == ["group: False"] * 2


def test_networks_that_cannot_be_sharded_are_refused(compared):
    for process in compared.seen:
        said = process["refused"]
        assert "cannot keep the running statistics of '0' equal over processes" in said["batch norm"]
        assert "sharding fsdp cannot take this network" in said["scalar"]
        assert said["scalar"].endswith("; leave --sharding out")


def copy_of(run, to):
    shutil.copytree(run, to)
    pointer = json.loads((to / "checkpoint.json").read_text())
    return pointer, [to / pointer["folder"] / name for name in pointer["files"]]


def test_a_sharded_checkpoint_starts_another_run_and_is_checked(tmp_path, compared):
    sharded = compared.folder / "everything random" / "fsdp"
    options = NetworkOptions(model="test_vit", model_kwargs=("depth=2",))

    def start(path):
        network = build_classifier(options, classes=2, channels=1, image_size=32)
        load_start(network, path)
        return network.state_dict()

    # the average of the whole run, read in one process
    kept, started = load_tensors(sharded / "model.safetensors")[0], start(sharded / "checkpoint.json")
    assert all(torch.equal(kept[name], started[name]) for name in kept)
    pointer, (_, second) = copy_of(sharded, tmp_path / "short")
    second.write_bytes(second.read_bytes()[:-1])
    with pytest.raises(InvalidInput, match=r"is not a checkpoint of qna: .*00002.* bytes instead of"):
        start(tmp_path / "short" / "checkpoint.json")
    second.unlink()
    with pytest.raises(InvalidInput, match=r"is not a checkpoint of qna: FileNotFoundError: .*00002"):
        start(tmp_path / "short" / "checkpoint.json")
    (tmp_path / "short" / "checkpoint.json").write_text(json.dumps({**pointer, "folder": "../elsewhere"}))
    with pytest.raises(InvalidInput, match=r"unknown folder of shards '../elsewhere'"):
        start(tmp_path / "short" / "checkpoint.json")


def test_a_sharded_run_does_not_go_on_in_one_process(compared):
    with pytest.raises(InvalidInput, match=r"sharding fsdp .* this is the only one; start it with `torchrun"):
        resume(compared.folder / "everything random" / "fsdp")


@pytest.mark.long
def test_ddp_goes_on_bit_for_bit_after_both_processes_are_killed(tmp_path, rig):
    options = [*OPTIONS, "--batch-size", "32", "--accumulate", "2"]
    whole, folder = tmp_path / "whole", tmp_path / "run"
    run = torchrun("-m", "qna", *options, "--out", whole)
    assert run.returncode == 0, run.stderr
    assert json.loads((whole / "metrics.json").read_text())["held_out"] == 360
    assert not (tmp_path / "whole-2").exists()
    # both processes die in the middle of the second epoch
    run = torchrun(rig, "update", "14", *options, "--out", folder)
    assert run.returncode != 0
    run = torchrun("-m", "qna", "train", "--resume", folder)
    assert run.returncode == 0, run.stderr
    assert log(folder) == log(whole)
    assert_same_weights(folder, whole)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A sharded run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run = torchrun("-m", "qna", *SHARDED, "--out", folder)
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.long
def test_fsdp_goes_on_bit_for_bit_after_a_process_is_killed_while_it_writes(tmp_path, rig, sharded):
    folder = tmp_path / "run"
    # files and folders synced by the first process: the configuration (2), then for each of the checkpoints
    # after 0, 3 and 5 updates its shard, the shards' folder, checkpoint.json (2). It dies before that is new
    run = torchrun(rig, "write", "13", *SHARDED, "--out", folder, ONLY_RANK="0")
    assert run.returncode != 0
    assert json.loads((folder / "checkpoint.json").read_text())["progress"]["step"] == 3
    assert len([path for path in folder.glob("shards-*") if len(list(path.iterdir())) == 2]) == 2
    run = torchrun("-m", "qna", "train", "--resume", folder)
    assert run.returncode == 0, run.stderr
    assert log(folder) == log(sharded)
    assert_same_weights(folder, sharded)
    ours, theirs = (dict(without_clock(f / "checkpoint.json")) for f in (folder, sharded))
    assert ours["progress"] == theirs["progress"]
    assert not list(folder.glob(".*"))
    assert [path.name for path in folder.glob("shards-*")] == [ours["folder"]]


def without_clock(path):
    pointer = json.loads(path.read_text())
    for record in (pointer["progress"], *pointer["progress"]["history"]):
        record.pop("seconds")
    return pointer
