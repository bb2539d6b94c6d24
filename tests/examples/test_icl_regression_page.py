"""docs/icl-regression.md: its code runs, and gives what it says."""

import re
from pathlib import Path

from torch.nn.functional import mse_loss

PAGE = (Path(__file__).parents[2] / "docs" / "icl-regression.md").read_text(encoding="utf-8")


def test_the_code_of_the_page():
    found = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "icl-regression.md", "exec"), found)
    assert found["tokens"].shape == (1000, 40, 6)
    assert found["logits"].shape == found["step"].shape == (1000, 1)
    assert found["kq"].shape == (2, 6, 6)
    assert found["ov"].shape == (2, 1, 6)
    # the step explains most of the answers, whose variance is 1.1
    assert mse_loss(found["step"], found["answer"]) < 0.3
