"""Damaged files of authors, of four families: one sentence that names the file, and nothing is written."""

from collections import OrderedDict

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.tensor_file import read_tensors
from qna.models.convert import convert
from tests.models import test_biformer, test_focalnet, test_overlock, test_transnext

# family -> module of its tests, case, and a tensor that every size has
FAMILIES = {
    "focalnet": (test_focalnet, "overlapping", "layers.0.blocks.0.modulation.f.weight"),
    "overlock": (test_overlock, "small", "blocks1.0.dwconv.weight"),
    "biformer": (test_biformer, "biformer", "stages.0.0.attn.qkv.qkv.weight"),
    "transnext": (test_transnext, "transnext", "block1.0.attn.q.weight"),
}


class AuthorsFile:
    """A file of a family's authors in a folder of its own, as it should be, and what it is damaged into."""

    def __init__(self, family, folder):
        module, case, self.name = FAMILIES[family]
        golden = module.GOLDEN[case]
        self.model = golden["model"]
        self.state = module.golden_state(case)
        self.arguments = {n: v for n, v in golden["arguments"].items() if n != "num_classes"}
        self.source, self.target = folder / "theirs.pth", folder / "ours.safetensors"

    def convert(self, content=None):
        """Convert `content` as torch would write it, or whatever lies there."""
        if content is not None:
            torch.save(content, self.source)
        return convert(self.source, self.target, self.model, self.arguments)

    def refused(self, content, *told):
        """What is told where nothing may be written: one sentence that holds `told`."""
        with pytest.raises(InvalidInput) as raised:
            self.convert(content)
        sentence = str(raised.value)
        assert "\n" not in sentence
        assert len(sentence) < 400
        assert all(word in sentence for word in (str(self.source), *told)), sentence
        assert [p.name for p in self.source.parent.iterdir()] == [self.source.name]

    def changed(self, tensor):
        """The state dict with another tensor of the name."""
        return {**self.state, self.name: tensor}


@pytest.fixture(params=FAMILIES)
def file(request, tmp_path):
    return AuthorsFile(request.param, tmp_path)


def test_where_a_state_dict_may_lie(file):
    count = file.convert(file.state)
    expected = read_tensors(file.target)[0]
    assert len(expected) == count
    for content in (
        *({key: file.state, "epoch": 3, "best": 81.2} for key in ("model", "state_dict", "state_dict_ema")),
        {"model": {}, "state_dict_ema": file.state},
        OrderedDict((f"module.{n}", torch.nn.Parameter(t, t.is_floating_point() and t.numel() > 1))
                    if t.is_floating_point() else (f"module.{n}", t) for n, t in file.state.items()),
        # as they lie in another order in memory
        {n: t.mT.contiguous().mT if t.ndim > 1 else t for n, t in file.state.items()},
    ):  # fmt: skip
        assert file.convert(content) == count
        found = read_tensors(file.target)[0]
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[n], expected[n]) for n in found)


def test_a_tensor_is_missing_or_too_many(file):
    # a second head is left out anyway
    names = [n for n in file.state if not n.startswith("aux_head.")]
    for name in names[:: len(names) // 8]:
        without = {n: t for n, t in file.state.items() if n != name}
        file.refused(without, f"is no {file.model}", name, "is missing")
    file.refused({**file.state, "layers.99.weight": torch.ones(2)}, "layers.99.weight", "has not")


def test_a_tensor_is_of_another_shape(file):
    whole = file.state[file.name]
    for other in (whole[:-1], whole[None], whole.flatten(), whole[:0], whole.new_zeros(())):
        file.refused(file.changed(other.clone()), file.name, str(tuple(other.shape)), "has shape")


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_a_tensor_is_of_another_dtype(file, dtype):
    file.refused(file.changed(file.state[file.name].to(dtype)), file.name, str(dtype).removeprefix("torch."))


def test_a_tensor_is_no_plain_one(file):
    whole = file.state[file.name]
    for other in (
        whole.to_sparse(),
        whole.to("meta"),
        whole.new_zeros(1).expand(whole.shape),
        whole.tolist(),
        "weights",
        None,
        1.5,
    ):
        file.refused(file.changed(other), file.name)


@pytest.mark.parametrize(
    "content",
    [
        *({}, [], (), "weights", 5, torch.ones(3), [torch.ones(3)]),
        *({"model": {}}, {"state_dict": torch.ones(3)}, {"model": None}, {"model": {"state_dict": {}}}),
        *({3: torch.ones(1)}, {"model": {b"a": torch.ones(1)}}, {"optimizer": {"lr": 0.1}}),
    ],
    ids=str,
)
def test_what_holds_no_state_dict(file, content):
    file.refused(content)


def test_a_file_that_was_cut(file):
    torch.save(file.state, file.source)
    whole = file.source.read_bytes()
    for length in (0, 1, 4, 100, len(whole) // 4, len(whole) // 2, len(whole) - 1000, len(whole) - 1):
        file.source.write_bytes(whole[:length])
        file.refused(None, "is no PyTorch checkpoint, or a truncated one")


def test_what_stood_there_stays_where_a_file_is_refused(file):
    file.convert(file.state)
    before = file.target.read_bytes()
    torch.save({n: t for n, t in file.state.items() if n != file.name}, file.source)
    with pytest.raises(InvalidInput, match="is missing"):
        file.convert()
    assert file.target.read_bytes() == before


def test_a_file_that_is_not_there_or_is_a_folder(file):
    with pytest.raises(InvalidInput, match=r"cannot read .*theirs\.pth: No such file"):
        file.convert()
    file.source.mkdir()
    with pytest.raises(InvalidInput, match=r"theirs\.pth is no PyTorch checkpoint, .*: it is not a file"):
        file.convert()
