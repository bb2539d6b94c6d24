"""docs/windows.md: what it shows runs as it stands."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "windows.md"


def test_its_python_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 4
    names = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == [
        "WindowAttention2d",
        "ShiftedWindowAttention2d",
        "HaloAttention2d",
        "StandAloneAttention2d",
    ]
