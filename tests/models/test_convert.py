"""The authors' checkpoints: logits of their own model, the file format, the way back, what is refused."""

import base64
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open

from qna._core.errors import InvalidInput
from qna.cli import main
from qna.models import QNA_VIT, QnAViT, flax_file
from qna.models.convert import convert
from qna.models.flax_file import PackedArray, flatten, read_flax, write_flax
from qna.models.qna_vit.authors import _collections, from_flax, to_flax
from qna.models.qna_vit.authors_tensors import authors_tensors
from tests.models.golden import rule

GOLDEN = Path(__file__).parent / "golden"
LOGITS = json.loads((GOLDEN / "logits.json").read_text())
FILES = json.loads((GOLDEN / "flax_files.json").read_text())


def golden_tree(model, **arguments):
    """The weights of the golden logits, as a nested tree of tensors in the authors' layout."""
    with torch.device("meta"):
        skeleton = QnAViT.of(QNA_VIT[model], **arguments)
    tree = {}
    for t in authors_tensors(skeleton):
        *folders, leaf = t.path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = torch.from_numpy(rule.tensor(t.path, t.shape))
    return tree


def flat(tree, path=""):
    for name, child in tree.items():
        if isinstance(child, dict):
            yield from flat(child, f"{path}/{name}")
        else:
            yield f"{path}/{name}".lstrip("/"), child


@pytest.fixture
def nano(tmp_path):
    """A checkpoint of the smallest model in the authors' format: (path, tree)."""
    tree = golden_tree("qna_vit_nano_16", num_classes=10)
    write_flax(tmp_path / "nano.msgpack", tree)
    return tmp_path / "nano.msgpack", tree


# what the authors' model computes


@pytest.mark.parametrize(
    "case", [c if c == "tiny" else pytest.param(c, marks=pytest.mark.long) for c in LOGITS]
)
def test_logits_of_the_authors_model(case, tmp_path):
    golden = LOGITS[case]
    tree = golden_tree(golden["model"], **golden["arguments"])
    assert len(list(flat(tree))) == golden["tensors"]
    write_flax(tmp_path / "in.msgpack", tree)
    convert(tmp_path / "in.msgpack", tmp_path / "out.safetensors", golden["model"], golden["arguments"])
    model = timm.create_model(
        golden["model"], checkpoint_path=str(tmp_path / "out.safetensors"), **golden["arguments"]
    ).eval()
    assert sum(p.numel() for p in model.parameters()) == golden["parameters"]
    image = torch.from_numpy(rule.image(golden["image_size"])).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = model(image)[0].double()
    expected = torch.tensor(golden["logits"], dtype=torch.float64)
    scale = golden["norm"] / len(logits) ** 0.5
    assert (logits[:50] - expected).abs().max() < 1e-4 * scale
    assert logits.norm().item() == pytest.approx(golden["norm"], rel=1e-4)


# the file format


@pytest.mark.parametrize("kind", ["whole", "pieces_of_16_bytes"])
def test_reads_what_flax_writes(kind, tmp_path):
    (tmp_path / "checkpoint_7").write_bytes(base64.b64decode(FILES[kind]))
    tree = read_flax(tmp_path / "checkpoint_7")
    found = dict(flatten(_collections(tree, "toy")))
    assert set(found) == {f"params/StemBlock_0/{name}" for name in FILES["arrays"]}
    for name, array in FILES["arrays"].items():
        tensor = found[f"params/StemBlock_0/{name}"].tensor(name)
        assert list(tensor.shape) == array["shape"]
        assert name in ("empty", "none") or str(tensor.dtype) == f"torch.{name}"
        assert tensor.double().flatten().tolist() == array["values"]


def test_writes_the_bytes_that_flax_writes(tmp_path, monkeypatch):
    (tmp_path / "whole").write_bytes(base64.b64decode(FILES["whole"]))
    arrays = read_flax(tmp_path / "whole")["params"]
    tree = {"StemBlock_0": {n: a.tensor(n) for n, a in arrays["StemBlock_0"].items()}}
    write_flax(tmp_path / "ours", tree)
    # the same map as it stands inside the training state
    assert (tmp_path / "ours").read_bytes() in base64.b64decode(FILES["whole"])
    monkeypatch.setattr(flax_file, "_CHUNK_BYTES", 16)
    write_flax(tmp_path / "ours", tree)
    assert (tmp_path / "ours").read_bytes() in base64.b64decode(FILES["pieces_of_16_bytes"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda p, s: p,
        lambda p, s: {"params": p},
        lambda p, s: {"params": {"params": p}},
        lambda p, s: {"step": 3, "params": p, "opt_state": {"0": {"mu": p}}, "batch_stats": None},
        lambda p, s: {"optimizer": {"target": p, "state": {"step": 3}}},
        lambda p, s: {"optimizer": {"target": {"params": p}}},
    ],
)
def test_finds_the_parameters_wherever_a_checkpoint_keeps_them(wrap, nano):
    _, tree = nano
    wrapped = pack(wrap(tree["params"], None))
    weights = from_flax(wrapped, "qna_vit_nano_16")
    plain = from_flax(pack(tree), "qna_vit_nano_16")
    assert all(torch.equal(weights[key], plain[key]) for key in plain)


