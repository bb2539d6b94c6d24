"""Files that somebody made to do harm, by format: every one must be refused."""

import io
import json
import pickle
import struct
import zipfile
import zlib

import msgpack

from tests.damage.mutations import dumped, opened, safetensors


class Room:
    """Pickles to a few bytes that ask for many."""

    def __reduce__(self):
        return bytearray, (2**33,)


def crafted(name, content):
    """Harmful files of the format `name`, by what they do.

    Args:
        name: in FORMATS.
        content: a whole file.
    """
    files = {
        "weights of a run": HEADERS,
        "checkpoint": HEADERS,
        "weights of a run that segments": HEADERS,
        "weights of a shared model": HEADERS,
        "torch file": PICKLES,
        "legacy torch file": PICKLES,
        "flax": FLAX,
    }.get(name, TEXTS if content[:1] in (b"{", b"[") and name != "log" else {})
    if files is TEXTS:
        files = files | {"whole in another encoding": content.decode().encode("utf-16")}
    if name == "weights of a run":
        return files | {str(change): _giant(content, *change) for change in GIANTS}
    if name == "annotations":
        return files | {kind: dumped(change) for kind, change in _annotations(json.loads(content))}
    if name == "mask":
        return PNGS
    if name == "configuration of a run that goes on":
        return {str(change): dumped(_with(json.loads(content), *change)) for change in GIANTS}
    if name == "shared model":
        config = json.loads(content)
        return {str(change): dumped({**config, "model_args": change}) for change in SHARED_GIANTS}
    return files


TEXTS = {
    "empty": b"",
    "a hundred thousand levels": b"[" * 100_000,
    "forty levels": b'{"a":' * 40 + b"1" + b"}" * 40,
    "long": b"[" + b"{}," * 2**22 + b"{}]",
    "spaces": b" " * 2**24,
    "a long number": b"9" * 5000,
    "another encoding": '{"é": 1}'.encode("utf-16"),
}

_EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


def _one(**changes):
    return safetensors({"a": {**_EMPTY, **changes}})


HEADERS = {
    "length": (2**62).to_bytes(8, "little") + b"{}",
    "long": safetensors(b" " * 90 * 2**20),
    "many": safetensors({f"{i}": _EMPTY for i in range(70_000)}),
    "deep": safetensors(b'{"a":' * 100_000),
    "text": safetensors({"__metadata__": {"qna": "[" * 100_000}}),
    "list": safetensors({"__metadata__": {"qna": "[]"}}),
    "digest": safetensors({"__metadata__": {"sha256": "0" * 64}}),
    "numbers": _one(shape=[2**63]),
    "negative": _one(shape=[-1]),
    "overflow": _one(shape=[2**40, 2**40]),
    "empty": b"",
}

GIANTS = (
    ("images", {"image_size": 60_000}),
    ("images", {"image_size": 4096}),
    ("network", {"model_kwargs": ["embed_dim=1048576"]}),
    ("network", {"model_kwargs": ["embed_dim=20000"]}),
    ("network", {"model_kwargs": ["depth=1000000"]}),
    ("network", {"model_kwargs": ["depth=10000000000"]}),
    ("network", {"model_kwargs": ["depth=100000"]}),
    ("network", {"model": "vit_giant_patch14_dinov2"}),
    ("network", {"model": "qna_vit_base", "model_kwargs": ["depths=1000000,1,1,1"]}),
)
SHARED_GIANTS = (
    {"embed_dim": 1_048_576},
    {"embed_dim": 20_000},
    {"depth": 1_000_000},
    {"depth": 10**10},
    {"num_classes": 10**9},
    {"img_size": 2**20},
    {"img_size": 8192},
    {"mlp_ratio": 1e9},
)


