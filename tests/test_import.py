"""What an import costs: `import qna` loads torch at most, `qna --help` not even that."""

import subprocess
import sys

HEAVY = {"timm", "torchvision", "matplotlib", "accelerate", "sklearn", "triton", "rich", "tyro"}


# what each step loads beyond torch and what torch brings, a line each
STEPS = """
import sys, torch
before = set(sys.modules)
import qna
print(*sys.modules.keys() - before)
from qna import learned_query_attention
print(*sys.modules.keys() - before)
"""


def test_import_qna_loads_nothing_heavier_than_torch():
    run = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    for line in run.stdout.splitlines():
        loaded = {name.split(".")[0] for name in line.split()}
        assert "qna" in loaded
        assert not loaded & HEAVY


WITHOUT_TRITON = """
import sys, torch
sys.modules["triton"] = None
from qna import QnA2d
print(QnA2d(8, num_heads=2, kernel_size=3)(torch.zeros(1, 4, 4, 8)).shape)
from qna.cli import doctor
doctor.main([])
"""


def test_without_triton_layers_run_silently_and_doctor_names_it():
    run = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("torch.Size([1, 4, 4, 8])")
    assert "triton is not installed: pip install triton" in run.stdout
    assert "triton" not in run.stderr


def test_help_does_not_load_torch():
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "qna", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage: qna COMMAND" in run.stdout
    assert not [line for line in run.stderr.splitlines() if line.split("|")[-1].strip() == "torch"]


def test_unknown_command_names_the_nearest():
    run = subprocess.run([sys.executable, "-m", "qna", "docter"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.strip() == "qna: unknown command 'docter'; did you mean 'doctor'?"
