"""Stopping a run from inside, and comparing the ends of two."""

import os
import signal

import torch

from qna.train import Observer
from qna.train.checkpoint import load_tensors
from tests.train.processes import log


class Stop(Observer):
    """Asks the run to stop at an update."""

    def __init__(self, at):
        self.at = at

    def update(self, step, epoch, loss):
        if step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def assert_same_end(a, b):
    """Two folders hold the same events, weights and state, bit for bit."""
    assert log(a) == log(b)
    for name in ("model.safetensors", "checkpoint.safetensors"):
        x, y = load_tensors(a / name)[0], load_tensors(b / name)[0]
        assert x.keys() == y.keys()
        assert all(torch.equal(x[k], y[k]) for k in x)
