"""What `convert` is given that is no checkpoint, and a target that cannot be written, end in one sentence."""

import pytest
import torch
from safetensors.torch import save_file

from qna._core.errors import InvalidInput
from qna.cli import main
from qna.models.convert import convert
from tests.models.test_convert import golden_tree, write_flax


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
        assert error == f"qna: cannot write {out}: {why}\n"
    assert (tmp_path / "full.safetensors").is_char_device()
    resource = pytest.importorskip("resource", reason="only POSIX limits the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        out = tmp_path / "large.safetensors"
        assert main(["convert", str(tmp_path / "in"), str(out), "--model", "qna_vit_nano_16"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capsys.readouterr().err == f"qna: cannot write {out}: File too large\n"