def pack(node):
    """Tensors of a tree as they come out of a file."""
    if isinstance(node, dict):
        return {name: pack(child) for name, child in node.items()}
    if isinstance(node, torch.Tensor):
        raw = node.numpy().tobytes()
        return PackedArray(tuple(node.shape), str(node.dtype).removeprefix("torch."), raw)
    return node


# there and back


@pytest.mark.parametrize(
    "arguments", [{}, {"stem": "resnet", "shortcut": "avgpool"}, {"global_pool": "qnav2", "img_size": 32}]
)
def test_there_and_back_is_bitwise_the_same(arguments, tmp_path):
    tree = golden_tree("qna_vit_nano_16", num_classes=10, **arguments)
    names = [tmp_path / n for n in ("in.msgpack", "middle.safetensors", "back.msgpack")]
    write_flax(names[0], tree)
    count = convert(names[0], names[1], "qna_vit_nano_16", arguments)
    assert count == len(list(flat(tree))) + (arguments.get("stem") == "resnet")  # torch's counter
    convert(names[1], names[2], "qna_vit_nano_16")  # the metadata says how it differs from the variant
    back = read_flax(names[2])
    again = {path: array.tensor(path) for path, array in flatten(back)}
    for path, tensor in flat(tree):
        assert torch.equal(again.pop(path), tensor), path
    assert not again


def test_our_weights_there_and_back(tmp_path):
    torch.manual_seed(0)
    state = timm.create_model("qna_vit_nano_16").state_dict()
    again = from_flax(pack(to_flax(state, "qna_vit_nano_16")), "qna_vit_nano_16")
    assert sorted(again) == sorted(state)
    assert all(torch.equal(again[key], state[key]) for key in state)


@pytest.mark.parametrize("name", QNA_VIT)
@pytest.mark.parametrize("arguments", [{}, {"stem": "resnet", "shortcut": "avgpool", "global_pool": "qnav1"}])
def test_every_tensor_of_the_state_dict_has_one_name_there(name, arguments):
    with torch.device("meta"):
        model = QnAViT.of(QNA_VIT[name], **arguments)
    named = authors_tensors(model)
    state = {
        k: tuple(t.shape) for k, t in model.state_dict().items() if not k.endswith("num_batches_tracked")
    }
    assert {t.key: t.ours for t in named} == state
    assert len({t.path for t in named}) == len(named) == len(state)


def test_metadata_names_the_model(nano, tmp_path):
    convert(nano[0], tmp_path / "out.safetensors", "qna_vit_nano_16")
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert len(metadata.pop("sha256")) == 64
    assert metadata == {"format": "pt", "model": "qna_vit_nano_16", "arguments": "{}"}


# what is refused: one sentence, and nothing written


def refuse(source, message, model="qna_vit_nano_16", target="out.safetensors", arguments=None):
    target = source.parent / target
    before = sorted(source.parent.iterdir())
    with pytest.raises(InvalidInput, match=message) as raised:
        convert(source, target, model, arguments)
    assert sorted(source.parent.iterdir()) == before
    assert "\n" not in str(raised.value)


def test_missing_tensor(nano):
    path, tree = nano
    del tree["params"]["QnAStage_1"]["QnA_Block_2"]["FusedKQnA_0"]["Wk"]
    write_flax(path, tree)
    refuse(
        path, r"nano.msgpack is no qna_vit_nano_16: params/QnAStage_1/QnA_Block_2/FusedKQnA_0/Wk is missing$"
    )


def test_extra_tensor(nano):
    path, tree = nano
    tree["params"]["StemBlock_0"]["conv_9x9"] = {"kernel": torch.zeros(2)}
    write_flax(path, tree)
    refuse(path, r"it has params/StemBlock_0/conv_9x9/kernel, which that model has not$")


