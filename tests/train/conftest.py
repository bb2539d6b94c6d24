import dataclasses

import pytest
import torch

from qna.data import DATA, DataSpec, ImageData, TensorImages
from qna.train import TrainConfig
from qna.train.config import AugmentOptions, ImageOptions, NetworkOptions, OptimOptions, RunOptions


def few(folder=None, *, download=False):
    """Two classes that a glance tells apart: light above or light below."""
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 100, (27, 1, 8, 8), generator=g, dtype=torch.uint8)
    labels = torch.arange(27) % 2
    pixels[labels == 0, :, :4] += 120
    pixels[labels == 1, :, 4:] += 120
    train, held_out = slice(0, 16), slice(16, 27)
    return ImageData(
        name="few",
        classes=("above", "below"),
        train=TensorImages(pixels[train], labels[train]),
        held_out=TensorImages(pixels[held_out], labels[held_out]),
        mean=(0.4,),
        std=(0.3,),
        origin="drawn by a test",
    )


@pytest.fixture
def config(monkeypatch, tmp_path):
    """Four updates in two epochs on images that are known."""
    monkeypatch.setitem(DATA, "few", DataSpec("two classes of light", few))
    return TrainConfig(
        images=ImageOptions(data="few", image_size=32),
        network=NetworkOptions(model="test_vit", drop_path=0.1),
        augment=AugmentOptions(rotate=5, shift=0.05, zoom=0.05, flip=True, smoothing=0.1),
        optim=OptimOptions(epochs=2, batch_size=8, lr=0.02, warmup_epochs=1, ema=0.9),
        run=RunOptions(out=tmp_path / "run", device="cpu"),
    )


@pytest.fixture
def changed():
    """A configuration with some options, by name, changed."""

    def change(config, **options):
        for part in dataclasses.fields(config):
            group = getattr(config, part.name)
            mine = {f.name: options.pop(f.name) for f in dataclasses.fields(group) if f.name in options}
            config = dataclasses.replace(config, **{part.name: dataclasses.replace(group, **mine)})
        assert not options
        return config

    return change
