"""What this machine has, what is missing, and what would make qna faster here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence

from qna._core.backends import Backend

_PACKAGES = {
    "base": ("torch",),
    "models": ("timm", "torchvision", "safetensors", "msgpack"),
    "train": ("accelerate", "tyro", "rich", "scikit-learn", "matplotlib"),
    "gpu": ("triton",),
}


def report(ops: Mapping[str, Sequence[Backend]]) -> str:
    """Versions, devices, and every backend of every op with what it lacks, as text for a bug report."""
    import torch

    from qna._core.third_party import vision_mismatch

    cpu = torch.backends.cpu.get_cpu_capability()
    lines = [
        f"qna {_version('qna')}",
        f"python {platform.python_version()} on {platform.system()} {platform.machine()}",
        f"cpu: {os.cpu_count()} cores, {cpu}, torch uses {torch.get_num_threads()} threads",
        *(
            [f"gpu: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
            or ["gpu: none that torch sees"]
        ),
        "packages:",
    ]
    for extra, names in _PACKAGES.items():
        found = ", ".join(f"{name} {_version(name)}" for name in names)
        lines.append(f"  {extra:<7} {found}")
    mismatch = vision_mismatch()
    if mismatch is not None:
        lines.append(f"  note: {mismatch}")
    for op, backends in ops.items():
        lines.append(f"{op}, fastest first:")
        for backend in backends:
            missing = backend.missing()
            lines.append(f"  {backend.name:<10} {'ready' if not missing else '; '.join(missing)}")
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
