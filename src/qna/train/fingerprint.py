"""What must be the same when a run goes on: options that its numbers follow from, and its data."""

from __future__ import annotations

import json
from typing import Any

from qna.train.config import TrainConfig

# options that change no number, or only where a run starts
FREE = {
    "out",
    "workers",
    "save_every",
    "tensorboard",
    "download",
    "data_dir",
    "images_dir",
    "weights",
    "pretrained",
}


def fingerprint_of(config: TrainConfig, data: dict[str, Any]) -> dict[str, Any]:
    """Facts by name, as JSON brings them back.

    Args:
        config: of the run.
        data: facts on its data, as the task tells them.
    """
    groups = json.loads(config.to_json())
    options = {name: value for group in groups.values() for name, value in group.items() if name not in FREE}
    return {"options": options, "data": json.loads(json.dumps(data))}


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, in words; a fact that only one of them has does not."""
    found = []
    for kind in ("options", "data"):
        old, new = before.get(kind), now[kind]
        old = old if isinstance(old, dict) else {}
        for name in new:
            if name in old and old[name] != new[name]:
                is_short = all(isinstance(v, int | float | str | None) for v in (old[name], new[name]))
                if is_short and not name.startswith("order or contents"):
                    found.append(f"{name} was {old[name]} and is {new[name]}")
                else:
                    found.append(f"{name} changed")
    return found
