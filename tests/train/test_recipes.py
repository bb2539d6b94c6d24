"""Every recipe runs as it is written, but for what costs time; the paper's has the paper's figures."""

import pytest
import torch
from PIL import Image

from qna._core.errors import UnknownName
from qna.data import DATA, DataSpec, TensorImages
from qna.data.images.labelled import tensor_data
from qna.data.scenes import SceneOptions, write_scenes
from qna.data.scenes.drawn import draw_sources
from qna.train import RECIPES, fit, recipe
from qna.train.recipes import recipe_for


@pytest.fixture
def small_data(tmp_path, monkeypatch):
    """A stand-in for every data set: eight images to train on, four held out, two classes."""
    g = torch.Generator().manual_seed(0)

    def drawn(name, channels, size):
        pixels = torch.randint(0, 256, (12, channels, size, size), generator=g, dtype=torch.uint8)
        labels = torch.arange(12) % 2
        train, held_out = TensorImages(pixels[:8], labels[:8]), TensorImages(pixels[8:], labels[8:])
        return lambda folder=None, *, download=False: tensor_data(name, "ab", train, held_out, "a test")

    for name, channels, size in (("digits", 1, 8), ("fashion-mnist", 1, 28), ("cifar10", 3, 32)):
        monkeypatch.setitem(DATA, name, DataSpec("drawn", drawn(name, channels, size)))
    for part, count in (("train", 4), ("val", 2)):
        for label in "ab":
            place = tmp_path / "photos" / part / label
            place.mkdir(parents=True)
            for i in range(count):
                colour = tuple(torch.randint(0, 256, (3,), generator=g).tolist())
                Image.new("RGB", (50, 40), colour).save(place / f"{i}.jpg")
    return str(tmp_path / "photos")


@pytest.fixture
def small_scenes(tmp_path):
    """The same with masks and boxes."""
    stamps, photos = draw_sources(tmp_path / "sources", each=2)
    write_scenes(
        tmp_path / "scenes", SceneOptions(images=8, held_out=4, size=32, stamps=stamps, photos=photos)
    )
    return str(tmp_path / "scenes")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs(name, small_data, small_scenes, changed, tmp_path):
    config = recipe(name)
    data = small_data if name.startswith("imagenet") else config.images.data
    smaller: dict = {"model": "qna_vit_nano_16"}
    if config.run.task in ("segmentation", "detection"):
        data = small_scenes
    if config.run.task == "segmentation":
        smaller = {"model": config.network.model}
    elif config.run.task == "detection":
        pytest.importorskip("transformers", reason="transformers is not installed")
        smaller["detector_kwargs"] = ("d_model=32", "encoder_layers=1", "decoder_layers=1")
    if config.run.task == "language":
        smaller = {"model": "decoder_pico", "context": 32, "limit": 260, "held_out": 0.5}
    elif config.run.task == "volumes":
        pytest.importorskip("monai", reason="qna[volumes] brings it")
        smaller = {"model": config.network.model, "voxel": 8, "patches": 8}
        smaller |= {"volumes_drawn": 2, "volumes_held_out": 4}
    else:
        smaller["image_size"] = min(32, config.images.image_size)
    outcome = fit(
        changed(
            config,
            data=data,
            batch_size=4,
            epochs=1,
            workers=0,
            threads=1,
            device="cpu",
            out=tmp_path / "run",
            **smaller,
        )
    )
    assert outcome.metrics["held_out"] == 4
    assert outcome.history[0]["step"] == 2
    assert outcome.data.name == data


def test_the_imagenet_recipe_is_the_papers():
    config = recipe("imagenet")
    # 8 processes make 1,024 images an update, for which the paper's rate is 2e-3
    assert config.optim.batch_size * 8 == 1024
    assert config.optim.lr * 1024 / 256 == pytest.approx(2e-3)
    assert (config.augment.mixup, config.augment.cutmix, config.augment.erase) == (0.8, 0.0, 0.25)


def test_data_chooses_its_recipe(tmp_path):
    assert recipe_for(None) == recipe("digits")
    assert recipe_for("cifar10") == recipe("cifar10")
    for place in (str(tmp_path), "wds/x", "hfds/someone/x"):
        assert recipe_for(place) == recipe("imagenet")
    with pytest.raises(UnknownName, match="unknown data 'cifar100'; did you mean 'cifar10'"):
        recipe_for("cifar100")
