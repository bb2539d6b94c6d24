"""Keeps the time of tests in view: a table of seconds by folder after each run, and a bound for long ones."""

import time
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

# whoever imports them first, their assertions are to tell what they compared
pytest.register_assert_rewrite("tests.clauses", "tests.mixers.contract", "tests.models.contract")

# a folder of tests is worth a look above this
SECONDS = 15
ROWS = 20

_spent: Counter[str] = Counter()
_begun = time.monotonic()


def pytest_addoption(parser):
    parser.addoption(
        "--within",
        type=float,
        metavar="MINUTES",
        help="leave out, and name, the tests whose turn comes later than this",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep to one process the tests that share what their module makes once, so that it is made once."""
    # by this hook, not by groups: what xdist 3.8 adds to a test's name for them, pytest 9.2 no longer reads
    from xdist.scheduler import LoadScopeScheduling

    class Sharing(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file, _, test = nodeid.partition("::")
            shares, by_parameter = made_once(config.rootpath / file)
            return nodeid if not shares else file + test[test.find("[") :] * by_parameter

    return Sharing(config, log)


@cache
def made_once(module: Path) -> tuple[bool, bool]:
    """Whether the tests of a module share a fixture, and whether one for each parameter."""
    text = module.read_text()
    return 'scope="module"' in text, 'scope="module", params=' in text


def pytest_runtest_setup(item):
    minutes = item.config.getoption("--within")
    if minutes is not None and time.monotonic() - _begun > 60 * minutes:
        pytest.skip(f"its turn came after --within {minutes:g} minutes")


def pytest_runtest_logreport(report):
    folder = Path(report.nodeid.partition("::")[0])
    # a mechanism has a folder or a file of its own below its layer's
    _spent["/".join(folder.parts[:3]) if len(folder.parts) > 3 else str(folder)] += report.duration


def pytest_terminal_summary(terminalreporter):
    total = sum(_spent.values())
    if total < SECONDS:
        return
    terminalreporter.section(f"{total:.0f} s of tests; folders and files above {SECONDS} s")
    for name, seconds in _spent.most_common(ROWS):
        if seconds > SECONDS:
            terminalreporter.write_line(f"{seconds:7.1f} s  {name}")
