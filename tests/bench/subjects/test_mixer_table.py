"""The table of mixers: nobody is missing, one backbone, a rate by the first seed, what has a row is left."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput, UnknownName
from qna.bench.measure.machine import Stamp
from qna.bench.measure.rows import Row
from qna.bench.subjects.accuracy import Run
from qna.bench.subjects.mixer_table import (
    BACKBONE,
    CONTENDERS,
    best_rate,
    declines,
    model_arguments,
    models,
    runs,
)
from qna.bench.subjects.whole_model import ModelSetting, create
from qna.cli.train import parse
from qna.mixers import MIXERS
from qna.models._parts.block import MixerBlock
from qna.train.tasks.classification import build_classifier

STAMP = Stamp("cpu A", "2.13.0", "abc", "2026-11-30T08:00:00+00:00")


def built(name, size=32):
    with torch.device("meta"):
        return create(BACKBONE, size, **model_arguments(name, size))


def mixers(network):
    return [
        [block.mixer for block in stage if block.mixer.out_dim == block.mixer.dim] for stage in network.stages
    ]


def test_every_mixer_that_keeps_the_size_of_an_image_s_map_is_in_the_table():
    wanted = {
        name
        for name, row in MIXERS.items()
        if row.traits.axes == 2 and not (row.traits.pools or row.traits.upsamples)
    }
    used = {type(m).__name__ for name in CONTENDERS for stage in mixers(built(name)) for m in stage}
    assert used - {"PatchMerging"} == wanted


@pytest.mark.parametrize("name", CONTENDERS)
def test_all_stand_in_one_backbone(name):
    """What is no mixer has the same weights, and nothing outside the mixers mixes positions."""
    network, plain = built(name), built("identity")
    rest = {n: p.shape for n, p in network.named_parameters() if ".mixer." not in n}
    assert rest == {n: p.shape for n, p in plain.named_parameters() if ".mixer." not in n}
    strided = [
        b for b in network.modules() if isinstance(b, MixerBlock) and not isinstance(b.shortcut, nn.Identity)
    ]
    assert [type(b.mixer).__name__ for b in strided] == ["PatchMerging"] * 2


def test_blocks_take_their_turns():
    for stage in mixers(built("shifted-windows")):
        assert [type(m).__name__ for m in stage][-2:] == ["WindowAttention2d", "ShiftedWindowAttention2d"]
        assert {m.window_size for m in stage[-2:]} == {(7, 7)}
    assert [m.dilation for m in mixers(built("dilated-neighbourhood"))[1][-2:]] == [(1, 1), (2, 2)]
    assert {m.kernel_size for m in mixers(built("qna-3x3"))[1][-2:]} == {(3, 3)}
    with pytest.raises(UnknownName, match="unknown mixer of the table 'swin'; did you mean 'windows'"):
        model_arguments("swin", 32)


def test_mixers_of_one_map_are_made_for_each_stage_s():
    sizes = [{m.map_size for m in stage[-2:]} for stage in mixers(built("token-gating", 28))]
    assert sizes == [{(14, 14)}, {(7, 7)}, {(4, 4)}]
    (run, *_) = runs(["fashion-mnist"], ["spectral"], [0], [4e-3], [])
    assert "mixers=(('SpectralGating2d',{'map_size':14})," in " ".join(run.options)


def test_the_command_of_a_run_makes_the_network_that_is_timed():
    for name in ("qna", "dilated-neighbourhood", "token-gating"):
        (run, *_) = runs(["cifar10"], [name], [0], [4e-3], [])
        config = parse(run.arguments[1:])
        network = build_classifier(config.network, classes=1000, channels=3, image_size=32)
        assert {n: p.shape for n, p in network.named_parameters()} == {
            n: p.shape for n, p in built(name).named_parameters()
        }
        assert (config.optim.epochs, config.optim.lr, config.run.threads) == (1, 4e-3, 1)


def row(run: Run, right: float) -> Row:
    lr = float(run.options[run.options.index("--lr") + 1])
    extra = {"command": run.command, "seed": run.seed, "lr": lr}
    return Row(
        run.case, run.entrant, "train", "top1", "%", right, right, right, "cpu A", 1, "2", "c", "d", extra
    )


def test_the_first_seed_chooses_the_rate_and_what_has_a_row_is_left():
    right = {("qna", 1e-3): 50.0, ("qna", 2e-3): 60.0, ("full", 1e-3): 40.0, ("full", 2e-3): 40.0}
    known: list[Row] = []
    done = []
    for run in runs(["cifar10"], ["qna", "full"], [0, 1], [1e-3, 2e-3], known):
        new = row(run, 0.0)
        new = replace(new, p50=right[run.entrant, new.extra["lr"]] - run.seed)
        done.append((run.entrant, new.extra["seed"], new.extra["lr"]))
        known.append(new)
    assert done == [
        ("qna", 0, 1e-3), ("qna", 0, 2e-3), ("full", 0, 1e-3), ("full", 0, 2e-3),
        ("qna", 1, 2e-3), ("full", 1, 1e-3),
    ]  # fmt: skip
    assert best_rate("cifar10", "qna", 0, known) == 2e-3
    assert not list(runs(["cifar10"], ["qna", "full"], [0, 1], [1e-3, 2e-3], known))
    (left,) = runs(["cifar10"], ["qna", "full"], [0, 1], [1e-3, 2e-3], known[:3] + known[4:])
    assert (left.entrant, left.seed) == ("full", 0)
    with pytest.raises(InvalidInput, match=r"needs a seed and a rate, got seeds \[\] and rates \[0.1\]"):
        list(runs(["cifar10"], ["qna"], [], [0.1], []))
    with pytest.raises(UnknownName, match="unknown data 'cifar'"):
        list(runs(["cifar"], ["qna"], [0], [0.1], []))


def test_scores_of_all_pairs_are_not_tried_where_they_have_no_room():
    by_name = {model.provider: model for model in models(["length-scaled", "qna"])}
    said = declines(by_name["length-scaled"], ModelSetting(1, 512))
    assert said is not None
    assert "GiB of maps, this machine has" in said
    assert declines(by_name["qna"], ModelSetting(1, 512)) is None
