"""The pictures and the page that a training run leaves for a person."""

from __future__ import annotations

from typing import Any

import torch

from qna._core.files import write_text
from qna.analysis import attention_received
from qna.data import Preparation
from qna.plots import plot_attention, plot_confusion, plot_learning
from qna.train import Outcome, TrainConfig

SHOWN = 8


def write_report(outcome: Outcome, config: TrainConfig) -> dict[str, str]:
    """Write pictures and report.md to the run's folder; return the closing table, what -> where."""
    folder, scores, data = outcome.folder, outcome.scores, outcome.data
    result = f"{scores.top1:.2%} of {scores.images:,} held-out images right"
    title = f"{config.network.model} on {data.name}"
    plot_learning(folder / "learning_curve.png", outcome.history, title=title)
    plot_confusion(
        folder / "confusion_matrix.png", scores.confusion, data.classes, title=f"{title}: {result}"
    )
    pictures = {"learning curve": "learning_curve.png", "confusion matrix": "confusion_matrix.png"}
    if _draw_attention(outcome, config):
        pictures["attention maps"] = "attention_maps.png"
    write_text(folder / "report.md", _page(outcome, config, result, pictures))
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


def _draw_attention(outcome: Outcome, config: TrainConfig) -> bool:
    """Draw attention on the wrongly judged held-out images first, then on others; False without attention."""
    data, network = outcome.data, outcome.network
    prepare = Preparation(config.images.image_size, data.mean, data.std)
    device = next(network.parameters()).device
    indices = _one_per_class(data.held_out.labels)
    images = prepare(data.held_out.pixels[indices], 0, indices)
    maps = attention_received(network, images.to(device))
    if not maps:
        return False
    network.eval()
    with torch.no_grad():
        predicted = network(images.to(device)).argmax(1).tolist()
    captions = []
    for index, guess in zip(indices, predicted, strict=True):
        truth = int(data.held_out.labels[index])
        right = guess == truth
        text = data.classes[truth] if right else f"{data.classes[truth]} taken for {data.classes[guess]}"
        captions.append((text, right))
    shown = images * torch.tensor(data.std).view(-1, 1, 1) + torch.tensor(data.mean).view(-1, 1, 1)
    rows = [(f"{m.size[0]}x{m.size[1]}, {_layers(len(m.layers))}", m.received.cpu().numpy()) for m in maps]
    plot_attention(
        outcome.folder / "attention_maps.png",
        shown.clamp(0, 1).permute(0, 2, 3, 1).numpy(),
        rows,
        captions,
        title=f"Attention that each place receives, {config.network.model} on held-out {data.name}",
    )
    return True


def _one_per_class(labels: torch.Tensor) -> list[int]:
    """The first held-out image of each of the first classes."""
    firsts = {int(label): i for i, label in reversed(list(enumerate(labels)))}
    return [firsts[label] for label in sorted(firsts)][:SHOWN]


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _page(outcome: Outcome, config: TrainConfig, result: str, pictures: dict[str, str]) -> str:
    m: dict[str, Any] = outcome.metrics
    rows = {
        "model": f"`{m['model']}`, {m['parameters']:,} parameters",
        "data": f"{m['data']}: {outcome.data.origin}",
        "images": f"{m['trained_on']:,} trained on, {m['held_out']:,} held out",
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
