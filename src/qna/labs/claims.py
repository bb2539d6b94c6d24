"""docs/claims.md: every laboratory with its claim, and the verdict on every run in benchmarks/results.

The verdict is computed from the stored figures when the page is made. ``python -m qna.labs.claims`` writes
the page; with ``--check`` it only tells whether it differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from qna._core.about import About
from qna._core.errors import check_choice
from qna._core.files import write_text
from qna.labs import LABS
from qna.labs.results import LabRun, metrics_of, runs_in
from qna.labs.row import Lab

HEAD = """# Published claims, tried

A laboratory tries one published claim at a size of minutes on one core, beside a control that can win.
`qna lab list` names them and `qna lab run NAME` repeats one. The rule of each verdict was written down before
the first run, and where a rule or a setting was changed after figures were seen, the entry says so; verdicts that lose stay.

This page is made of the rows in `benchmarks/results` by `python -m qna.labs.claims`. A new laboratory is a
folder in `src/qna/labs` with its row, named in the list of `src/qna/labs/__init__.py`."""
NOT_RUN = "not run yet"


def page(labs: Mapping[str, Lab], runs: Iterable[LabRun]) -> str:
    """The Markdown of the whole page.

    Raises:
        UnknownName: rows of a laboratory that is not in `labs`.
    """
    of_lab: dict[str, list[LabRun]] = {name: [] for name in labs}
    for run in sorted(runs, key=lambda run: run.rows[0].extra["begun"]):
        of_lab[check_choice(f"lab in {run.file.name}", run.lab, labs)].append(run)
    lines = ["| lab | claimed in | verdict |", "| --- | --- | --- |"]
    for name, lab in labs.items():
        words = dict.fromkeys(lab.verdict(metrics_of(run.rows)).word for run in of_lab[name])
        lines.append(f"| [{name}](#{name}) | {_short(lab.about)} | {', '.join(words) or NOT_RUN} |")
    sections = [_section(lab, of_lab[name]) for name, lab in labs.items()]
    return "\n\n".join([HEAD, "\n".join(lines), *sections]) + "\n"


def update(root: Path, *, write: bool = True) -> bool:
    """Bring docs/claims.md up to date; returns whether it was, or with ``write=False`` would be, changed."""
    files = sorted((root / "benchmarks" / "results").glob("*.csv"))
    made = page(LABS, [run for path in files for run in runs_in(path)])
    path = root / "docs" / "claims.md"
    changed = not path.exists() or path.read_text(encoding="utf-8") != made
    if changed and write:
        write_text(path, made)
    return changed


def _section(lab: Lab, runs: list[LabRun]) -> str:
    about = lab.about
    arxiv = f", arXiv {about.arxiv}" if about.arxiv else ""
    differs = f" What differs: {about.differs}." if about.differs else ""
    texts = [
        f"## {lab.name}",
        f"**Claim.** {lab.claim}",
        f'<sub>{about.authors}, "{about.title}", {about.venue}{arxiv}. Read: {about.read}.{differs}</sub>',
        f"**Control.** {lab.control}",
        f"**Rule.** {lab.rule}",
    ]
    budget = f"at most {lab.config().minutes:g} CPU minutes"
    if not runs:
        texts.append(f"*{NOT_RUN.capitalize()}*: `qna lab run {lab.name}`, {budget}.")
    for run in runs:
        verdict = lab.verdict(metrics_of(run.rows))
        texts += [f"**{verdict.word.capitalize()}.** {verdict.figures}", _source(run)]
    return "\n\n".join(texts)


def _source(run: LabRun) -> str:
    def every(values: Iterable[object]) -> str:
        return ", ".join(sorted({str(value) for value in values}))

    threads = every(row.threads for row in run.rows)
    facts = [
        f"`{run.command}`, {run.cpu_minutes:.1f} CPU minutes",
        every(row.device for row in run.rows),
        f"{threads} thread{'' if threads == '1' else 's'}",
        f"torch {every(row.torch for row in run.rows)}",
        f"commit {every(row.commit for row in run.rows)}",
        every(row.date[:10] for row in run.rows),
        f"`{run.file.name}`",
    ]
    return f"<sub>{'; '.join(facts)}.</sub>"


def _short(about: About) -> str:
    first, _, others = about.authors.partition(",")
    return f"{first.removesuffix(' et al.')}{' et al.' if others else ''}, {about.venue}"


def main(arguments: list[str]) -> int:
    """Write, or check; 1 if a check found that the page differs."""
    parser = argparse.ArgumentParser("qna.labs.claims", description="Make docs/claims.md.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the page would change")
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="repository (default: here)")
    options = parser.parse_args(arguments)
    changed = update(options.root, write=not options.check)
    if changed:
        what = "is out of date: run python -m qna.labs.claims" if options.check else "rewritten"
        sys.stdout.write(f"{options.root / 'docs' / 'claims.md'} {what}\n")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
