"""What a run is made of before its first update, all of it following from the configuration."""

from __future__ import annotations

import atexit
import gc
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from qna._core.errors import InvalidInput, require
from qna.adapters.registry import has_resting_parts
from qna.train.config import TrainConfig


def build_accelerator(config: TrainConfig) -> Any:
    """accelerate's view of devices, processes and precision.

    Raises:
        InvalidInput: if the precision cannot be had on the device.
    """
    accelerate = require("accelerate", extra="train", purpose="training")
    precision = {"fp32": "no"}.get(config.run.precision, config.run.precision)
    # accelerate keeps the first precision of a process for all later runs unless told to forget it
    accelerate.state.AcceleratorState._reset_state()
    try:
        with group_ends_at_exit():
            accelerator = accelerate.Accelerator(cpu=config.run.device == "cpu", mixed_precision=precision)
    except ValueError as error:
        raise InvalidInput(f"precision {precision} cannot be used here: {error}") from None
    if precision != "no" and not accelerator.native_amp:  # accelerate would train in fp32 without a word
        raise InvalidInput(f"precision {precision} cannot be used on {accelerator.device}; take fp32 or bf16")
    return accelerator


def look_for_resting_parts(accelerator: Any, network: nn.Module) -> None:
    """Let DDP look for parameters without a gradient in each update, where there may be some."""
    if has_resting_parts(network):
        utils = require("accelerate.utils", extra="train", purpose="training")
        accelerator.ddp_handler = utils.DistributedDataParallelKwargs(find_unused_parameters=True)


def compile_in_place(model: nn.Module, network: nn.Module) -> None:
    """Run what is called in training, `model`, through torch.compile.

    Raises:
        InvalidInput: a network of which parts rest in some updates. Compiled, they get gradients of zero.
    """
    if has_resting_parts(network):
        raise InvalidInput(
            "in a compiled network weight decay moves parts that rest while others learn; leave --compile out"
        )
    model.compile()


@contextmanager
def group_ends_at_exit() -> Iterator[None]:
    """Destroy a process group that comes to be inside the block when this process ends.

    It must be gone before the interpreter: its threads keep the tensors of a collective for a moment after
    that has returned. One that lets go of them while the interpreter ends asks for its lock, is made to exit
    where C++ allows no such thing, and the process aborts: "terminate called without an active exception".
    A group from before the block is the caller's.
    """
    had_group = _group() is not None
    try:
        yield
    finally:
        group = _group()
        if group is not None and not had_group:
            # only what nothing refers to can be destroyed whole, so not even the handler may keep it
            atexit.register(_end_group, weakref.ref(group), os.getpid())


def _end_group(made: weakref.ref[Any], process: int) -> None:
    # a forked process has none of the group's threads and would wait for them forever
    if os.getpid() != process or made() is None or _group() is not made():
        return
    gc.collect()  # networks refer to the group, and lie in cycles
    torch.distributed.destroy_process_group()
    if made() is not None:
        # the threads end with the last reference, but torch itself keeps some (DTensor's caches, defaults of
        # arguments) and so may the caller; what is left is to give them time, far more than they need
        time.sleep(0.1)


def _group() -> Any:
    """The default process group, or None."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.group.WORLD
    return None


def from_main_process(value: Any) -> Any:
    """What the first process has as `value`, in every process."""
    accelerate_utils = require("accelerate.utils", extra="train", purpose="training")
    return accelerate_utils.broadcast_object_list([value])[0]


def from_all_processes(values: list[Any]) -> list[Any]:
    """What all processes have in `values`, one after the other."""
    accelerate_utils = require("accelerate.utils", extra="train", purpose="training")
    return accelerate_utils.gather_object(values)


def share_averages(network: nn.Module) -> None:
    """Give the batch norms of all processes the averages of the first, which are those that are kept.

    Each process has averages of its own batches; judged with those, a score would be no one network's.
    """
    accelerate_utils = require("accelerate.utils", extra="train", purpose="training")
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            for buffer in module.buffers(recurse=False):
                buffer.copy_(accelerate_utils.broadcast(buffer))


def build_average(network: nn.Module, decay: float) -> Any:
    """timm's running average of the weights, or None for a decay of 0."""
    if not decay:
        return None
    timm_utils = require("timm.utils", extra="train", purpose="training")
    # the warm-up lets the average follow the first, fast steps: decay 1 - (1 + step)^(-2/3), at most `decay`
    return timm_utils.ModelEmaV3(network, decay=decay, use_warmup=True)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads inside the block; 0 changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
