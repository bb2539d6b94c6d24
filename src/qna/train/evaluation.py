"""How good a network is at a task, each held-out example counted once over all processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from qna._core.with_losses import WithLosses
from qna.train import setup
from qna.train.learner import Learner
from qna.train.task import Task
from qna.train.update import to_device


@torch.no_grad()
def judge_task(learner: Learner, task: Task, batches: Iterable[Any]) -> Any:
    """The task's scores of the network that is kept; its mode is put back afterwards.

    Args:
        learner: whose network it is.
        task: counts and scores.
        batches: each example of this process once.
    """
    tally, network = task.tally(learner.device), learner.evaluated()
    if learner.accelerator.num_processes > 1:
        setup.share_averages(network)
    training = network.training
    network.eval()
    try:
        for batch in batches:
            if not task.examples(batch):  # none of them could be read
                continue
            with learner.accelerator.autocast():
                output = network(*to_device(task.inputs(batch), learner.device))
            tally.add(output.output if isinstance(output, WithLosses) else output, batch)
    finally:
        network.train(training)
    if learner.accelerator.num_processes > 1:
        tally.reduce(learner.accelerator.reduce, setup.from_all_processes)
    return tally.scores()
