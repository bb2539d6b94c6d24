"""Tables come from rows alone; the pages of this repository are up to date."""

from pathlib import Path

import pytest

from qna._core.errors import InvalidInput
from qna.bench.measure import rows
from qna.bench.publish import mixer_summary, tables
from tests.bench.measure.test_rows import row

ROOT = Path(__file__).parents[3]


def of(provider, window, p50, *, threads=1, dtype="float32", date="2026-11-20", device="cpu A"):
    sizes = {"batch": 8, "height": 56, "width": 56, "dim": 64, "window": window, "dtype": dtype}
    case = f"op-8x56x56x64-k{window}-{dtype}"
    return row(
        case=case, provider=provider, p50=p50, threads=threads, date=date, device=device, extra=sizes
    )  # fmt: skip


ROWS = [
    of("depthwise", 3, 2.0),
    of("qna", 3, 3.0),
    of("qna", 3, 1.5, threads=2),
    of("qna", 7, 1234.5),
    of("qna", 3, 6.0, dtype="bfloat16"),
]


def body(spec, given=ROWS):
    return tables.block(spec, given).split("\n\n")[0].splitlines()


def test_figures_by_window():
    assert body("windows map=8x56x56x64") == [
        "| forward, ms | k=3 | k=7 |",
        "| --- | ---: | ---: |",
        "| qna | 3 | 1234 |",
        "| depthwise | 2 | - |",
    ]


def test_ratios_to_a_provider_to_threads_and_to_a_dtype():
    assert body("windows map=8x56x56x64 providers=qna over=depthwise")[2:] == ["| qna | 1.50 | - |"]
    assert body("windows map=8x56x56x64 threads=2 over_threads=1")[2:] == ["| qna | 0.50 |"]
    assert body("windows map=8x56x56x64 dtype=bfloat16 over_dtype=float32")[2:] == ["| qna | 2.00 |"]


def test_who_has_no_run_in_common_has_no_line_of_ratios():
    later = [*ROWS, of("swin", 3, 4.0, date="2026-11-21")]
    text = tables.block("windows map=8x56x56x64 over=depthwise", later)
    assert [line.split(" ")[1] for line in text.splitlines()[2:4]] == ["qna", "depthwise"]
    assert "2026-11-21" not in text
    assert "| swin | - |" in tables.block("windows map=8x56x56x64 providers=swin over=depthwise", later)


def test_two_runs_make_no_ratio_and_the_last_run_stands():
    later = [*ROWS, of("qna", 3, 4.0, date="2026-11-21")]
    assert body("windows map=8x56x56x64 providers=qna", later)[2] == "| qna | 4 | 1234 |"
    assert body("windows map=8x56x56x64 providers=qna over=depthwise", later)[2] == "| qna | - | - |"


def test_every_table_names_device_versions_commit_and_date_and_devices_stay_apart():
    text = tables.block("windows map=8x56x56x64", [*ROWS, of("qna", 3, 0.5, device="gpu B")])
    first, second = text.split("\n\n")[1::2]
    assert first == ("<sub>Medians. cpu A; 1 thread; float32; torch 2.13.0; commit abc+; 2026-11-20.</sub>")
    assert "gpu B" in second


def on_card(provider, window, p50, **changes):
    made = of(provider, window, p50, device="NVIDIA X", dtype="bfloat16", **changes)
    made.extra.update(device="cuda", heads=8, queries=2)
    return made


def test_a_card_s_rows_stand_without_threads_and_beside_no_cpu_s():
    given = [*ROWS, on_card("qna", 3, 0.0225), on_card("depthwise", 3, 0.05), on_card("copy", 3, 0.01)]
    gpu = tables.block("windows map=8x56x56x64 dtype=bfloat16 providers=qna,depthwise", given).split("\n\n")
    assert "cpu A; 1 thread; bfloat16" in gpu[1]
    assert gpu[2].splitlines()[2:] == ["| qna | 0.0225 |", "| depthwise | 0.05 |"]
    assert gpu[3] == "<sub>Medians. NVIDIA X; bfloat16; torch 2.13.0; commit abc+; 2026-11-20.</sub>"


def test_bandwidth_is_that_of_the_copy_in_the_same_run():
    given = [
        *(on_card(*r) for r in (("qna", 3, 0.0225), ("depthwise", 3, 0.05), ("swin", 3, 1.0))),
        *(on_card(*r) for r in (("copy", 3, 0.01), ("qna", 7, 0.0225))),
        on_card("copy", 7, 0.01, date="2026-11-19"),
    ]
    # 64 value, 16 score and 64 output columns, where a copy moves 128; and no copy in the run of window 7
    assert body("windows map=8x56x56x64 dtype=bfloat16 metric=bandwidth", given) == [
        "| forward, % of the copy's bandwidth | k=3 | k=7 |",
        "| --- | ---: | ---: |",
        "| qna | 50 | - |",
        "| depthwise | 20 | - |",
        "| copy | 100 | 100 |",
    ]


