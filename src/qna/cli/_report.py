"""The pictures and the page that a training run leaves for a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qna._core.files import write_text
from qna.analysis import attention_received
from qna.data import Batch, Images, Preparation
from qna.plots import plot_attention, plot_confusion, plot_learning
from qna.train import Outcome
from qna.train.tasks.classification import plain_view

SHOWN = 8


def write_report(outcome: Outcome) -> dict[str, str]:
    """Write pictures and report.md to the run's folder; return the closing table, what -> where."""
    folder, scores, data, config = outcome.folder, outcome.scores, outcome.data, outcome.config
    result = f"{scores.top1:.2%} of {scores.images:,} held-out images right"
    title = f"{config.network.model} on {_short(data.name)}"
    plot_learning(folder / "learning_curve.png", outcome.history, title=title)
    plot_confusion(
        folder / "confusion_matrix.png", scores.confusion, data.classes, title=f"{title}: {result}"
    )
    pictures = {"learning curve": "learning_curve.png", "confusion matrix": "confusion_matrix.png"}
    if _draw_attention(outcome):
        pictures["attention maps"] = "attention_maps.png"
    write_text(folder / "report.md", _page(outcome, result, pictures))
    files = {
        "report": "report.md",
        "weights": "model.safetensors",
        "configuration": "config.json",
        "metrics": "metrics.json",
        "log": "log.jsonl",
        **pictures,
    }
    wrong = scores.images - scores.right
    rows = {
        "held out": f"{scores.top1:.2%} right ({wrong:,} of {scores.images:,} wrong), loss {scores.loss:.4f}",
        "time": f"{outcome.metrics['seconds']:.0f} s",
    }
    return rows | {name: str(folder / file) for name, file in files.items()}


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


def _unreadable(count: int) -> str:
    return f"; {count:,} could not be read and were skipped (log.jsonl names them)" if count else ""


def _short(data: str) -> str:
    """What a picture calls a data set: the path of a folder would not fit."""
    return Path(data).name


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _page(outcome: Outcome, result: str, pictures: dict[str, str]) -> str:
    m: dict[str, Any] = outcome.metrics
    config = outcome.config
    rows = {
        "model": f"`{' '.join([m['model'], *config.network.model_kwargs])}`, {m['parameters']:,} parameters",
        "data": f"{m['data']}: {outcome.data.origin}",
        "images": f"{m['trained_on']:,} trained on, {m['held_out']:,} held out{_unreadable(m['unreadable'])}",
        "held out, right": f"{m['right']:,} of {m['held_out']:,} ({m['top1']:.2%})",
        "held out, cross entropy": f"{m['loss']:.4f} nats",
        "training": f"{m['epochs']} epochs in {m['seconds']:.0f} s on {m['device']}, torch {m['torch']}",
        "seed": str(config.run.seed),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    shown = "\n\n".join(f"![{name}]({file})" for name, file in pictures.items())
    how = "Blue places receive less attention than an even spread would give them, red places more."
    return f"""# {config.network.model} on {outcome.data.name}: {result}

| | |
|---|---|
{table}

{shown}
{f"{chr(10)}{how}{chr(10)}" if "attention maps" in pictures else ""}
The same run again: `qna train --config {outcome.folder / "config.json"}`
"""
