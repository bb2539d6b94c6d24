"""docs/volumes.md: its code runs, its command trains, and what it says of files is so."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import qna.models  # noqa: F401 - before what imports timm

pytest.importorskip("monai", reason="qna[volumes] brings it")

from qna.cli import main
from qna.models.agunet.variants import AGUNetVariant
from tests.data.volumes.files import OBLIQUE, picture, write

PAGE = (Path(__file__).parents[2] / "docs" / "volumes.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, "volumes.md", "exec"), names)
    return names


def test_the_layers_of_the_page(found):
    assert torch.equal(found["same"], found["x"])
    torch.testing.assert_close(
        found["passed"], found["skip"] * found["gate"].gate_map(found["skip"], found["signal"])
    )
    assert found["logits"].shape == (1, 3, 5, 33, 18)
    n, c = 12 * 14 * 10, 32
    assert found["positions"].held(found["x"].shape) == 4 * n * c + n


def test_the_switches_of_the_page_are_those_of_the_networks():
    named = set(re.findall(r"^\| `(\w+)=", PAGE, re.MULTILINE))
    fields = set(AGUNetVariant.__dataclass_fields__)
    assert named == fields - {"dropout", "attention_dropout", "parameters"}


@pytest.mark.slow
def test_the_commands_of_the_page(found, tmp_path):
    assert "qna train --task volumes  " in PAGE
    small = "--voxel 4 --volumes-drawn 2 --volumes-held-out 2 --patches 4 --epochs 1 --device cpu"
    run = tmp_path / "run"
    with redirect_stdout(io.StringIO()):
        assert (
            main(["train", "--task", "volumes", *small.split(), "--patch", *["16"] * 3, "--out", str(run)])
            == 0
        )
    report = (run / "report.md").read_text()
    assert "mean Dice" in report
    assert (run / "slices.png").is_file()

    told = io.StringIO()
    with redirect_stdout(told):
        assert main(["eval", str(run), "--device", "cpu", "--out", str(tmp_path / "eval")]) == 0
    assert "lesions found, by size" in told.getvalue()
    assert (tmp_path / "eval" / "slices.png").is_file()

    scans = tmp_path / "scans"
    for name in ("a", "sub/b"):
        write(scans / f"{name}.nii.gz", picture((20, 17, 3))[0])
    told = io.StringIO()
    with redirect_stdout(told):
        assert (
            main(["predict", str(run), str(scans), "--out", str(tmp_path / "labels"), "--device", "cpu"]) == 0
        )
    rows = told.getvalue().splitlines()
    assert rows[0] == "volume,labels,lesion (ml),error"
    assert len(rows) == 3
    labels = nibabel.load(tmp_path / "labels" / "sub" / "b.nii.gz")
    assert labels.shape == (20, 17, 3)
    np.testing.assert_allclose(labels.affine, OBLIQUE, rtol=1e-6)
    again = tmp_path / "again.nii.gz"
    found["label"](str(run), scans / "sub" / "b.nii.gz", again)
    assert np.array_equal(nibabel.load(again).get_fdata(), labels.get_fdata())
