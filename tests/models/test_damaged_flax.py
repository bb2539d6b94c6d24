"""Damaged and crafted files of Flax end in one sentence, as does a target that cannot be written."""

import random
import resource

import msgpack
import pytest
import torch
from safetensors.torch import save_file

from qna._core.errors import InvalidInput
from qna.cli import main
from qna.models.convert import convert
from qna.models.flax_file import flatten, read_flax
from tests.models.test_convert import golden_tree, write_flax

ARRAY = msgpack.ExtType


def array(shape, dtype="float32", data=b""):
    return ARRAY(1, msgpack.packb((shape, dtype, data)))


def nested(levels, leaf):
    packed = msgpack.packb(leaf)
    for _ in range(levels):
        packed = b"\x81\xa1a" + packed
    return packed


def stem(leaf):
    return msgpack.packb({"StemBlock_0": {"kernel": leaf}})


CRAFTED = {
    "a list": stem([1, 2]),
    "negative sizes": stem(array([-2, -2], data=bytes(16))),
    "sizes of text": stem(array(["2", "2"], data=bytes(16))),
    "sizes of truth": stem(array([True], data=bytes(4))),
    "a size as a shape": stem(array(4, data=bytes(16))),
    "a huge shape": stem(array([2**62, 2**62, 0])),
    "bytes that do not fill it": stem(array([2**40])),
    "a list as a type": stem(array([1], dtype=["float32"], data=bytes(4))),
    "numbers as data": stem(array([1], data=4)),
    "two parts": stem(ARRAY(1, msgpack.packb(([1], "float32")))),
    "a thousand levels": b"\x81\xabStemBlock_0" + nested(1000, array([1], data=bytes(4))),
    "a hundred thousand levels": nested(100_000, 1),
    "lists of four thousand millions": b"\x81\xabStemBlock_0" + b"\xdd\xff\xff\xff\xff" * 500,
    "lists as long as the file": b"\x81\xabStemBlock_0" + b"\xdd\x00\x4c\x4b\x40" * 500 + bytes(5_000_000),
    "a line break in a name": msgpack.packb({"StemBlock_0": {"a\nb": 3}}),
    "pieces of text": stem({"__msgpack_chunked_array__": True, "shape": {"0": "2"}, "chunks": {"0": "b"}}),
    "a map as a name": b"\x81\x81\x01\x01\x01",
}


def refused(path, content):
    path.write_bytes(content)
    before, peak = sorted(path.parent.iterdir()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidInput) as error:
        convert(path, path.with_name("out.safetensors"), "qna_vit_nano_16")
    assert "\n" not in str(error.value)
    assert sorted(path.parent.iterdir()) == before
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) < 400 * 2**20


@pytest.mark.parametrize("kind", CRAFTED)
def test_crafted_files(kind, tmp_path):
    refused(tmp_path / "in", CRAFTED[kind])


@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.long)])
def test_flipped_bits_and_cuts(count, tmp_path):
    tree = golden_tree("qna_vit_nano_16", num_classes=10)
    params = tree["params"]
    write_flax(tmp_path / "in", {"params": {"StemBlock_0": params["StemBlock_0"]}, "step": {}})
    content, draw, said = (tmp_path / "in").read_bytes(), random.Random(0), []
    heads = [i for i in range(len(content)) if content[i : i + 1].isalpha()] + list(range(60))
    for number in range(count):
        changed = bytearray(content[: draw.randrange(len(content))] if number % 8 == 7 else content)
        at = draw.choice(heads)
        if at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        (tmp_path / "in").write_bytes(changed)
        try:
            for name, found in flatten(read_flax(tmp_path / "in")):
                found.tensor(name)
        except InvalidInput as error:
            said.append(str(error))
    assert not [text for text in said if "\n" in text]
    assert len(said) > count / 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"stem": 5}', "qna_vit_nano_16|unknown"),
        ('{"stam": "patch"}', "unknown argument in the header of .* 'stam'; did you mean 'stem'"),
        ("[]", "does not tell arguments by name"),
        ('{"img_size": [1]}', "gives img_size as a list"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "is not JSON"),
    ],
)
def test_arguments_in_a_header(arguments, said, tmp_path):
    path = tmp_path / "in.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"arguments": arguments})
    with pytest.raises(InvalidInput, match=said) as error:
        convert(path, tmp_path / "out.msgpack", "qna_vit_nano_16")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.zeros(3, dtype=torch.int8), "'head.fc.bias' is int8, a weight must be of floating point"),
        (torch.zeros(3, dtype=torch.complex64), "'head.fc.bias' is complex64"),
        (torch.zeros(()), "is missing"),
        (torch.zeros(0), "is missing"),
    ],
)
def test_tensors_that_are_no_weights(tensor, said, tmp_path):
    save_file({"head.fc.bias": tensor}, tmp_path / "in.safetensors")
    with pytest.raises(InvalidInput, match=said):
        convert(tmp_path / "in.safetensors", tmp_path / "out.msgpack", "qna_vit_nano_16")


def test_a_target_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    write_flax(tmp_path / "in", golden_tree("qna_vit_nano_16", num_classes=10))
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "full.safetensors").symlink_to("/dev/full")
    for name, why in (("folder", "Is a directory"), ("full", "No space left on device")):
        out = tmp_path / f"{name}.safetensors"
        assert main(["convert", str(tmp_path / "in"), str(out), "--model", "qna_vit_nano_16"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"qna: cannot write {out}: ")
        assert why in error
        assert error.count("\n") == 1
    assert (tmp_path / "full.safetensors").is_char_device()