def test_bandwidth_of_a_backward_counts_its_own_bytes():
    given = [on_card("qna", 3, 0.0675), on_card("depthwise", 3, 0.05), on_card("copy", 3, 0.01)]
    given = [row(**{**vars(r), "mode": "forward+backward"}) for r in given]
    found = body("windows map=8x56x56x64 dtype=bfloat16 mode=forward+backward metric=bandwidth", given)
    # columns: 80 + 64 forward, 80 + 64 + 64 + 80 backward, where a copy moves 2 * 64; a convolution 5 * 64
    assert found[2:] == ["| qna | 50 |", "| depthwise | 50 |", "| copy | 100 |"]


def test_maps_models_and_costs():
    assert body("maps window=3")[0] == "| forward, ms | 8x56x56x64 |"
    assert body("maps window=3 map=1x1x1x1,8x56x56x64") == body("maps window=3")
    assert body("maps window=3 map=8x56x56x6") == ["*Not measured yet.*"]
    model = row(
        case="model-8x224x224-float32", provider="qna_vit_tiny", metric="throughput", unit="images/s",
        p50=20.25, extra={"batch": 8, "size": 224, "dtype": "float32"},
    )  # fmt: skip
    assert body("models", [model])[::2] == [
        "| forward, images/s | 224 px, batch 8 |",
        "| qna_vit_tiny | 20.2 |",
    ]
    assert body("models map=1x64x64,8x224x224", [model]) == body("models", [model])
    assert tables.block("models map=1x224x224,8x224x22", [model]) == "*Not measured yet.*"
    counted = [
        row(case="layer-1x8x8x64-k3-float32", metric=metric, device="formula", p50=value)
        for metric, value in (("parameters", 12.7e3), ("macs", 267.0), ("moved", 12.25), ("peak", 26.0))
    ]
    assert body("cost", counted)[2] == "| qna 1x8x8x64 k3 | 0.0127 | 0.267 | 12.2 | 26 |"


def run(name, seed, right, *, data="cifar10", **changes):
    extra = {
        "seed": seed, "epochs": 2, "trained_on": 50000, "held_out": 10000, "parameters": 269_482,
        "macs": 8_807_616, "cpu_seconds": 60.0 * (seed + 1), "seconds": 120.0,
        "command": f"qna {name} {seed}",
    }  # fmt: skip
    return row(
        case=f"accuracy-{data}", provider=name, mode="train", metric="top1", unit="%", p50=right,
        device="cpu A", extra=extra, **changes,
    )  # fmt: skip


def test_accuracy_is_the_mean_over_seeds_beside_each_of_them():
    given = [run("qna", 1, 61.0), run("swin", 0, 50.0), run("qna", 0, 40.0), run("qna", 0, 60.0)]
    assert body("accuracy data=cifar10 providers=swin,qna", given) == [
        "|  | parameters, M | MMAC | CPU minutes | minutes | right, % | each seed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| swin | 0.269 | 8.81 | 1.0 | 2.0 | 50.0 | 50.0 |",
        "| qna | 0.269 | 8.81 | 1.5 | 2.0 | 60.5 | 60.0, 61.0 |",
    ]
    assert [line.split(" | ")[0] for line in body("accuracy data=cifar10", given)[2:]] == ["| qna", "| swin"]
    # sqrt(0.57 * 0.43 / 10000)
    assert tables.block("accuracy data=cifar10", given).split("\n\n")[1] == (
        "<sub>2 passes over 50,000 images; 10,000 test images, whose number alone gives a standard error of "
        "0.5. cpu A; 1 thread; torch 2.13.0; commit abc+; 2026-11-20.</sub>"
    )
    assert body("commands data=cifar10", given) == ["    qna qna 0", "    qna swin 0"]


def mixer(name, right, *, seed, lr, data="cifar10"):
    extra = {
        "seed": seed,
        "lr": lr,
        "command": f"{data} {name} {seed} {lr}",
        "parameters": 177_242,
        "macs": 5.8e6,
    }
    return row(
        case=f"mixers-{data}", provider=name, mode="train", metric="top1", unit="%", p50=right, extra=extra
    )


