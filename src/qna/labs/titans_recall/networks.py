"""The decoders: attention of all, of a window, linear, and memories alone, beside attention and with less."""

from __future__ import annotations

from typing import Any

from qna.labs.titans_recall.config import TitansRecallConfig

FULL, WINDOW, LINEAR = "full attention", "window attention", "linear attention"
ALONE, GATE, LAYER, CONTEXT = "memory alone", "memory as gate", "memory as layer", "memory as context"
NO_MOMENTUM, NO_DECAY, DEEP = "without momentum", "without decay", "two layers"
CONTROLS, MEMORIES, LESS = (WINDOW, LINEAR), (ALONE, GATE, LAYER, CONTEXT), (NO_MOMENTUM, NO_DECAY)
TASKS = RECALL, NEEDLE = "recall", "needle"
NETWORKS = (FULL, *CONTROLS, *MEMORIES, *LESS, DEEP)


def mixers_of(config: TitansRecallConfig, name: str) -> Any:
    """Of a contender's layers: the first sees each position and the one before it, in all of them.

    That is what it takes to join a key and its value, and memories have convolutions for it; so theirs are
    of one position, and nobody has more than the others. Behind it order says nothing, so there are no rotary
    positions, and lengths beyond those of training are nothing new.
    """
    memory: dict[str, Any] = {"chunk": config.chunk, "conv": 1, "depth": 1, "step": config.step}
    beside = {"window": config.window, "rope_base": None, "memory": memory}
    second: dict[str, Any] = {
        FULL: ("CausalAttention1d", {"rope_base": None}),
        WINDOW: ("SlidingAttention1d", {"window": config.window, "rope_base": None}),
        LINEAR: "CausalLinearAttention1d",
        ALONE: ("NeuralMemory1d", memory),
        GATE: ("MemoryAsGate1d", beside),
        LAYER: ("MemoryAsLayer1d", beside),
        CONTEXT: ("MemoryAsContext1d", {"segment": config.window, "rope_base": None, "memory": memory}),
        NO_MOMENTUM: ("NeuralMemory1d", {**memory, "momentum": False}),
        NO_DECAY: ("NeuralMemory1d", {**memory, "decay": False}),
        DEEP: ("NeuralMemory1d", {**memory, "depth": 2, "step": config.deep_step}),
    }
    first = ("SlidingAttention1d", {"window": 2})
    return (first, *[second[name]] * (config.depth - 1))
