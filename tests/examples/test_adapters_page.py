"""docs/adapters.md: its code runs, its commands are read, and every adapter has a section."""

import re
import shlex
from pathlib import Path

from qna.adapters import ADAPTERS, adapter
from qna.cli.train import parse

PAGE = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")


def test_its_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    assert "stages.0.blocks.0.conv_dw: QnA2d, kept" in capsys.readouterr().out


def test_its_commands_are_read():
    commands = re.findall(r"^    qna train (.*?[^\\])$", PAGE, re.DOTALL | re.MULTILINE)
    assert commands
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "))
        network = parse(["digits" if word == "photos/" else word for word in words]).network
        assert network.adapters()
        for name, arguments in network.adapters():
            adapter(name, **arguments)


def test_every_adapter_has_a_section():
    assert re.findall(r"^## .*`(\w+)`$", PAGE, re.MULTILINE) == [*ADAPTERS]
