"""Two processes that train an adapted network of which parts rest in some epochs."""

import json
import shlex

import pytest

from qna.train.checkpoint import load_tensors
from tests.train.processes import log, torchrun

pytestmark = [pytest.mark.slow, pytest.mark.long]

SPARSE = shlex.split(
    "-m qna train --data digits --model vit_tiny_patch16_224 --model-kwargs patch_size=8 embed_dim=24 "
    "depth=2 num_heads=3 --image-size 32 --batch-size 256 --epochs 3 --device cpu --threads 1 --ema 0.9 "
    "--adapter sparsifiner --adapter-args keep_rate=0.4 reduce_tokens=3 reconstruction_epochs=1"
)


def test_parts_that_rest_are_looked_for(tmp_path):
    run = torchrun(*SPARSE, "--out", tmp_path / "run")
    assert run.returncode == 0, run.stderr
    updates = [line for line in log(tmp_path / "run") if line["event"] == "update"]
    told = {line["epoch"]: {n for n in line if n.startswith("loss/")} for line in updates}
    assert told[1] == {"loss/attention_reconstruction"}
    assert told[2] == told[3] == {"loss/logits_distillation", "loss/token_distillation"}
    weights, _ = load_tensors(tmp_path / "run" / "model.safetensors")
    assert all(t.isfinite().all() for t in weights.values())
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"] == 3