def _annotations(told):
    """COCO's annotations that no image can have."""
    first, box = told["images"][0], told["annotations"][0]
    huge = {"a number of a thousand digits": 10**1000, "2**53": 2**53}
    for kind, number in huge.items():
        yield f"a width of {kind}", {**told, "images": [{**first, "width": number}]}
        yield f"a place of {kind}", {**told, "annotations": [{**box, "bbox": [0, 0, 1, number]}]}
        yield f"an image of {kind}", {**told, "annotations": [{**box, "image_id": number}]}
        yield f"a category of {kind}", {**told, "categories": [{"id": number, "name": "a"}]}
    for kind, name in {"long": "a" * 5000, "no text": "\udcff", "none": "", "with an end": "a\0.png"}.items():
        yield f"a name that is {kind}", {**told, "images": [{**first, "file_name": name}]}


def _with(config, group, change):
    return {**config, group: {**config[group], **change}}


def _giant(content, group, change):
    header, data = opened(content)
    about = json.loads(header["__metadata__"].pop("qna"))
    about["config"] = _with(about["config"], group, change)
    return safetensors({**header, "__metadata__": {"qna": json.dumps(about)}}, data)


def _archive(data, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as parts:
        parts.writestr("w/data.pkl", data)
        parts.writestr("w/version", "3\n")
    return out.getvalue()


# what torch.save began files with before they were archives
_LEGACY = 0x1950A86A20F9469CFC6C
PICKLES = {
    "empty": b"",
    "a bomb": _archive(bytes(2**28), zipfile.ZIP_DEFLATED),
    "room": _archive(pickle.dumps({"a": Room()}, protocol=2)),
    "long": _archive(b"\x80\x02" + b"}" * 2**24 + b"."),
    "legacy room": b"".join(
        pickle.dumps(x, protocol=2) for x in (0x1950A86A20F9469CFC6C, 1001, {}, {"a": Room()}, [])
    ),
    "a program": _archive(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."),
}


def _png(width, height, pixels=b""):
    """A PNG of 8-bit grey whose header says this size."""
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(pixels)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


PNGS = {
    "empty": b"",
    "a large picture": _png(2**15, 2**15, bytes(2**20)),
    "a huge picture": _png(2**31 - 1, 2**31 - 1),
    "a long picture": _png(2**28, 1),
    "no picture": _png(0, 0),
}


def _array(shape, dtype="float32", data=b""):
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, data)))


def _nested(levels, leaf):
    return b"\x81\xa1a" * levels + msgpack.packb(leaf)


def _stem(leaf):
    return msgpack.packb({"StemBlock_0": {"kernel": leaf}})


FLAX = {
    "a list": _stem([1, 2]),
    "negative sizes": _stem(_array([-2, -2], data=bytes(16))),
    "sizes of text": _stem(_array(["2", "2"], data=bytes(16))),
    "sizes of truth": _stem(_array([True], data=bytes(4))),
    "a size as a shape": _stem(_array(4, data=bytes(16))),
    "a huge shape": _stem(_array([2**62, 2**62, 0])),
    "bytes that do not fill it": _stem(_array([2**40])),
    "a list as a type": _stem(_array([1], dtype=["float32"], data=bytes(4))),
    "numbers as data": _stem(_array([1], data=4)),
    "two parts": _stem(msgpack.ExtType(1, msgpack.packb(([1], "float32")))),
    "a thousand levels": b"\x81\xabStemBlock_0" + _nested(1000, _array([1], data=bytes(4))),
    "a hundred thousand levels": _nested(100_000, 1),
    "lists of four thousand millions": b"\x81\xabStemBlock_0" + b"\xdd\xff\xff\xff\xff" * 500,
    "lists as long as the file": b"\x81\xabStemBlock_0" + b"\xdd\x00\x4c\x4b\x40" * 500 + bytes(5_000_000),
    "a line break in a name": msgpack.packb({"StemBlock_0": {"a\nb": 3}}),
    "pieces of text": _stem({"__msgpack_chunked_array__": True, "shape": {"0": "2"}, "chunks": {"0": "b"}}),
    "a map as a name": b"\x81\x81\x01\x01\x01",
}
