"""From a question in JSON to the work that answers it: what processes beside this one are sent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from qna.bench.measure import gpu
from qna.bench.measure.contender import Setting
from qna.bench.measure.work import ContenderWork, Work
from qna.bench.subjects.peers import PEERS
from qna.bench.subjects.peers.compiled import compiled
from qna.bench.subjects.peers.from_timm import timm_module
from qna.bench.subjects.whole_model import ModelSetting, ModelWork

# where other processes find `call` and `make`
MODULE = __name__


def make(question: dict[str, Any]) -> Work:
    """The work that a question names.

    Args:
        question: "kind" ("op", "layer" or "model"), "name" of the peer or model, "setting" its sizes; of a
            model also its "arguments", its "adapter" and whether it is "compiled".
    """
    if question["setting"]["device"] != "cpu":
        gpu.settle()
    if question["kind"] == "model":
        setting = ModelSetting(**question["setting"])
        made: Work = ModelWork(
            question["name"],
            setting,
            arguments=question.get("arguments"),
            adapter=question.get("adapter"),
            compile=question.get("compiled", False),
        )
    else:
        peer = PEERS[question["name"]]
        made = ContenderWork(peer.build(Setting(**question["setting"]), question["kind"]))
    made.extra = {**made.extra, "setting": question["setting"]}
    return made


def call(question: dict[str, Any]) -> Callable[[], object]:
    """The call of a question that also names a "mode"; what the memory probe measures."""
    torch.set_num_threads(question["threads"])
    return make(question).call(question["mode"])


def preload() -> None:
    """Import what peers import when they are built; the compiler's start alone takes seconds."""
    for name in ("timm.layers", "timm.models.swin_transformer"):
        with contextlib.suppress(ImportError):
            timm_module(name)
    with contextlib.suppress(RuntimeError):  # no C++ compiler
        compiled(torch.neg, "cpu")(torch.ones(1))
