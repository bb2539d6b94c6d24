"""What an import costs: `import qna` loads torch at most, `qna --help` not even that."""

import subprocess
import sys

import pytest

HEAVY = {"timm", "torchvision", "matplotlib", "accelerate", "sklearn", "triton", "rich", "tyro"}


def loaded_after(code):
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name.split(".")[0] for name in run.stdout.split()}


@pytest.mark.parametrize("code", ["import qna", "from qna import learned_query_attention"])
def test_import_qna_loads_nothing_heavier_than_torch(code):
    torch_alone = loaded_after("import torch")
    assert not (loaded_after(code) & HEAVY) - torch_alone


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
