"""`qna list` and the page that is made of the same rows."""

import json
from pathlib import Path

import pytest

from qna.cli import list as listing
from qna.cli import main
from qna.mixers import MIXERS

PAGE = Path(__file__).parents[2] / "docs" / "systems.md"


def test_the_page_is_what_the_rows_say():
    written = PAGE.read_text(encoding="utf-8")
    assert written == listing.page(), "make it anew: qna list --write docs/systems.md"


def test_the_terminal_shows_every_mixer_with_its_paper(capsys):
    assert main(["list", "mixers"]) == 0
    shown = capsys.readouterr().out
    for name, row in MIXERS.items():
        (line,) = (line for line in shown.splitlines() if f" {name} " in line)
        assert row.about.status in line
        assert row.about.title in line
        assert f"arXiv {row.about.arxiv}" in line


def test_json_holds_all_that_is_known(capsys):
    assert main(["list", "--json"]) == 0
    found = {(row["kind"], row["name"]): row for row in json.loads(capsys.readouterr().out)}
    row = found["mixers", "FocalModulation2d"]
    assert row["about"]["arxiv"] == "2203.11926"
    assert row["about"]["read"] == MIXERS["FocalModulation2d"].about.read
    assert {name for kind, name in found if kind == "mixers"} == set(MIXERS)


def test_a_kind_without_rows_says_so(capsys, monkeypatch):
    monkeypatch.setitem(listing.REGISTRIES, "mixers", ("tests.cli.test_list", "NOTHING"))
    assert main(["list", "mixers"]) == 0
    assert capsys.readouterr().out == "There are no mixers yet.\n"


NOTHING = {}


@pytest.mark.parametrize("system", [s for kind in listing.REGISTRIES for s in listing.systems(kind)])
def test_every_row_says_what_it_is_and_fits_a_table(system):
    about = system.about
    told = [system.text] if about is None else [about.title, about.authors, about.venue, about.read]
    assert all(told), f"{system.kind} {system.name}"
    assert not set("|\n") & set("".join(told))
    assert about is None or about.status in listing.STATUS


def test_write(tmp_path):
    assert main(["list", "--write", str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == listing.page()


def test_a_page_that_cannot_be_written_is_said(tmp_path, capsys):
    assert main(["list", "--write", str(tmp_path / "none" / "page.md")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_an_unknown_kind_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["list", "mixer"])
    assert "mixers" in capsys.readouterr().err
