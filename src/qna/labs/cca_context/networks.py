"""Who attends what: everything, core and near tokens, and windows whose caches are no smaller."""

from __future__ import annotations

from typing import Any

from qna.labs.cca_context.config import CcaContextConfig, cached

FULL, CORES, WINDOW, SINKS = "full attention", "core tokens", "window", "window and sinks"
NETWORKS = (FULL, CORES, WINDOW, SINKS)


def mixers_of(config: CcaContextConfig, name: str) -> Any:
    """Of all layers of the decoder that reads text."""
    return _mixers(name, config.window, config.group, config.sinks, config.narrow)


def timed_mixers_of(config: CcaContextConfig, name: str, length: int) -> Any:
    """Of all layers of the decoder whose prompts of `length` positions are timed."""
    narrow = cached(length, config.time_window, config.time_group) + 1
    return _mixers(name, config.time_window, config.time_group, config.sinks, narrow)


def _mixers(name: str, window: int, group: int, sinks: int, narrow: int) -> Any:
    mixers: dict[str, Any] = {
        FULL: "CausalAttention1d",
        CORES: ("CoreContextAttention1d", {"window": window, "group": group}),
        WINDOW: ("SlidingAttention1d", {"window": narrow}),
        SINKS: ("SlidingAttention1d", {"window": narrow - sinks, "sinks": sinks}),
    }
    return mixers[name]
