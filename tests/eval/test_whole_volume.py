"""A whole volume at 1 mm goes through a network within 2 GB, everything that is imported included."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("monai", reason="qna[volumes] brings it")

RUN = """
import json, resource, sys
import numpy as np
import qna.models
from qna.data.volumes import read_template
from qna.eval.volumes import VolumeSegmenter, segment_volume
from qna.models import create
from qna.models.volumes import SlidingWindows

network = SlidingWindows(create("daunet_nano"), (64, 64, 64), 0.1).eval()
segmenter = VolumeSegmenter("daunet_nano", network, ("ground", "lesion"), 1, None)
volume, told = read_template(1)["t1"], []
classes = segment_volume(segmenter, volume, told=told.append)
print(json.dumps({
    "shape": classes.shape,
    "windows": [len(told), network.windows(volume.grid.shape)],
    "bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
}))
"""


@pytest.mark.long
def test_a_whole_volume_within_2_gb():
    run = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["shape"] == [197, 233, 189]
    assert told["windows"][0] == told["windows"][1] > 40
    assert told["bytes"] < 2e9
