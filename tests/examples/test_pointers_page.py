"""docs/pointers.md: its code runs, and gives what it says."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "pointers.md").read_text(encoding="utf-8")


def test_the_code_of_the_page():
    found = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "pointers.md", "exec"), found)
    batch = found["batch"]
    assert batch.points.shape == (16, 10, 2)
    assert all(p.grad is not None for p in found["network"].parameters())
    assert found["found"].answers.shape[0] == 16
    assert 0 <= found["score"].exact <= 1
    assert all(sorted(tour) == list(range(6)) for tour in found["tour"].answers.tolist())
    assert found["where"].shape == (2, 3, 7, 5)
