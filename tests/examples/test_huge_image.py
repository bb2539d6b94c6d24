import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "huge_image.py"


@pytest.mark.slow
def test_runs_at_a_small_size():
    options = ["--side", "203", "--tile", "64"]
    run = subprocess.run([sys.executable, EXAMPLE, *options], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "qna_vit_nano_16 on 203 x 203 pixels: 16 tiles" in run.stdout
    assert "largest difference to the corner in one piece: " in run.stdout
