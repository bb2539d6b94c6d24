"""examples/upsample.py runs as its page says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "upsample.py"


@pytest.mark.slow
def test_learned_queries_soon_restore_more_than_bilinear_up_sampling():
    done = subprocess.run(
        [sys.executable, EXAMPLE, "--epochs", "3"], capture_output=True, text=True, check=True
    )
    told = re.fullmatch(r"bilinear (\d+\.\d\d) dB, learned queries (\d+\.\d\d) dB\n", done.stdout)
    assert told is not None, done.stdout
    assert float(told[2]) > float(told[1])
