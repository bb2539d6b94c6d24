"""The command: rows that stand in the file, pictures from them, and one sentence for what cannot be."""

import dataclasses
import json

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.bench.measure import rows
from qna.bench.measure.contender import Contender
from qna.bench.measure.cores import CORES, pin
from qna.bench.subjects import accuracy
from qna.bench.subjects.peers import PEERS
from qna.cli import main
from tests.bench.measure.test_rows import row

TINY = ["--maps", "1x8x8x16", "--head-dim", "4", "--seconds", "0.001", "--no-memory"]


@pytest.fixture(autouse=True)
def all_cores_afterwards():
    yield
    pin(len(CORES))


def run(*words):
    return main([str(word) for word in words])


def test_op_writes_rows_that_plot_draws(tmp_path, capsys):
    out = tmp_path / "rows.csv"
    assert run("bench", "op", "--peers", "qna", "copy", "halo", "--windows", 3, 4, "--out", out, *TINY) == 0
    said = capsys.readouterr().out
    assert "halo: the halo is (window - 1) / 2, and the window 4 is even" in said.replace("\n", " ")
    found = rows.read(out)
    assert len(found) == 2 * (3 + 2)  # modes, providers at window 3 and at window 4
    first = found[0]
    assert (first.case, first.provider, first.mode) == ("op-1x8x8x16-k3-float32", "qna", "forward")
    assert (first.metric, first.unit, first.threads) == ("time", "ms", 1)
    assert 0 < first.p20 <= first.p50 <= first.p80
    assert first.extra["calls"] >= 3
    assert first.extra["window"] == 3
    assert run("plot", "bench", out, "--out", tmp_path / "plots") == 0
    assert {p.suffix for p in (tmp_path / "plots").iterdir()} == {".png", ".svg"}
    # a second run adds to the file
    run("bench", "op", "--peers", "copy", "--windows", 3, "--out", out, *TINY)
    assert rows.read(out)[: len(found)] == found


def test_layer_threads_and_dtypes_are_cases_and_providers_of_one_run(tmp_path):
    out = tmp_path / "rows.csv"
    threads = [1, 2] if len(CORES) > 1 else [1]
    words = ["bench", "layer", "--peers", "depthwise", "--windows", 3, "--modes", "forward", "--out", out]
    assert run(*words, "--dtype", "float32", "bfloat16", "--threads", *threads, *TINY) == 0
    found = rows.read(out)
    assert {(r.extra["dtype"], r.threads) for r in found} == {
        (d, t) for d in ("float32", "bfloat16") for t in threads
    }
    assert len({r.date for r in found}) == 1


def test_a_wrong_provider_has_no_row_and_the_status_is_1(tmp_path, monkeypatch, capsys):
    build = PEERS["copy"].build

    def wrong(setting, level) -> Contender:
        contender = build(setting, level)
        return dataclasses.replace(contender, forward=lambda: contender.forward() + 1)

    monkeypatch.setitem(PEERS, "copy", dataclasses.replace(PEERS["copy"], build=wrong))
    out = tmp_path / "rows.csv"
    assert run("bench", "op", "--peers", "copy", "depthwise", "--windows", 3, "--out", out, *TINY) == 1
    assert {r.provider for r in rows.read(out)} == {"depthwise"}
    said = capsys.readouterr().out
    assert "copy: WRONG: output differs by 1" in said
    assert "no time for a wrong output: copy in op-1x8x8x16-k3-float32" in said


def test_models_and_training_steps(tmp_path):
    out = tmp_path / "rows.csv"
    for verb in ("model", "train-step"):
        words = ["bench", verb, "--models", "qna_vit_nano_16", "--sizes", 16, "--batches", 2]
        assert run(*words, "--seconds", 0.001, "--no-memory", "--out", out) == 0
    found = rows.read(out)
    assert [(r.mode, r.metric) for r in found] == [
        ("forward", "time"), ("forward", "throughput"), ("step", "time"), ("step", "throughput"),
    ]  # fmt: skip
    time, speed = found[:2]
    assert speed.p50 == pytest.approx(2 / (time.p50 / 1e3), rel=1e-4)
    assert speed.p20 <= speed.p50 <= speed.p80


