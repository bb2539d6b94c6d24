"""docs/claims.md comes from rows alone, losing verdicts among them, and is up to date."""

from dataclasses import replace
from pathlib import Path

import pytest

from qna._core.errors import UnknownName
from qna.bench.measure import rows
from qna.labs import LABS, claims
from qna.labs.results import LabRun, runs_in
from qna.labs.running import run_lab
from tests.bench.measure.test_rows import row
from tests.labs.toy import TOY, ToyConfig

ROOT = Path(__file__).parents[2]


def lines_of(root):
    return (root / "docs" / "claims.md").read_text().splitlines()


def test_a_lab_without_rows_says_so_and_one_with_rows_gets_its_verdicts(toy, tmp_path):
    (tmp_path / "docs").mkdir()
    results = tmp_path / "benchmarks" / "results"
    assert claims.main([str(tmp_path)]) == 0
    lines = lines_of(tmp_path)
    assert "| [toy-dice](#toy-dice) | A. Toy et al., Toys 2001 | not run yet |" in lines
    assert "*Not run yet*: `qna lab run toy-dice`, at most 1 CPU minutes." in lines

    rows.append(results / "a.csv", [row()])  # of another benchmark
    for name, config in (("lost", ToyConfig(loaded=True)), ("other", ToyConfig(seed=3))):
        rows.append(results / "2026-labs.csv", later(run_lab(toy, config, tmp_path / name).rows, name))
    assert claims.main(["--check", str(tmp_path)]) == 1
    assert lines == lines_of(tmp_path)
    assert claims.main([str(tmp_path)]) == 0
    assert claims.main(["--check", str(tmp_path)]) == 0
    lines = lines_of(tmp_path)
    first, second = (line for line in lines if line.endswith("rolls won."))
    assert first == "**Not seen.** 0 of 3 rolls won."
    verdict = toy.verdict(claims.metrics_of(runs_in(results / "2026-labs.csv")[1].rows))
    assert second == f"**{verdict.word.capitalize()}.** {verdict.figures}"
    source = lines[lines.index(first) + 2]
    assert source.startswith("<sub>`qna lab run toy-dice --loaded`, 0.0 CPU minutes; ")
    assert source.endswith("`2026-labs.csv`.</sub>")


def later(given, name):
    """Rows of runs that may have begun within one second."""
    return [replace(r, extra={**r.extra, "begun": f"{r.extra['begun']} {name}"}) for r in given]


def test_rows_of_a_lab_that_is_gone_are_not_passed_over(tmp_path):
    lost = tuple(row(extra={"lab": "toy-dise", "begun": "2026"}) for _ in range(2))
    with pytest.raises(UnknownName, match=r"lab in a.csv 'toy-dise'; did you mean 'toy-dice'"):
        claims.page({"toy-dice": TOY}, [LabRun("toy-dise", Path("a.csv"), lost)])


def test_the_page_of_this_repository_is_up_to_date():
    assert set(LABS) >= {"qna-cost"}
    assert not claims.update(ROOT, write=False), "run python -m qna.labs.claims"