def timed(name, ms, *, size=224, mode="forward+backward"):
    extra = {"size": size, "batch": 1, "dtype": "float32"}
    return row(case=f"mixers-1x{size}x{size}-float32", provider=name, mode=mode, p50=ms, extra=extra)


MIXERS = [
    mixer("full", 41.0, seed=0, lr=0.004),
    mixer("qna", 50.0, seed=0, lr=0.004),
    mixer("qna", 60.0, seed=0, lr=0.008),
    mixer("qna", 58.0, seed=1, lr=0.008),
    mixer("qna", 80.0, seed=0, lr=0.004, data="fashion-mnist"),
    timed("full", 40.0), timed("qna", 20.0), timed("qna", 2.0, size=32), timed("qna", 1.0, mode="forward"),
]  # fmt: skip


def test_mixers_stand_at_the_rate_that_the_first_seed_chose():
    assert body("mixers data=cifar10,fashion-mnist", MIXERS) == [
        "|  | parameters, k | MMAC | cifar10, % | cifar10, rate | fashion-mnist, % | fashion-mnist, rate |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| qna | 177 | 5.8 | 59.0 (60.0, 58.0) | 0.008 | 80.0 | 0.004 |",
        "| full | 177 | 5.8 | 41.0 | 0.004 | - | - |",
    ]
    assert body("models table=mixers metric=time mode=forward+backward", MIXERS) == [
        "| forward+backward, ms | 32 px, batch 1 | 224 px, batch 1 |",
        "| --- | ---: | ---: |",
        "| qna | 2 | 20 |",
        "| full | - | 40 |",
    ]
    assert tables.block("models", MIXERS) == "*Not measured yet.*"
    drawn = mixer_summary.picture(MIXERS)
    assert drawn
    assert drawn["panels"] == [
        {
            "title": "cifar10",
            "points": [{"name": "qna", "x": 20.0, "y": 59.0}, {"name": "full", "x": 40.0, "y": 41.0}],
        },
        {"title": "fashion-mnist", "points": [{"name": "qna", "x": 20.0, "y": 80.0}]},
    ]
    assert mixer_summary.picture(MIXERS[:-4]) is None


def test_rates_are_columns():
    given = [
        row(
            case="rate-cifar10", provider=name, mode="train", metric="top1", unit="%", p50=right,
            extra={"lr": lr, "dtype": "float32"},
        )
        for name, lr, right in (("qna", 0.016, 38.6), ("qna", 0.008, 36.1), ("swin", 0.008, 31.3))
    ]  # fmt: skip
    assert body("rates data=cifar10", given) == [
        "| train, % | 0.008 | 0.016 |",
        "| --- | ---: | ---: |",
        "| qna | 36.1 | 38.6 |",
        "| swin | 31.3 | - |",
    ]
    assert "<sub>One run each." in tables.block("rates data=cifar10", given)


def test_nothing_measured_says_so():
    for spec in (
        "windows map=1x1x1x1",
        "maps window=99",
        "models",
        "cost",
        "accuracy data=cifar10",
        "mixers data=cifar10",
    ):
        assert tables.block(spec, []) == "*Not measured yet.*"


def test_only_what_is_between_the_markers_changes(tmp_path):
    (tmp_path / "docs").mkdir()
    results = tmp_path / "benchmarks" / "results"
    rows.append(results / "a.csv", ROWS[:1])
    page = tmp_path / "docs" / "page.md"
    page.write_text(
        "before\n<!-- bench windows map=8x56x56x64 -->\nold\n<!-- /bench -->\nafter <!-- bench -->\n"
    )
    (tmp_path / "README.md").write_text("no table\n")
    assert tables.main(["--check", str(tmp_path)]) == 1
    assert "old" in page.read_text()
    assert tables.main([str(tmp_path)]) == 0
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after <!-- bench -->")
    assert "| depthwise | 2 |" in lines
    assert "old" not in lines
    assert tables.main(["--check", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("window map=1", "unknown table 'window'; did you mean 'windows'"),
        ("windows mpa=1", "did you mean 'map'"),
        ("accuracy", "needs data=NAME"),
    ],
)
def test_a_block_that_asks_for_what_there_is_not_names_page_and_block(spec, says):
    with pytest.raises(InvalidInput, match=f"page.md, block 'bench {spec}': .*{says}"):
        tables.filled(f"<!-- bench {spec} -->\n<!-- /bench -->", ROWS, "page.md")


def test_the_pages_of_this_repository_are_up_to_date():
    assert tables.update(ROOT, write=False) == [], "run `make tables`"


def test_the_results_of_this_repository_can_be_read():
    for path in (ROOT / "benchmarks" / "results").glob("*.csv"):
        assert rows.read(path), path
