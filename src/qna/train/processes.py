"""The processes that torchrun started for one command."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from qna._core.errors import require
from qna.train.setup import group_ends_at_exit

# one process may have far less to do than another
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """This process among those of its command.

    Attributes:
        rank: its number.
        count: of all.
        device: what it is to compute on.
    """

    rank: int
    count: int
    device: torch.device
    _state: Any

    def wait(self) -> None:
        """Go on when all processes have come here."""
        self._state.wait_for_everyone()


def join_processes(*, cpu: bool) -> Processes | None:
    """Meet the other processes, wherever they run; None where torchrun started no others.

    Args:
        cpu: compute there, even if there are accelerators.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    accelerate = require("accelerate", extra="train", purpose="a command of several processes")
    with group_ends_at_exit():
        state = accelerate.PartialState(cpu=cpu, timeout=_PATIENCE)
    return Processes(state.process_index, state.num_processes, state.device, state)
