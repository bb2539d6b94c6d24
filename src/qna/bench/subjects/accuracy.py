"""Accuracy within one small budget: models of one size, trained by one recipe, each in a process of its own.

The recipes are ``cifar10-laptop`` and ``fashion-mnist-laptop``. A run becomes one row: the part of the test
images that is right, with the size of the model, the time that it took, and the command that repeats it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qna._core.errors import InvalidInput, check_choice
from qna._core.typed_json import read_json
from qna.analysis.cost import tells_costs, total_macs
from qna.bench.measure.machine import Stamp
from qna.bench.measure.rows import Row
from qna.train import TrainConfig
from qna.train.tasks.classification import build_classifier

TOP1 = "top1"
MODE = "train"


@dataclass(frozen=True)
class Entrant:
    """A model that is trained.

    Attributes:
        options: of `qna train`, beside the recipe's.
        ablation: whether it is the recipe's own model with one thing changed, and not a peer.
    """

    options: str = ""
    ablation: bool = False


def _varied(words: str) -> Entrant:
    """The recipe's model with some arguments changed."""
    return Entrant(f"--model-kwargs dim=24 window_head_dim=12 {words}", ablation=True)


# name -> what is trained; peers have about the parameters and multiply-adds of `qna`, and their own rate.
# timm's convnext begins with residual branches of a millionth, from which so short a run hardly recovers
ENTRANTS = {
    "qna": Entrant(),
    "convnext": Entrant(
        "--model convnext_atto "
        "--model-kwargs patch_size=1 dims=12,24,48,96 depths=0,1,3,2 ls_init_value=1.0 --lr 4e-3"
    ),
    "swin": Entrant(
        "--model swin_tiny_patch4_window7_224 "
        "--model-kwargs patch_size=2 window_size=4 embed_dim=24 depths=1,2,2 num_heads=2,4,8 --lr 8e-3"
    ),
    "window-7": _varied("qna_blocks=1,1,0 kernel_size=7"),
    "one-query": _varied("qna_blocks=1,1,0 num_queries=1"),
    "three-queries": _varied("qna_blocks=1,1,0 num_queries=3"),
    "window-attention": _varied("qna_blocks=0,0,0 window_blocks=1,1,1"),
}
# data -> its recipe
RECIPES = {"cifar10": "cifar10-laptop", "fashion-mnist": "fashion-mnist-laptop"}
CHANNELS = {"cifar10": 3, "fashion-mnist": 1}


@dataclass(frozen=True)
class Run:
    """One training run: a model, its data and a seed.

    Attributes:
        data: key of `RECIPES`.
        entrant: what its row is called.
        seed: of the run.
        options: of `qna train`, beside the recipe's.
        table: what the case of its row begins with.
    """

    data: str
    entrant: str
    seed: int
    options: tuple[str, ...] = ()
    table: str = "accuracy"

    @property
    def case(self) -> str:
        """The case of its row."""
        return f"{self.table}-{self.data}"

    @property
    def arguments(self) -> list[str]:
        """Of the command `qna`, places left out."""
        return ["train", "--recipe", RECIPES[self.data], *self.options, "--seed", str(self.seed)]

    @property
    def command(self) -> str:
        """What a person types."""
        return shlex.join(["qna", *self.arguments])


def planned(data: Sequence[str], entrants: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """The runs in an order in which what was measured is of use wherever it ends: peers, then ablations.

    Raises:
        UnknownName: for data or an entrant that there is not.
    """
    for name in data:
        check_choice("data", name, RECIPES)
    for name in entrants:
        check_choice("entrant", name, ENTRANTS)
    return [
        Run(place, name, seed, tuple(ENTRANTS[name].options.split()))
        for seed in seeds
        for ablation in (False, True)
        for place in data
        for name in entrants
        if ENTRANTS[name].ablation == ablation
    ]


def without_measured(runs: Iterable[Run], rows: Iterable[Row]) -> list[Run]:
    """The runs whose command has no row yet."""
    done = {row.extra["command"] for row in rows if row.metric == TOP1}
    return [run for run in runs if run.command not in done]


def measure(runs: Iterable[Run], folder: Path, places: dict[str, Path]) -> Iterator[Row]:
    """Train one after the other and yield a row for each.

    Args:
        runs: what to train.
        folder: in which every run gets a folder of its own.
        places: data -> where its files are, if not at the usual place.

    Raises:
        InvalidInput: a run ended with an error; its last line is in the text.
    """
    for run in runs:
        out = _free(folder / f"{run.data}-{run.entrant}-seed{run.seed}")
        where = ["--data-dir", str(places[run.data])] if run.data in places else []
        stamp, begun = Stamp.now("cpu"), time.perf_counter()
        cpu = _train([*run.arguments, *where, "--out", str(out)], folder / f"{out.name}.log")
        yield row_of(run, out, stamp, cpu_seconds=cpu, seconds=time.perf_counter() - begun)


def row_of(run: Run, folder: Path, stamp: Stamp, *, cpu_seconds: float, seconds: float) -> Row:
    """The row of a run that is complete in `folder`."""
    metrics = read_json(folder / "metrics.json")
    config = TrainConfig.from_file(folder / "config.json")
    classes, channels, size = len(metrics["classes"]), CHANNELS[run.data], config.images.image_size
    network = build_classifier(config.network, classes=classes, channels=channels, image_size=size)
    value = 100 * metrics[TOP1]
    extra = {
        "seed": run.seed,
        "epochs": config.optim.epochs,
        "lr": config.optim.lr,
        "trained_on": metrics["trained_on"],
        "held_out": metrics["held_out"],
        "right": metrics["right"],
        "loss": round(metrics["loss"], 5),
        "parameters": metrics["parameters"],
        "macs": macs(network, (1, channels, size, size)),
        "cpu_seconds": round(cpu_seconds, 1),
        "seconds": round(seconds, 1),
        "command": run.command,
    }
    return Row(
        run.case, run.entrant, MODE, TOP1, "%", value, value, value,
        stamp.device, config.run.threads, stamp.torch, stamp.commit, stamp.date, extra,
    )  # fmt: skip


def macs(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds of inference: in the paper's accounting where layers tell them, else by torch.

    Both count linear maps, convolutions and the products of attention.
    """
    if tells_costs(network):
        return total_macs(network, shape)
    counter = FlopCounterMode(display=False)
    # without data torch forms the products of attention, which its counter knows
    ghost = network.to("meta").eval()
    with torch.no_grad(), counter:
        ghost(torch.empty(*shape, device="meta"))
    return counter.get_total_flops() // 2


def _train(arguments: list[str], log: Path) -> float:
    """Run `qna` in a process; return the CPU seconds that it took."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen([sys.executable, "-m", "qna", *arguments], stdout=output, stderr=output)
        try:
            _, status, used = os.wait4(child.pid, 0)
        except BaseException:
            child.terminate()  # it keeps a checkpoint
            raise
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise InvalidInput(f"`qna {' '.join(arguments)}` ended with {child.returncode}: {last}")
    return used.ru_utime + used.ru_stime


def _free(folder: Path) -> Path:
    """The folder, or the first of FOLDER-2, FOLDER-3 ... that is not there."""
    place, number = folder, 1
    while place.exists():
        number += 1
        place = folder.with_name(f"{folder.name}-{number}")
    return place
