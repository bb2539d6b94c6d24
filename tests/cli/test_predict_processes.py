"""`qna predict` in two processes, one of them killed; what goes on makes the same file."""

import csv
import shutil

import pytest
import torch

import qna.eval
from qna.cli import main
from qna.data import load_data
from tests.train.processes import RIG, torchrun

pytestmark = pytest.mark.slow

# a share is 8 images
OPTIONS = ["--batch-size", "1", "--device", "cpu", "--top-k", "2"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Five shares and a bit, one file cut short."""
    folder = tmp_path_factory.mktemp("pictures")
    digits = load_data("digits").held_out
    for number in range(42):
        digits.open(number)[0].save(folder / f"{number:02}.png")
    (folder / "03.png").write_bytes((folder / "02.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def alone(run_folder, pictures, tmp_path_factory):
    """The file of one process that nobody disturbs."""
    out = tmp_path_factory.mktemp("alone") / "seen.csv"
    assert main(["predict", str(run_folder), str(pictures), *OPTIONS, "--out", str(out)]) == 1
    assert [path.name for path in out.parent.iterdir()] == ["seen.csv"]
    with out.open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == sorted(map(str, pictures.iterdir()))
    return out


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    path = tmp_path_factory.mktemp("rig") / "rig.py"
    path.write_text(RIG)
    return path


def test_two_processes_one_killed(run_folder, pictures, alone, rig, tmp_path):
    out = tmp_path / "seen.csv"
    out.write_text("precious")
    arguments = ["predict", run_folder, pictures, *OPTIONS, "--out", out]
    # the second process takes shares 1, 3 and 5; it is killed when 3 is complete and has its temporary name
    run = torchrun(rig, "replace", 2, *arguments, ONLY_RANK="1")
    assert run.returncode != 0
    assert out.read_text() == "precious"
    kept = len(list((tmp_path / ".seen.csv.shares").glob("[!.]*.json")))
    # the first process may have come to none of its three
    assert 1 <= kept <= 4
    copy = shutil.copytree(tmp_path, tmp_path.with_name("copy"))

    # two processes go on
    run = torchrun("-m", "qna", *arguments)
    assert run.returncode == 0, run.stderr
    assert "qna: 1 of 42 have no answer" in run.stderr
    assert out.read_bytes() == alone.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["seen.csv"]

    # and so does one, which does nothing again
    asked = []
    predict = qna.eval.predict

    def watched(classifier, found, **options):
        found = list(found)
        asked.extend(found)
        return predict(classifier, found, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qna.eval, "predict", watched)
        assert main([*map(str, arguments[:-1]), str(copy / "seen.csv")]) == 1
    assert (copy / "seen.csv").read_bytes() == alone.read_bytes()
    assert len(asked) in (42 - 8 * kept, 42 - 8 * (kept - 1) - 2)
    assert [path.name for path in copy.iterdir()] == ["seen.csv"]


def test_what_several_processes_need(monkeypatch, capsys, run_folder, tmp_path):
    from qna.train import processes

    several = processes.Processes(0, 2, torch.device("cpu"), None)
    monkeypatch.setattr(processes, "join_processes", lambda *, cpu: several)
    for arguments, told in (
        (["a.png"], "several processes need --out FILE, a file that one of them writes for all"),
        (
            ["-", "--out", str(tmp_path / "a.csv")],
            "paths from stdin reach one process alone; name files or folders",
        ),
    ):
        assert main(["predict", str(run_folder), *arguments]) == 2
        assert capsys.readouterr().err == f"qna: {told}\n"
