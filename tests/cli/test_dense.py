"""`qna predict` and `qna eval` of detectors and of networks that segment, as a user meets them."""

import csv
import io
import json
import shutil
from contextlib import redirect_stdout
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import qna.export
import qna.models  # before what imports timm

pytest.importorskip("segmentation_models_pytorch", reason="qna[dense] brings it")
pytest.importorskip("transformers", reason="qna[dense] brings it")

from qna.cli import main
from qna.data.scenes import SceneOptions, write_scenes
from qna.data.scenes.drawn import draw_sources
from qna.eval import find_boxes, segment
from qna.train import processes
from qna.train.checkpoint import load_tensors
from qna.train.reload_detector import load_detector
from qna.train.reload_segmenter import load_segmenter
from tests.train.processes import torchrun

DETECTION = [
    *("--image-size", "32", "--model", "qna_vit_nano_16", "--model-kwargs", "dim=16", "--detector-kwargs"),
    *("d_model=16", "num_queries=5", "encoder_layers=1", "decoder_layers=1", "encoder_attention_heads=2"),
    *("decoder_attention_heads=2", "encoder_ffn_dim=16", "decoder_ffn_dim=16"),
]
SEGMENTATION = [
    *("--image-size", "16", "--model", "qna_unet_nano", "--model-kwargs", "dim=8", "encoder_blocks=1,1"),
    "decoder_blocks=1,",
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Eight scenes to train on and five to judge, of drawn shapes, with boxes and masks."""
    root = tmp_path_factory.mktemp("scenes")
    stamps, photos = draw_sources(root / "sources", each=2)
    told = SceneOptions(images=8, held_out=5, size=40, objects=2, stamps=stamps, photos=photos)
    write_scenes(root / "data", told)
    return root / "data"


def trained(task, options, scenes, folder):
    train = ["train", "--task", task, "--data", str(scenes), *options, "--epochs", "1", "--batch-size", "4"]
    rest = ["--workers", "0", "--device", "cpu", "--threads", "1", "--precision", "fp32"]
    with redirect_stdout(io.StringIO()):  # is no test's own
        assert main([*train, *rest, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def detector(scenes, tmp_path_factory):
    return trained("detection", DETECTION, scenes, tmp_path_factory.mktemp("runs") / "boxes")


@pytest.fixture(scope="module")
def segmenter(scenes, tmp_path_factory):
    return trained("segmentation", SEGMENTATION, scenes, tmp_path_factory.mktemp("runs") / "masks")


@pytest.fixture
def photos(scenes, tmp_path):
    """Five pictures, one in a folder inside, and a file that is cut short."""
    folder = tmp_path / "photos"
    shutil.copytree(scenes / "val" / "images", folder)
    first, *_ = sorted(folder.iterdir())
    (folder / "more").mkdir()
    first.rename(folder / "more" / "first.png")
    # of another ratio of sides
    Image.open(folder / "more" / "first.png").resize((60, 31)).save(folder / "wide.png")
    (folder / "broken.png").write_bytes((folder / "more" / "first.png").read_bytes()[:70])
    return folder


def give_nan(monkeypatch):
    """Let networks of runs in folders called broken answer with NaN."""
    from qna.cli import _detectors, _segmenters

    for module, name in ((_detectors, "load_detector"), (_segmenters, "load_segmenter")):

        def loaded(load, source, **options):
            found = load(source, **options)
            if source.endswith("broken"):
                with torch.no_grad():
                    for parameter in found.network.parameters():
                        parameter.fill_(torch.nan)
            return found

        monkeypatch.setattr(module, name, partial(loaded, getattr(module, name)))


def test_boxes_as_json_lines_with_pictures(detector, photos, tmp_path, capsys):
    out, pictures = tmp_path / "found.jsonl", tmp_path / "pictures"
    options = ["--least-score", "0", "--out", str(out), "--pictures", str(pictures), "--device", "cpu"]
    assert main(["predict", str(detector), str(photos), *options]) == 1
    assert capsys.readouterr().err == "qna: 1 of 7 have no answer\n"
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(row["path"] for row in rows) == sorted(str(p) for p in photos.rglob("*.png"))
    broken = next(row for row in rows if row["path"].endswith("broken.png"))
    assert broken | {"error": None} == {
        "path": str(photos / "broken.png"), "width": None, "height": None, "boxes": [], "error": None,
    }  # fmt: skip
    assert "truncated" in broken["error"]
    finder = load_detector(str(detector))
    for row in rows:
        if row["error"] is not None:
            continue
        image = Image.open(row["path"]).convert("RGB")
        assert (row["width"], row["height"]) == image.size
        found = find_boxes(finder, image)
        assert len(row["boxes"]) == 5
        for told, score, label, box in zip(row["boxes"], *found, strict=True):
            assert told["label"] == finder.classes[label]
            assert told["score"] == pytest.approx(float(score), abs=1e-6)
            assert told["box"] == pytest.approx(box.tolist(), abs=0.01)
        inside = photos / "more" in photos.joinpath(row["path"]).parents
        drawn = pictures / ("more" if inside else ".") / row["path"].rsplit("/", 1)[1]
        with Image.open(drawn) as picture:
            assert picture.size == image.size
            assert (np.asarray(picture) != np.asarray(image)).any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.jsonl", "photos", "pictures"]
    # half is sure of nothing after an epoch
    assert main(["predict", str(detector), str(photos / "wide.png"), "--least-score", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["boxes"] == []


def test_masks_and_pictures(segmenter, photos, tmp_path, capsys):
    masks, pictures = tmp_path / "masks", tmp_path / "pictures"
    command = ["predict", str(segmenter), str(photos), "--out", str(masks), "--pictures", str(pictures)]
    assert main(command) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["image"] for row in rows if row["error"]] == [str(photos / "broken.png")]
    brought_back = load_segmenter(str(segmenter))
    for row in rows:
        if not row["error"]:
            image = Image.open(row["image"]).convert("RGB")
            with Image.open(row["mask"]) as mask:
                classes = np.asarray(mask)
            assert (classes == segment(brought_back, image)).all()
            with Image.open(pictures / row["mask"].removeprefix(f"{masks}/")) as picture:
                differs = (np.asarray(picture) != np.asarray(image)).any(-1)
            assert not differs[classes == 0].any()
    assert not (masks / ".shares").exists()


@pytest.mark.parametrize("which", ["detector", "segmenter"])
def test_what_was_answered_is_not_asked_again(  # noqa: PLR0917
    which, request, photos, tmp_path, capsys, monkeypatch
):
    """The command is stopped while it writes its rows; the pictures of a share may be gone by then."""
    from qna.cli import _detectors, _segmenters

    run, module = request.getfixturevalue(which), {"detector": _detectors, "segmenter": _segmenters}[which]
    pictures, rows = tmp_path / "pictures", tmp_path / "rows.jsonl"
    options = ["--pictures", str(pictures), "--device", "cpu", "--out"]
    options.append(str(rows if which == "detector" else tmp_path / "masks"))
    monkeypatch.setattr(module, "_SHARE", 3)
    name = {"detector": "_write_lines", "segmenter": "_write_rows"}[which]
    write = getattr(module, name)

    def stopped(file, answers, **more):
        write(file, answers, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, stopped)
    assert main(["predict", str(run), str(photos), *options]) == 130
    assert not rows.exists()
    first = capsys.readouterr().out
    made = sorted(pictures.rglob("*.png"))
    assert len(made) == 6
    times = {path: path.stat().st_mtime_ns for path in made}
    lost = next(path for path in made if path.name == "first.png")
    lost.unlink()
    monkeypatch.setattr(module, name, write)
    assert main(["predict", str(run), str(photos), *options]) == 1
    assert sorted(pictures.rglob("*.png")) == made
    again = [path.name for path in made if path.stat().st_mtime_ns != times[path]]
    assert lost.name in again
    assert len(again) <= 3
    assert capsys.readouterr().out == first
    assert not list(tmp_path.glob("**/*.shares"))


def asked(run, photos, folder):
    """The command whose rows and pictures go to a folder."""
    folder.mkdir()
    out = folder / ("rows.jsonl" if run.name == "boxes" else "masks")
    return ["predict", run, photos, "--device", "cpu", "--out", out, "--pictures", folder / "pictures"]


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("which", ["detector", "segmenter"])
def test_of_two_processes_each_answers_its_share(which, request, photos, tmp_path, capsys, monkeypatch):  # noqa: PLR0917
    """One after the other, in this process: the second of three shares, and then what is left."""
    from qna.cli import _detectors, _segmenters

    run, module = request.getfixturevalue(which), {"detector": _detectors, "segmenter": _segmenters}[which]
    monkeypatch.setattr(module, "_SHARE", 3)
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert main([*map(str, asked(run, photos, alone))]) == 1
    told = capsys.readouterr().out
    command, made = [*map(str, asked(run, photos, both))], {}
    for rank in (1, 0):
        here = processes.Processes(rank, 2, torch.device("cpu"), SimpleNamespace(wait_for_everyone=lambda: 0))
        monkeypatch.setattr(processes, "join_processes", lambda *, cpu, here=here: here)
        assert main(command) == 0
        made[rank] = {path: path.stat().st_mtime_ns for path in (both / "pictures").rglob("*.png")}
    captured = capsys.readouterr()
    assert captured.err == "qna: 1 of 7 have no answer\n"
    assert captured.out == told.replace(str(alone), str(both))
    assert files_in(alone) == files_in(both)
    # of a share one may be the file that is cut short
    assert len(made[1]) in (2, 3)
    assert made[1].items() <= made[0].items()


@pytest.mark.long
@pytest.mark.parametrize("which", ["detector", "segmenter"])
def test_two_processes_of_torchrun(which, request, photos, tmp_path, capsys):
    run = request.getfixturevalue(which)
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert main([*map(str, asked(run, photos, alone))]) == 1
    told = capsys.readouterr().out
    done = torchrun("-m", "qna", *asked(run, photos, both))
    assert done.returncode == 0, done.stderr
    assert "qna: 1 of 7 have no answer" in done.stderr
    assert done.stdout == told.replace(str(alone), str(both))
    assert files_in(alone) == files_in(both)


@pytest.mark.parametrize("which", ["detector", "segmenter"])
def test_folders_that_would_be_searched_are_refused(which, request, photos, tmp_path, capsys):
    run, out = request.getfixturevalue(which), tmp_path / "out"
    inside = str(photos / "more" / "drawn")
    assert main(["predict", str(run), str(photos), "--out", str(out), "--pictures", inside]) == 2
    said = f"qna: --pictures {inside} lies in {photos}, which is searched for images: name a folder outside\n"
    assert capsys.readouterr().err == said


def test_an_answer_of_nan_is_an_error(  # noqa: PLR0917
    detector, segmenter, photos, tmp_path, capsys, monkeypatch
):
    give_nan(monkeypatch)
    for run, name in ((detector, "boxes"), (segmenter, "masks")):
        broken, out = shutil.copytree(run, tmp_path / name / "broken"), tmp_path / f"{name}.out"
        assert main(["predict", str(broken), str(photos / "wide.png"), "--out", str(out)]) == 1
        captured = capsys.readouterr()
        rows = captured.out if run is segmenter else out.read_text()
        assert "the network answers with NaN or infinity" in rows
        assert captured.err == "qna: 1 of 1 have no answer\n"
        # beside one that can be judged
        assert main(["eval", str(run), str(broken), "--out", str(tmp_path / f"{name}-eval")]) == 1
        told = "".join(capsys.readouterr().out.split())
        assert f"Notjudged:{broken}:thenetworkanswerswithNaNorinfinity." in told
        scores = json.loads((tmp_path / f"{name}-eval" / "scores.json").read_text())
        assert [set(model) == {"model", "error"} for model in scores["models"]] == [False, True]


def test_detectors_are_judged_side_by_side(detector, scenes, tmp_path, capsys):
    copy = shutil.copytree(detector, tmp_path / "copy")
    command = ["eval", str(detector), str(copy), "--out", str(tmp_path / "eval"), "--batch-size", "2"]
    assert main(command) == 0
    told = capsys.readouterr().out
    scores = json.loads((tmp_path / "eval" / "scores.json").read_text())
    metrics = json.loads((detector / "metrics.json").read_text())
    for model in scores["models"]:
        assert model["images"] == 5
        for name in ("map", "map_50", "map_75", "recall"):
            assert model[name] == pytest.approx(metrics[name], abs=1e-9)
        assert model["classes"] == ["cross", "diamond", "square", "triangle"]
    page = (tmp_path / "eval" / "report.md").read_text()
    assert f"qna eval {detector} {copy}" in page
    assert f"![boxes of {copy}](boxes-B.png)" in page
    assert (tmp_path / "eval" / "boxes-A.png").read_bytes().startswith(b"\x89PNG")
    assert "mAP of each class" in told
    assert f"{100 * metrics['map']:.2f}" in told


def test_segmenters_are_judged(segmenter, tmp_path, capsys):
    assert main(["eval", str(segmenter), "--out", str(tmp_path / "eval")]) == 0
    scores = json.loads((tmp_path / "eval" / "scores.json").read_text())["models"][0]
    metrics = json.loads((segmenter / "metrics.json").read_text())
    assert scores["miou"] == metrics["miou"]
    assert scores["confusion"] == metrics["confusion"]
    page = (tmp_path / "eval" / "report.md").read_text()
    assert "![overlays](overlays.png)" in page
    assert (tmp_path / "eval" / "overlays.png").read_bytes().startswith(b"\x89PNG")
    assert f"{100 * metrics['miou']:.2f}" in capsys.readouterr().out


def test_what_has_no_meaning_is_refused_in_one_sentence(  # noqa: PLR0917
    detector, segmenter, run_folder, scenes, tmp_path, capsys, monkeypatch
):
    photo = str(next((scenes / "val" / "images").iterdir()))
    nothing = "means nothing to a network that"
    for run, arguments, said in (
        (detector, ["--top-k", "3"], f"--top-k {nothing} detects: leave it out"),
        (detector, ["--format", "csv"], f"--format {nothing} detects: leave it out"),
        (detector, ["--least-score", "1.5"], "--least-score must be from 0 to 1, got 1.5"),
        (detector, ["--least-score", "nan"], "--least-score must be from 0 to 1, got nan"),
        (
            segmenter,
            ["--out", "m", "--least-score", "0.2"],
            f"--least-score {nothing} segments: leave it out",
        ),
        (segmenter, [], "a network that segments writes a mask for each image: give --out FOLDER"),
        (run_folder, ["--pictures", "p"], f"--pictures {nothing} classifies: leave it out"),
    ):
        assert main(["predict", str(run), photo, *arguments]) == 2
        assert capsys.readouterr().err == f"qna: {said}\n"
    for runs, arguments, said in (
        ([detector], ["--corruptions", "none"], f"--corruptions {nothing} detects: leave it out"),
        ([detector], ["--batch-size", "0"], "batch_size must be at least 1, got 0"),
        ([detector, detector], [], f"{detector} is named twice"),
        (
            [detector, segmenter],
            [],
            "`qna eval` judges networks of one task that it knows side by side, got detection, segmentation: "
            "ask for each alone",
        ),
    ):
        assert main(["eval", *map(str, runs), *arguments]) == 2
        assert capsys.readouterr().err == f"qna: {said}\n"
    for run, arguments, said in (
        (
            detector,
            [],
            f"{detector} is a run of detection, and `qna export` writes networks that classify or segment",
        ),
        (segmenter, ["--crop-pct", "0.5"], f"--crop-pct {nothing} segments: leave it out"),
    ):
        assert main(["export", str(run), "--to", str(tmp_path / "a.onnx"), *arguments]) == 2
        assert capsys.readouterr().err == f"qna: {said}\n"
    several = processes.Processes(0, 2, torch.device("cpu"), None)
    monkeypatch.setattr(processes, "join_processes", lambda *, cpu: several)
    assert main(["predict", str(detector), photo]) == 2
    assert "several processes need --out FILE" in capsys.readouterr().err


def check_told(metadata, segmenter):
    """What a file tells of a network that segments."""
    told = {name: json.loads(text) for name, text in metadata.items()}
    assert (told["task"], told["model"], told["image_size"]) == ("segmentation", "qna_unet_nano", 16)
    assert told["classes"] == ["background", "cross", "diamond", "square", "triangle"]
    assert tuple(map(tuple, told["palette"])) == segmenter.palette
    assert (tuple(told["mean"]), tuple(told["std"])) == (segmenter.mean, segmenter.std)


@pytest.mark.parametrize(("suffix", "writes"), [(".onnx", "export_onnx"), (".pt2", "export_program")])
def test_export_is_told_of_a_network_that_segments(suffix, writes, segmenter, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(qna.export, writes, lambda *given, **named: seen.append((given, named)))
    path, brought_back = tmp_path / f"model{suffix}", load_segmenter(str(segmenter))
    assert main(["export", str(segmenter), "--to", str(path), "--image-size", "16", "--sizes", "9x20"]) == 0
    (((network, target, shape), named),) = seen
    assert (target, shape) == (path, ("batch", 3, "height", "width"))
    assert named["sizes"] == [{"batch": 1, "height": 9, "width": 20}]
    assert named.get("outputs") == (["logits"] if suffix == ".onnx" else None)
    check_told(named["metadata"], brought_back)
    x = torch.randn(2, 3, 33, 18)
    with torch.no_grad():
        assert torch.equal(network(x), brought_back.network(x))


@pytest.fixture(params=[".onnx", ".pt2"])
def exported(request, segmenter, tmp_path, capsys):
    """What a file of a network that segments tells of it, and what it gives for images."""
    path = tmp_path / f"model{request.param}"
    if request.param == ".onnx":
        runtime = pytest.importorskip("onnxruntime", reason="qna[export] brings it")
        pytest.importorskip("onnxscript", reason="qna[export] brings it")
    assert main(["export", str(segmenter), "--to", str(path)]) == 0
    assert "tried with batch x height x width = 1x16x16, 3x37x53, 1x64x41" in capsys.readouterr().out
    if request.param == ".onnx":
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        told = session.get_modelmeta().custom_metadata_map
        return told, lambda x: torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])
    names = ("task", "model", "classes", "palette", "image_size", "mean", "std")
    extra = {f"metadata/{name}": "" for name in names}
    program = torch.export.load(path, extra_files=extra)
    return {name: extra[f"metadata/{name}"] for name in names}, program.module()


@pytest.mark.long
def test_a_network_that_segments_as_a_file(exported, segmenter):
    (metadata, run), brought_back = exported, load_segmenter(str(segmenter))
    check_told(metadata, brought_back)
    x = torch.randn(2, 3, 33, 18)
    with torch.no_grad():
        logits, expected = run(x), brought_back.network(x)
    assert logits.shape == (2, 5, 33, 18)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4 * expected.std().item())


def test_other_classes_are_refused(detector, scenes, tmp_path, capsys):
    other = shutil.copytree(scenes, tmp_path / "other")
    for path in other.rglob("annotations.json"):
        path.write_text(path.read_text().replace('"cross"', '"plus"'))
    assert main(["eval", str(detector), "--data", str(other)]) == 2
    assert "learned the classes cross, diamond, square, triangle, and" in capsys.readouterr().err


def test_damage_is_told(detector, tmp_path, capsys):
    copy = shutil.copytree(detector, tmp_path / "copy")
    about = load_tensors(copy / "model.safetensors")[1]
    assert {"classes", "mean", "std", "config"} <= set(about)
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:1000])
    assert main(["predict", str(copy), "a.png"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
