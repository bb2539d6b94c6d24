"""Training by a contrastive loss and searching among held-out pairs; what routing costs."""

from __future__ import annotations

from typing import cast

import torch

from qna._core.seeds import derive_seed, seeded
from qna.bench.measure.calls import peaks_of_calls, time_calls
from qna.bench.measure.harness import Plan
from qna.data import load_data
from qna.data.images.labelled import TensorImages
from qna.labs.capsule_retrieval.config import CapsuleRetrievalConfig
from qna.labs.capsule_retrieval.networks import (
    ATTENTION,
    DYNAMIC,
    EM,
    NONE,
    ROUTINGS,
    TwoModalities,
    routed_call,
)
from qna.labs.capsule_retrieval.pairs import CAPTIONS, Pairs, draw, found_by, words_of
from qna.labs.row import Figure
from qna.labs.warmed_cosine import set_rate
from qna.parts.contrastive import contrastive_loss

MORE = "self-attention, more capsules"
ROUTED = (ATTENTION, DYNAMIC, EM)
CONTENDERS = (ATTENTION, DYNAMIC, EM, NONE, MORE)
MODE = "forward+backward"


def retrieval_case(task: str, seed: int) -> str:
    """The case of a task and a seed."""
    return f"{task}-seed{seed}"


def cost_case(capsules: int) -> str:
    """The case of so many capsules; `capsules_of` reads it back."""
    return f"routing-{capsules}capsules"


def capsules_of(case: str) -> int | None:
    """Capsules of a case of cost; None for other cases."""
    return int(case.split("-")[1].removesuffix("capsules")) if case.startswith("routing-") else None


def retrieve(config: CapsuleRetrievalConfig, task: str, seed: int) -> list[Figure]:
    """Every contender trained on the same pairs and asked for the same held-out ones."""
    data = load_data(config.data, config.data_dir)
    seen, unseen = (cast(TensorImages, part) for part in (data.train, data.held_out))
    side = seen.pixels.shape[-1]
    judged = draw(task, unseen, config.judged, _generator(seed, task, "judged"))
    figures = []
    for name in CONTENDERS:
        capsules = config.more if name == MORE else config.capsules
        with seeded(derive_seed(seed, "network", task)):
            network = TwoModalities(task, ATTENTION if name == MORE else name, capsules, side, config)
        _train(config, network, task, seen, seed)
        about = {"capsules": capsules, "dim": config.dim, "pairs": config.judged, "steps": config.steps}
        case = retrieval_case(task, seed)
        for metric, value in search(network, task, judged).items():
            figures.append(Figure(case, name, "train", metric, "%", value, extra=about))
        parameters = sum(p.numel() for p in network.parameters())
        figures.append(Figure(case, name, "none", "parameters", "1", parameters, extra=about))
    return figures


@torch.no_grad()
def search(network: TwoModalities, task: str, judged: Pairs) -> dict[str, float]:
    """Recall among the judged pairs; of captions each is asked for once, however many images have it."""
    network.eval()
    b, names = judged.b, judged.names
    if task == CAPTIONS:
        names = judged.names.unique()
        b = words_of(names)
    first, second = network.a(network.see(judged.a)), network.b(network.read(b))
    first, second = (torch.nn.functional.normalize(x, dim=-1) for x in (first, second))
    return dict(found_by(first @ second.mT, judged.names, names))


def measure_cost(config: CapsuleRetrievalConfig, capsules: int) -> list[Figure]:
    """Time and peak memory of routing with all gradients, each way in turn.

    Raises:
        InvalidInput: this system does not tell peak memory.
    """
    with seeded(derive_seed(config.seed, "cost", capsules)):
        poses = torch.randn(config.cost_batch, 1, capsules, config.dim)
        activations = torch.rand(config.cost_batch, 1, capsules)
        routings = {name: ROUTINGS[name](capsules, config.dim, config.iterations) for name in ROUTED}
    calls = {
        name: routed_call(routing, poses.clone(), activations.clone()) for name, routing in routings.items()
    }
    peaks = peaks_of_calls(calls)
    times = time_calls(calls, plan=Plan(seconds=config.seconds, patience=20.0))
    case, figures = cost_case(capsules), []
    about = {"batch": config.cost_batch, "dim": config.dim, "iterations": config.iterations}
    for name, routing in routings.items():
        taken = (1e3 * value for value in times.spread(name))
        macs = routing.macs(1, capsules) / 1e6  # type: ignore[operator]
        figures += [
            Figure(case, name, MODE, "time", "ms", *taken, extra=about),
            Figure(case, name, MODE, "memory", "MiB", peaks[name] / 2**20, extra=about),
            Figure(case, name, "none", "macs", "MMAC", macs, extra=about),
        ]
    return figures


def _train(
    config: CapsuleRetrievalConfig, network: TwoModalities, task: str, images: TensorImages, seed: int
) -> None:
    optimizer = torch.optim.Adam(network.parameters())
    network.train()
    for step in range(config.steps):
        set_rate(optimizer, config.rate, step, config.steps)
        pairs = draw(task, images, config.batch, _generator(seed, task, "step", step))
        loss = contrastive_loss(*network(pairs.a, pairs.b), temperature=config.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _generator(*purpose: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(*purpose))
