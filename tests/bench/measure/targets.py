"""Calls for the memory probe's process, by the question's "what"."""

import os
import signal
from pathlib import Path

import torch

from qna.bench.subjects import questions


def call(question):
    """The call that is asked for."""
    return TARGETS[question["what"]](question)


def allocate(question):
    """Hold `mib` at once, after holding as much twice before and giving it back; or fail."""
    if question.get("fail"):
        raise ValueError("asked to fail")
    elements = int(question["mib"] * 2**18)

    def run():
        first = torch.ones(elements)
        del first
        return torch.ones(elements)

    return run


def end(question):
    """End as if for want of memory, if this process is the one that is to go then."""
    if Path("/proc/self/oom_score_adj").read_text().strip() == "1000":
        os.kill(os.getpid(), signal.SIGKILL)


def linear(question):
    """A layer's inference."""
    layer = torch.nn.Linear(*question["features"])
    x = torch.randn(question["positions"], question["features"][0])
    return torch.no_grad()(lambda: layer(x))


def module(question):
    """Inference of a layer of this library on a map."""
    from qna.mixers import QnA2d, WindowAttention2d
    from qna.models._parts.block import MixerBlock

    torch.set_num_threads(1)
    kind, dim = question["kind"], 64
    x = torch.randn(1, 64, 64, dim)
    if kind == "qna":
        layer = QnA2d(dim, num_heads=8, kernel_size=question.get("window", 3))
    else:
        layer = WindowAttention2d(dim, num_heads=2, window_size=8)
    if kind == "block":
        layer = MixerBlock(dim, layer, out_dim=dim)
    return torch.no_grad()(lambda: layer.eval()(x))


def preload():
    """Import once what the calls need."""
    import qna.models  # noqa: F401


TARGETS = {"allocate": allocate, "end": end, "linear": linear, "module": module, "peer": questions.call}
