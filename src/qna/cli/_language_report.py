"""What a report says and draws of a network of language."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from qna.models.decoder import Decoder
from qna.train import Outcome

HOW_TO_READ: dict[str, str] = {}


def result(outcome: Outcome) -> str:
    """The headline in words."""
    first = outcome.scores.first
    figure = (
        f"{first.right:.2%} of the answers right"
        if first.bits_per_byte is None
        else f"{first.bits_per_byte:.4f} bits per byte"
    )
    return f"{figure} on {first.sequences:,} held-out sequences of {first.length:,} tokens"


def closing(outcome: Outcome) -> str:
    """The line of the closing table."""
    return f"{result(outcome)}, loss {outcome.scores.first.loss:.4f}"


def figures(outcome: Outcome) -> dict[str, str]:
    """Rows of the page."""
    network, rows = cast(Decoder, outcome.network), {}
    for of_length in outcome.scores.lengths:
        per_byte = "" if of_length.bits_per_byte is None else f"{of_length.bits_per_byte:.4f} bits per byte, "
        rows[f"held out, {of_length.length:,} tokens"] = (
            f"{per_byte}{of_length.loss:.4f} nats per token, {of_length.right:.2%} right"
        )
    context = outcome.config.language.context
    rows["state"] = (
        f"{network.state_bytes((1, context)) / context:,.0f} bytes per token at {context:,} tokens"
    )
    read = outcome.metrics["epochs"] * outcome.metrics["trained_on"] * context
    rows["throughput"] = (
        f"{read / max(outcome.metrics['seconds'], 1e-9):,.0f} tokens per second, with judging"
    )
    return rows


def draw(outcome: Outcome, learning: Callable[..., None]) -> dict[str, str]:
    """Draw the learning curve.

    Args:
        outcome: of the run, whose folder it goes to.
        learning: draws it.

    Returns:
        what it shows -> its file.
    """
    name, text = outcome.task.headline.name, outcome.scores.first.bits_per_byte is not None
    learning(
        outcome.folder / "learning_curve.png",
        outcome.history,
        title=f"{outcome.config.network.model} on {Path(outcome.data.name).name}",
        headline=name,
        missing="Held-out bits per byte" if text else "Held-out answers that are wrong",
        unit="nats per token",
        part=not text,
    )
    return {"learning curve": "learning_curve.png"}
