"""One update: forward and backward passes over a group of batches, then a step of the optimizer."""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qna._core.errors import InvalidInput
from qna._core.seeds import derive_seed
from qna._core.with_losses import WithLosses
from qna.train.learner import Learner
from qna.train.task import Task


class NotFinite(Exception):
    """The loss of an update is infinite or NaN; the weights did not take it."""


@dataclass(frozen=True)
class Update:
    """What came of an update, over all processes.

    Attributes:
        loss_sum: of all losses, over the examples.
        examples: of all batches.
        parts: the network's own losses in that sum, by name.
        asked: the signal that asks to stop, or 0.
    """

    loss_sum: float
    examples: int
    parts: dict[str, float]
    asked: int

    @property
    def loss(self) -> float:
        """Mean over the examples."""
        return self.loss_sum / self.examples

    @property
    def part_means(self) -> dict[str, float]:
        """The network's own losses, means over the examples."""
        return {name: value / self.examples for name, value in self.parts.items()}


def make_update(
    learner: Learner, task: Task, group: Sequence[Any], *, step: int, rate: float, signalled: int
) -> Update:
    """Make update number `step` from a group of batches.

    Args:
        learner: is changed.
        task: whose batches they are.
        group: of this process.
        step: updates made before; dropout and all that is random follow from it.
        rate: of learning.
        signalled: signal that this process got, or 0.

    Raises:
        NotFinite: before the weights are changed.
    """
    config, accelerator = learner.config, learner.accelerator
    for parameters in learner.optimizer.param_groups:
        parameters["lr"] = rate
    total, parts, examples = 0.0, dict[str, float](), sum(map(task.examples, group))
    for number, batch in enumerate(group):
        seed = derive_seed(config.run.seed, "update", step, number, accelerator.process_index)
        # dropout and stochastic depth draw from here
        torch.manual_seed(seed)
        is_last, count = number == len(group) - 1, task.examples(batch)
        # shards of the gradient are summed as they come: whole gradients would not fit
        with nullcontext() if is_last or learner.is_sharded else accelerator.no_sync(learner.model):
            loss, own = _losses(learner, task, batch, seed)
            accelerator.backward(loss * (count / examples))
        total += float(loss.detach()) * count
        for name, value in own.items():
            parts[name] = parts.get(name, 0.0) + float(value.detach()) * count
    # all processes see the same sums, so that they stop together
    update = _over_processes(learner, Update(total, examples, parts, signalled))
    if not math.isfinite(update.loss_sum):
        raise NotFinite(f"the loss is {update.loss_sum}")
    if config.optim.clip:
        accelerator.clip_grad_norm_(learner.model.parameters(), config.optim.clip)
    learner.stepper.step()
    learner.stepper.zero_grad(set_to_none=True)
    if learner.average is not None:
        learner.average.update(learner.network, step=step + 1)
    return update


def _losses(learner: Learner, task: Task, batch: Any, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, the network's own losses in it, and those alone."""
    batch = task.varied(batch, seed)
    inputs = to_device(task.inputs(batch), learner.device, channels_last=learner.config.network.channels_last)
    with learner.accelerator.autocast():
        output = learner.model(*inputs)
    output, own, supervised = output if isinstance(output, WithLosses) else (output, {}, {})
    loss = task.loss(output, batch, seed)
    own = {**own, **{name: s.weight * task.loss(s.output, batch, seed) for name, s in supervised.items()}}
    for name, value in own.items():
        if value.numel() != 1:
            raise InvalidInput(
                f"the network's loss {name!r} must be one number, got shape {tuple(value.shape)}"
            )
        loss = loss + value.float().reshape(())
    return loss, own


def to_device(value: Any, device: torch.device, *, channels_last: bool = False) -> Any:
    """Tensors in tuples, lists and dicts, on `device`; everything else as it is.

    Args:
        value: of any depth.
        device: where to.
        channels_last: lay out tensors of four dimensions so.
    """
    if isinstance(value, Tensor):
        value = value.to(device)
        if channels_last and value.ndim == 4:
            value = value.contiguous(memory_format=torch.channels_last)
        return value
    if isinstance(value, dict):
        return {key: to_device(v, device, channels_last=channels_last) for key, v in value.items()}
    if isinstance(value, tuple | list):
        moved = [to_device(v, device, channels_last=channels_last) for v in value]
        return type(value)(*moved) if hasattr(value, "_fields") else type(value)(moved)
    return value


def _over_processes(learner: Learner, update: Update) -> Update:
    """Sums over all processes, and the signal that any of them got."""
    if learner.accelerator.num_processes == 1:
        return update
    real = torch.float32 if learner.device.type == "mps" else torch.float64
    names = sorted(update.parts)
    numbers = [update.loss_sum, update.examples, bool(update.asked), *(update.parts[n] for n in names)]
    sums = learner.accelerator.reduce(torch.tensor(numbers, dtype=real, device=learner.device))
    total, count, stopping, *parts = sums.tolist()
    asked = update.asked or (signal.SIGTERM if stopping else 0)
    return Update(total, int(count), dict(zip(names, parts, strict=True)), asked)


def groups(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` batches; what is left at the end is left out."""
    iterator = iter(batches)
    while len(group := list(itertools.islice(iterator, size))) == size:
        yield group
