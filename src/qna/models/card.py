"""The page that goes with a shared model: what it is, what was measured, how to use it and train it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qna._core.outside import as_code, as_markdown

_USE = """\
import timm
import torch
import qna.models  # tells timm the names of this package
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

# this folder, or "hf-hub:OWNER/NAME" once it is on the hub; num_classes=N brings a new classifier
model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
prepare = create_transform(**resolve_model_data_config(model), is_training=False)
image = Image.open("photo.png").convert("{mode}")
with torch.no_grad():
    probabilities = model(prepare(image)[None]).softmax(1)[0]
names = model.pretrained_cfg.get("label_names") or range(len(probabilities))
for name, probability in zip(names, probabilities.tolist()):
    print(name, f"{{probability:.3f}}")
"""


def model_card(
    config: Mapping[str, Any], *, parameters: int, metrics: Mapping[str, Any] | None, training: str | None
) -> str:
    """Markdown with the hub's front matter; it claims nothing that `metrics` does not say.

    Args:
        config: of the model, as it goes to config.json.
        parameters: numbers in the model's parameters.
        metrics: what a run of `qna train` wrote to metrics.json, if there was one.
        training: the run's configuration as JSON, if there was one.
    """
    data = config["pretrained_cfg"]
    channels, height, width = data["input_size"]
    rows = {
        "model": f"{as_code(config['architecture'])}, {parameters:,} parameters, "
        f"{config['num_classes']:,} classes",
        "reads": f"{channels} x {height} x {width}, {as_markdown(data['interpolation'])}, "
        f"crop {data['crop_pct']:.4g}, mean {_numbers(data['mean'])}, std {_numbers(data['std'])}",
    }
    title, result = config["architecture"], "Nothing that was measured came with it."
    if metrics is not None:
        title += f" on {metrics['data']}"
        result = (
            f"{metrics['right']:,} of {metrics['held_out']:,} held-out images right ({metrics['top1']:.2%}), "
            "measured at the end of the run that trained it."
        )
        rows |= _measured(metrics)
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    use = _USE.format(mode="L" if channels == 1 else "RGB")
    return f"""---
library_name: timm
pipeline_tag: image-classification
tags:
- image-classification
- timm
- qna
---
# {as_markdown(title)}

{result}

| | |
|---|---|
{table}

## Use

    qna predict FOLDER photo.png

```python
{use}```
{"" if training is None else _training(training)}"""


def _measured(metrics: Mapping[str, Any]) -> dict[str, str]:
    images = f"{metrics['trained_on']:,} images trained on, {metrics['held_out']:,} held out"
    if metrics["unreadable"]:
        images += f"; {metrics['unreadable']:,} could not be read"
    epochs = "1 epoch" if metrics["epochs"] == 1 else f"{metrics['epochs']:,} epochs"
    where = as_markdown(f"{metrics['device']}, torch {metrics['torch']}")
    return {
        "data": f"{as_markdown(metrics['data'])}: {images}",
        "top-1": f"{metrics['top1']:.2%}",
        "top-5": f"{metrics['top5']:.2%}",
        "cross entropy": f"{metrics['loss']:.4f} nats",
        "training": f"{epochs} in {metrics['seconds']:.0f} s on {where}",
    }


def _training(config: str) -> str:
    return f"""
## Training

`qna train --config FILE`, with this in FILE:

```json
{config.strip()}
```
"""


def _numbers(values: Any) -> str:
    return " ".join(f"{value:.4g}" for value in values)
