"""What a report says and draws of a network that tells classes apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from qna.analysis import attention_received
from qna.data import Batch, Images, Preparation
from qna.plots import plot_attention, plot_confusion
from qna.train import Outcome
from qna.train.tasks.classification import plain_view

SHOWN = 8
HOW_TO_READ = {
    "attention maps": "Blue places receive less attention than an even spread would give them, red places "
    "more."
}


def result(outcome: Outcome) -> str:
    """The headline in words."""
    scores = outcome.scores
    return f"{scores.top1:.2%} of {scores.images:,} held-out images right"


def closing(outcome: Outcome) -> str:
    """The line of the closing table."""
    scores = outcome.scores
    wrong = scores.images - scores.right
    return f"{scores.top1:.2%} right ({wrong:,} of {scores.images:,} wrong), loss {scores.loss:.4f}"


def figures(outcome: Outcome) -> dict[str, str]:
    """Rows of the page."""
    m = outcome.metrics
    return {
        "held out, right": f"{m['right']:,} of {m['held_out']:,} ({m['top1']:.2%})",
        "held out, cross entropy": f"{m['loss']:.4f} nats",
    }


def draw(outcome: Outcome, learning: Callable[..., None]) -> dict[str, str]:
    """Draw learning curve, confusion matrix and attention maps.

    Args:
        outcome: of the run, whose folder they go to.
        learning: draws the curve.

    Returns:
        what each shows -> its file.
    """
    folder, scores, data = outcome.folder, outcome.scores, outcome.data
    title = f"{outcome.config.network.model} on {_short(data.name)}"
    learning(folder / "learning_curve.png", outcome.history, title=title)
    path = folder / "confusion_matrix.png"
    plot_confusion(path, scores.confusion, data.classes, title=f"{title}: {result(outcome)}")
    pictures = {"learning curve": "learning_curve.png", "confusion matrix": path.name}
    if _draw_attention(outcome):
        pictures["attention maps"] = "attention_maps.png"
    return pictures


def _draw_attention(outcome: Outcome) -> bool:
    """Draw attention on held-out images of several classes; False for a network without attention maps."""
    data, network, config = outcome.data, outcome.network, outcome.config
    batch = _varied(plain_view(config, data), data.held_out)
    images = batch.images.to(next(network.parameters()).device)
    maps = attention_received(network, images)
    if not maps:
        return False
    network.eval()
    with torch.no_grad():
        predicted = network(images).argmax(1).tolist()
    captions = []
    for truth, guess in zip(batch.labels.tolist(), predicted, strict=True):
        text = data.classes[truth] if guess == truth else f"{data.classes[truth]}, not {data.classes[guess]}"
        captions.append((text, guess == truth))
    shown = batch.images * torch.tensor(data.std).view(-1, 1, 1) + torch.tensor(data.mean).view(-1, 1, 1)
    rows = [(f"{m.size[0]}x{m.size[1]}, {_layers(len(m.layers))}", m.received.cpu().numpy()) for m in maps]
    plot_attention(
        outcome.folder / "attention_maps.png",
        shown.clamp(0, 1).permute(0, 2, 3, 1).numpy(),
        rows,
        captions,
        title=f"Attention that each place receives, {config.network.model} on held-out {_short(data.name)}",
    )
    return True


def _varied(view: Preparation, images: Images) -> Batch:
    """Some images of as many classes as a few samples, spread over the whole set, give."""
    spread = range(0, len(images), max(1, len(images) // (8 * SHOWN)))
    batch = view(images, spread)
    firsts: dict[int, int] = {}
    for place, label in enumerate(batch.labels.tolist()):
        firsts.setdefault(label, place)
    chosen = [firsts[label] for label in sorted(firsts)][:SHOWN]
    return Batch(batch.images[chosen], batch.labels[chosen], batch.indices[chosen], [])


def _short(data: str) -> str:
    """What a picture calls a data set: the path of a folder would not fit."""
    return Path(data).name


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"