def test_misshapen_tensor(nano):
    path, tree = nano
    tree["params"]["StemBlock_0"]["conv_1x1"]["kernel"] = torch.zeros(2, 2, 3, 31)
    write_flax(path, tree)
    refuse(path, r"params/StemBlock_0/conv_1x1/kernel has shape \(2, 2, 3, 31\), not \(2, 2, 3, 32\)")


def test_another_model(nano):
    refuse(
        nano[0],
        r"is no qna_vit_tiny: params/QnAStage_0/QnA_Block_2/\S+ is missing \(and \d+ more\)",
        "qna_vit_tiny",
    )


def test_another_stem(nano):
    message = r"conv_7x7/kernel is missing \(and 4 more\); it has params/StemBlock_0/conv_1x1/kernel, which"
    refuse(nano[0], message, arguments={"stem": "resnet"})


def test_another_dtype(nano):
    path, tree = nano
    tree["params"]["StemBlock_0"]["conv_1x1"]["kernel"] = torch.zeros(2, 2, 3, 32, dtype=torch.int32)
    write_flax(path, tree)
    refuse(path, r"conv_1x1/kernel is int32, a weight must be one of float32")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_truncated(nano, kept):
    path, _ = nano
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    refuse(path, r"nano.msgpack is no Flax checkpoint, or a truncated one: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is no Flax checkpoint"),
        (b"some text", "is no Flax checkpoint"),
        (b"\x93\x01\x02\x03", "it holds a list, not a map"),
        (b"\x81\xa1a\x01", r"holds no parameters of a QnA-ViT: no StemBlock_0 in \['a'\]"),
        (b"\x81\xa1a\xc7\x02\x01\x91\x01", "is no Flax checkpoint, or a truncated one"),  # half an array
        (b"\x81\xabStemBlock_0\x01", "StemBlock_0 is a int, not an array"),
    ],
)
def test_foreign(tmp_path, content, message):
    (tmp_path / "foreign").write_bytes(content)
    refuse(tmp_path / "foreign", message)


def test_array_whose_bytes_do_not_fill_it():
    with pytest.raises(InvalidInput, match=r"kernel has 5 bytes, which do not fill \(2,\) float32"):
        PackedArray((2,), "float32", b"12345").tensor("kernel")


def test_array_in_pieces_with_a_piece_missing(nano):
    _, tree = nano
    packed = pack(tree)
    packed["params"]["StemBlock_0"]["conv_1x1"]["kernel"] = {
        "__msgpack_chunked_array__": True, "shape": {"0": 2}, "chunks": {"1": None},
    }  # fmt: skip
    with pytest.raises(
        InvalidInput, match=r"conv_1x1/kernel is an array in pieces of which some are missing"
    ):
        from_flax(packed, "qna_vit_nano_16")


def test_names_and_suffixes(nano):
    path, _ = nano
    refuse(path, "unknown model 'qna_vit_nano'; did you mean 'qna_vit_nano_16'", model="qna_vit_nano")
    refuse(path, "no folder .*absent to write out.safetensors in", target="absent/out.safetensors")
    refuse(path, r"out.pt must end in .msgpack or .safetensors", target="out.pt")
    refuse(path.parent / "absent", "cannot read .*absent: No such file or directory")
    refuse(path.parent / "absent", "cannot read .*absent", target="out.msgpack")
    refuse(path, "is no safetensors file, or a truncated one", target="out.msgpack")


def test_back_from_another_model(nano, tmp_path):
    convert(nano[0], tmp_path / "out.safetensors", "qna_vit_nano_16")
    refuse(
        tmp_path / "out.safetensors",
        "holds a qna_vit_nano_16, not a qna_vit_tiny",
        "qna_vit_tiny",
        "back.msgpack",
    )


def test_a_failed_write_leaves_what_was_there(nano, tmp_path, monkeypatch):
    import safetensors.torch

    target = tmp_path / "out.safetensors"
    target.write_bytes(b"older")

    def full(weights, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        convert(nano[0], target, "qna_vit_nano_16")
    assert target.read_bytes() == b"older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nano.msgpack", "out.safetensors"]


def test_command_line(nano, tmp_path, capsys):
    source, target = str(nano[0]), str(tmp_path / "out.safetensors")
    assert main(["convert", source, target, "--model", "qna_vit_nano_16"]) == 0
    assert capsys.readouterr().out.strip() == f"{target}: 88 tensors of qna_vit_nano_16"
    assert main(["convert", source, target, "--model", "qna_vit_smol"]) == 2
    message = "qna: unknown model 'qna_vit_smol'; did you mean 'qna_vit_small'"
    assert capsys.readouterr().err.startswith(message)