def test_a_model_is_measured_bare_and_with_each_adapter_in_the_same_turns(tmp_path):
    out = tmp_path / "rows.csv"
    around = [
        *("--adapter", "evit", "keep_rate=0.5", "layers=1,2", "fuse=False"),
        *("--adapter", "tap_adl", "layers=(0,)"),
    ]
    for verb in ("model", "train-step"):
        words = ["bench", verb, "--models", "vit_tiny_patch16_224", *around, "--sizes", 32, "--batches", 2]
        assert run(*words, "--seconds", 0.001, "--no-memory", "--out", out) == 0
    speeds = {(r.mode, r.provider): r for r in rows.read(out) if r.metric == "throughput"}
    # cases of their own, as the bare model's is measured in other turns
    assert {r.case for r in speeds.values()} == {"adapters-2x32x32-float32"}
    evit = "vit_tiny_patch16_224+evit:keep_rate=0.5:layers=1-2:fuse=False"
    tap = "vit_tiny_patch16_224+tap_adl:layers=0"
    names = ("vit_tiny_patch16_224", evit, tap)
    assert list(speeds) == [(mode, name) for mode in ("forward", "step") for name in names]
    told = speeds["step", evit].extra["adapter"]
    assert (told["name"], told["arguments"]["keep_rate"], told["arguments"]["layers"]) == (
        "evit",
        0.5,
        [1, 2],
    )
    bare, same, more = (speeds["forward", name].extra for name in names)
    assert "adapter" not in bare
    assert bare["parameters"] == same["parameters"] < more["parameters"]


def test_cost_prints_published_figures_and_writes_rows(tmp_path, capsys):
    out = tmp_path / "rows.csv"
    words = [
        "bench",
        "cost",
        "--models",
        "qna_vit_tiny",
        "--windows",
        3,
        "--maps",
        "1x8x8x16",
        "--head-dim",
        4,
    ]
    assert run(*words, "--layers", "--out", out) == 0
    said = capsys.readouterr().out
    assert "qna_vit_tiny 1x224x224" in said
    assert "2.43" in said
    assert "stages.0.0.mixer" in said
    found = {(r.provider, r.metric): r.p50 for r in rows.read(out)}
    assert found["qna_vit_tiny", "parameters"] == pytest.approx(15_715_560, rel=1e-5)
    assert found["qna", "macs"] > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["bench", "op", "--peers", "swinn"], "unknown peer 'swinn'; did you mean 'swin'?"),
        (["bench", "op", "--windows", "0"], "--windows must be at least 1, got [0]"),
        (["bench", "op", "--maps", "1x8x8x20"], "head dim 8 does not divide the 20 channels"),
        (["bench", "op", "--dtype", "float31"], "unknown dtype 'float31'; did you mean 'float32'"),
        (["bench", "op", "--modes", "backward"], "unknown mode 'backward'"),
        (["bench", "op", "--threads", "999"], "threads must be 1 to"),
        (["bench", "op", "--base", "no-such-commit"], "has no commit 'no-such-commit'"),
        (["bench", "layer", "--official", "here"], "--official and --official-python go together"),
        (["bench", "layer", "--official", ".", "--official-python", "x"], "has no layers/qna.py"),
        (["bench", "model", "--models", "qna_vit_tine"], "did you mean 'qna_vit_tiny'"),
        (["bench", "model", "--adapter", "evitt"], "unknown adapter 'evitt'; did you mean 'evit'"),
        (["bench", "model", "--adapter", "evit", "0.7"], "--adapter must be NAME=VALUE"),
        (["bench", "model", "--batches", "0"], "must be at least 1"),
        (["bench", "cost", "--windows", "3", "--models", "resnet18"], "resnet18 has layers without formulas"),
        (["plot", "bench", "no.csv"], "no.csv is no file"),
    ],
)
def test_what_cannot_be_is_one_sentence(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("qna: ")
    assert says in error
    assert "\n" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_map_that_is_none_is_argparse_s_error(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "op", "--maps", "8x56"])
    assert stop.value.code == 2
    assert "'8x56' is no map; write batch x height x width x channels" in capsys.readouterr().err


def test_rows_that_make_no_picture_are_an_error(tmp_path, capsys):
    out = tmp_path / "rows.csv"
    run("bench", "op", "--peers", "copy", "--windows", 3, "--modes", "forward", "--out", out, *TINY)
    assert run("plot", "bench", out) == 2
    assert "no picture, which needs two windows" in capsys.readouterr().err


