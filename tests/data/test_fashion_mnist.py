import gzip
import random

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.data import load_data
from qna.data.images import fashion_mnist
from qna.data.images.fashion_mnist import read_idx


def idx(tensor):
    sizes = b"".join(n.to_bytes(4, "big") for n in tensor.shape)
    return bytes([0, 0, 8, tensor.ndim]) + sizes + tensor.numpy().tobytes()


def write(folder, *, zipped=True, train=7, test=3):
    folder.mkdir(parents=True, exist_ok=True)
    g = torch.Generator().manual_seed(0)
    made = {}
    for part, count in (("train", train), ("t10k", test)):
        made[part] = torch.randint(0, 256, (count, 28, 28), generator=g, dtype=torch.uint8)
        labels = torch.arange(count, dtype=torch.uint8)
        for kind, tensor in (("images-idx3", made[part]), ("labels-idx1", labels)):
            data = gzip.compress(idx(tensor)) if zipped else idx(tensor)
            (folder / f"{part}-{kind}-ubyte{'.gz' if zipped else ''}").write_bytes(data)
    return made


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", ["", "FashionMNIST/raw"])
def test_the_files_of_a_folder_are_read(tmp_path, zipped, inside):
    made = write(tmp_path / inside, zipped=zipped)
    data = load_data("fashion-mnist", tmp_path)
    assert torch.equal(data.train.pixels[:, 0], made["train"])
    assert torch.equal(data.held_out.pixels[:, 0], made["t10k"])
    assert data.train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert len(data.classes) == 10


def test_debians_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    made = write(tmp_path / "debian")
    assert torch.equal(load_data("fashion-mnist").train.pixels[:, 0], made["train"])
    # a folder of one's own comes first, and one that is named is the only one
    own = write(tmp_path / "data" / "fashion-mnist", train=2)
    assert torch.equal(load_data("fashion-mnist").train.pixels[:, 0], own["train"])
    with pytest.raises(InvalidInput, match="was not found"):
        load_data("fashion-mnist", tmp_path / "elsewhere")


def test_missing_files_are_named_with_the_way_to_get_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    write(tmp_path / "data" / "fashion-mnist")
    (tmp_path / "data" / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InvalidInput) as raised:
        load_data("fashion-mnist")
    for words in ("train-images-idx3-ubyte.gz", "data/fashion-mnist", str(tmp_path / "debian")):
        assert words in str(raised.value)
    assert "`apt install dataset-fashion-mnist`" in str(raised.value)
    assert "--download" in str(raised.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-40], "cannot be read"),
        (
            lambda _: gzip.compress(b"\0\0\x0d\3" + bytes(40)),
            "no idx file of bytes with 3 axes: it starts with",
        ),
        (
            lambda b: gzip.compress(gzip.decompress(b)[:-1]),
            r"says \[7, 28, 28\], so 5488 bytes, but holds 5487",
        ),
        (lambda _: b"", "it starts with"),
        (
            lambda b: gzip.compress(gzip.decompress(b) + b"0"),
            r"says \[7, 28, 28\], so 5488 bytes, but holds more",
        ),
        (
            lambda _: gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12),
            r"says \[4294967295, 4294967295, 4294967295\], so \d+ bytes, which is too much",
        ),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, message):
    write(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InvalidInput, match=f"{path.name}.*{message}"):
        read_idx(path, 3)


def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path):
    write(tmp_path, train=1)
    path, rng, ends = tmp_path / "train-images-idx3-ubyte.gz", random.Random(0), set()
    for zipped in (True, False):
        whole = path.read_bytes() if zipped else gzip.decompress(path.read_bytes())
        place = tmp_path / f"{zipped}"
        for _ in range(300):
            changed = bytearray(whole)
            for _ in range(rng.randint(1, 3)):
                changed[rng.randrange(rng.choice((20, len(changed))))] ^= 1 << rng.randrange(8)
            place.write_bytes(changed[: rng.choice((len(changed), rng.randrange(len(changed))))])
            try:
                ends.add(read_idx(place, 3).dtype)
            except InvalidInput:
                ends.add("refused")
    assert ends == {torch.uint8, "refused"}
