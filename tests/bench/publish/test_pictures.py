"""From rows to what is drawn."""

import pytest

from qna.bench.publish.pictures import FLOOR, pictures
from tests.bench.measure.test_rows import row
from tests.bench.publish.test_tables import of, run

QNA = {"heads": 8, "queries": 2}


def with_heads(r):
    r.extra.update(QNA)
    return r


def lines_of(picture, panel=0):
    return {line["name"]: line for line in picture.arguments["panels"][panel]["lines"]}


def test_time_against_window_has_this_library_first_and_the_floor_last():
    rows = [of("copy", 7, 0.5), of("copy", 3, 0.4), *(with_heads(of("qna", k, k)) for k in (7, 3))]
    (picture,) = pictures(rows)
    assert picture.name == "op-forward-time-by-window-float32-1t"
    lines = lines_of(picture)
    assert list(lines) == ["qna", "copy", FLOOR]
    assert lines["qna"]["x"] == [3, 7]
    # 64 value, 16 score and 64 output columns, where a copy moves 128
    assert lines[FLOOR]["y"] == pytest.approx([0.4 * 144 / 128, 0.5 * 144 / 128])


def test_the_floor_of_a_backward_counts_its_bytes_and_the_copy_s_once():
    rows = [with_heads(of("qna", k, k)) for k in (3, 7)] + [of("copy", k, 0.4) for k in (3, 7)]
    (picture,) = pictures(row(**{**vars(r), "mode": "forward+backward"}) for r in rows)
    # 144 columns forward and 288 backward; a copy's gradient is the output's own and moves nothing
    assert lines_of(picture)[FLOOR]["y"] == pytest.approx([0.4 * 432 / 128] * 2)


def test_one_window_is_no_line_and_the_last_of_two_measurements_stands():
    assert pictures([of("qna", 3, 1.0)]) == []
    (picture,) = pictures([of("swin", 3, 1.0), of("swin", 5, 2.0), of("swin", 3, 9.0)])
    assert lines_of(picture)["swin"]["y"] == [9.0, 2.0]


def test_threads_and_dtypes_are_pictures_of_their_own():
    rows = [
        of("swin", k, 1.0, threads=t, dtype=d)
        for k in (3, 5)
        for t in (1, 2)
        for d in ("float32", "bfloat16")
    ]
    assert len({p.name for p in pictures(rows)}) == 4


def test_a_card_s_pictures_have_its_name_and_leave_those_of_the_cpu():
    rows = [of("swin", k, 1.0) for k in (3, 5)] + [of("swin", k, 0.1, device="NVIDIA H200") for k in (3, 5)]
    for r in rows[2:]:
        r.extra["device"] = "cuda"
    cpu, card = pictures(rows)
    assert cpu.name == "op-forward-time-by-window-float32-1t"
    assert card.name == "op-forward-time-by-window-float32-nvidia-h200"
    assert "1 thread" in cpu.arguments["note"]
    assert "thread" not in card.arguments["note"]


def test_time_against_three_maps():
    rows = []
    for size in (8, 16, 32):
        r = of("qna", 3, float(size))
        r.extra.update(height=size, width=size)
        rows.append(row(**{**vars(r), "case": f"op-8x{size}x{size}x64-k3-float32"}))
    (picture,) = pictures(rows)
    assert picture.name == "op-forward-time-by-map-c64-float32-1t"
    assert lines_of(picture)["qna"]["x"] == [512, 2048, 8192]


def test_runs_are_dots_by_data_set_and_seed():
    runs = [run("qna", 0, 60.0), run("qna", 1, 61.0), run("qna", 0, 85.0, data="digits")]
    (picture,) = pictures(runs)
    assert (picture.name, picture.kind) == ("accuracy", "dots")
    assert [p["title"] for p in picture.arguments["panels"]] == [
        "cifar10: 2 passes over 50,000 images",
        "digits: 2 passes over 50,000 images",
    ]
    assert [p["dots"] for p in picture.arguments["panels"]] == [
        [{"name": "qna", "values": [60.0, 61.0]}],
        [{"name": "qna", "values": [85.0]}],
    ]


def test_no_memory_at_all_still_fits_a_logarithmic_axis():
    rows = [row(**{**vars(of("qna", k, 0.0)), "metric": "memory", "p20": 0.0, "p80": 0.0}) for k in (3, 5)]
    assert min(lines_of(pictures(rows)[0])["qna"]["y"]) > 0