def test_tune_needs_a_card(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run("bench", "tune") == 2
    assert "tuning needs the Triton backend, and here torch sees no GPU" in capsys.readouterr().err


def test_tune_puts_each_case_into_the_table(tmp_path, monkeypatch):
    from qna.ops.learned_query.triton import tiles
    from qna.ops.learned_query.triton import tune as tuning

    seen = []

    def tune(cases, dtype, device, progress):
        seen.extend((case, dtype, device) for case in cases)
        tile = {"elements": 16, "heads": 1, "columns": 8, "warps": 2, "registers": None}
        return [
            {
                "kernel": "attend", "architecture": "sm_0", "bits": 16, "taps": case.taps,
                "head_dim": case.head_dim, "tile": tile, "source": "test",
            }
            for case in cases
        ]  # fmt: skip

    table = tmp_path / "table.json"
    table.write_text(tiles.PATH.read_text())
    monkeypatch.setattr(tuning, "tune", tune)
    words = ["--windows", 3, 5, "--maps", "2x14x14x32", "--head-dim", 16, "--table", table]
    assert run("bench", "tune", *words) == 0
    assert [(case.batch, case.space, case.kernel, case.heads) for case, *_ in seen] == [
        (2, (14, 14), (3, 3), 2),
        (2, (14, 14), (5, 5), 2),
    ]
    assert seen[0][1] == torch.bfloat16
    written = [row for row in json.loads(table.read_text())["rows"] if row["architecture"] == "sm_0"]
    assert [row["taps"] for row in written] == [9, 25]


def test_accuracy_adds_a_row_after_each_run_and_repeats_none(tmp_path, monkeypatch, capsys):
    out, trained = tmp_path / "a.csv", []

    def train(arguments, log):
        if len(trained) == 2:
            raise InvalidInput("the disk is full")
        trained.append(arguments)
        return 90.0

    def row_of(of, folder, stamp, *, cpu_seconds, seconds):
        return row(case=of.case, provider=of.entrant, metric="top1", p50=50.0,
                   extra={"command": of.command, "cpu_seconds": cpu_seconds})  # fmt: skip

    monkeypatch.setattr(accuracy, "_train", train)
    monkeypatch.setattr(accuracy, "row_of", row_of)
    words = ["bench", "accuracy", "--data", "cifar10", "--cifar10-dir", "here", "--runs", tmp_path / "runs",
             "--entrants", "swin", "qna", "window-7", "--out", out]  # fmt: skip
    assert run(*words) == 2
    assert [r.provider for r in rows.read(out)] == ["swin", "qna"]
    assert trained[1] == [
        "train", "--recipe", "cifar10-laptop", "--seed", "0", "--data-dir", "here", "--out",
        str(tmp_path / "runs" / "cifar10-qna-seed0"),
    ]  # fmt: skip
    capsys.readouterr()
    monkeypatch.setattr(accuracy, "_train", lambda arguments, log: 90.0)
    assert run(*words) == 0
    told = capsys.readouterr().out
    assert "1 runs, 2 more have their rows" in told
    assert "accuracy-cifar10 window-7: 50.00 % right, 1.5 CPU minutes" in told
    assert len(rows.read(out)) == 3


def test_mixers_are_timed_in_one_backbone(tmp_path, capsys):
    out = tmp_path / "rows.csv"
    words = ["bench", "mixers", "--what", "cost", "--mixers", "identity", "token-gating", "--sizes", 16]
    assert run(*words, "--seconds", 0.001, "--no-memory", "--out", out) == 0
    assert [(r.case, r.provider, r.mode, r.metric, r.unit) for r in rows.read(out)] == [
        ("mixers-1x16x16-float32", name, mode, "time", "ms")
        for mode in ("forward", "forward+backward")
        for name in ("identity", "token-gating")
    ]
    assert run("bench", "mixers", "--what", "speed") == 2
    assert "unknown WHAT 'speed'" in capsys.readouterr().err
    assert run("bench", "mixers", "--mixers", "identitty") == 2
    assert "unknown mixer of the table 'identitty'; did you mean 'identity'" in capsys.readouterr().err


def test_mixers_are_trained_at_every_rate_then_at_the_best_with_another_seed(tmp_path, monkeypatch):
    out = tmp_path / "a.csv"

    def row_of(of, folder, stamp, *, cpu_seconds, seconds):
        lr = float(of.options[of.options.index("--lr") + 1])
        extra = {"command": of.command, "cpu_seconds": cpu_seconds, "seed": of.seed, "lr": lr}
        return row(case=of.case, provider=of.entrant, metric="top1", p50=50 + 100 * lr, extra=extra)

    monkeypatch.setattr(accuracy, "_train", lambda arguments, log: 90.0)
    monkeypatch.setattr(accuracy, "row_of", row_of)
    words = ["bench", "mixers", "--what", "accuracy", "--data", "cifar10", "--mixers", "qna", "identity",
             "--rates", 0.01, 0.02, "--runs", tmp_path / "runs", "--out", out]  # fmt: skip
    for _ in range(2):  # what has a row is not trained again
        assert run(*words) == 0
        assert [(r.provider, r.extra["seed"], r.extra["lr"]) for r in rows.read(out)] == [
            ("qna", 0, 0.01), ("qna", 0, 0.02), ("identity", 0, 0.01), ("identity", 0, 0.02),
            ("qna", 1, 0.02), ("identity", 1, 0.02),
        ]  # fmt: skip
