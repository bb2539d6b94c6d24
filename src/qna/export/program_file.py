"""Modules as archives of torch.export, tried after they were read back."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from qna._core.files import write_whole
from qna.export.recording import fused, on_cpu, record
from qna.export.shapes import Shape, open_names, tried_sizes
from qna.export.trial import TOLERANCE, Exported, check_difference, largest_difference, outputs_of

METADATA = "metadata/"


def export_program(
    eager: nn.Module,
    path: Path | str,
    *shapes: Shape,
    sizes: Sequence[Mapping[str, int]] | None = None,
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[str], object] = lambda step: None,
) -> Exported:
    """Write the module `eager` as an archive of torch.export for inputs of any size, and try what it holds.

    Kernels of this package stay in it, by their names: whoever loads it imports `qna` first. Recorded inside
    ``use_backend("reference")`` it holds torch's own ops alone, and takes minutes for a network.

    Args:
        eager: the module, in evaluation mode and fp32.
        path: of the file.
        shapes: one per input, as for `export_onnx`.
        sizes: open sizes to try; None for two batches of maps that are no squares.
        metadata: kept in the archive's extra files, each under "metadata/" and its name.
        progress: told what is done, step by step.

    Raises:
        InvalidInput: the module is in training mode or not in fp32, cannot be recorded for open sizes, or the
            file would not compute the same.
        OSError: the file cannot be written.
    """
    path, eager = Path(path), on_cpu(eager)
    twin = fused(eager)
    sizes = tried_sizes(open_names(shapes)) if sizes is None else list(sizes)
    progress("recording the graph")
    recorded = record(twin, shapes, for_onnx=False)
    extra = {f"{METADATA}{name}": text for name, text in (metadata or {}).items()}
    what, difference, size = f"the archive {path.name}", 0.0, 0

    def write(temporary: Path) -> None:
        nonlocal difference, size
        # where a disk is full, torch's own writer ends the process
        archive = io.BytesIO()
        torch.export.save(recorded, archive, extra_files=extra)
        temporary.write_bytes(archive.getbuffer())
        progress("trying what is read back")
        with warnings.catch_warnings(), open(temporary, "rb") as file:
            warnings.simplefilter("ignore")  # torch's, of its own code
            run = partial(outputs_of, torch.export.load(file).module())
        difference, size = largest_difference(eager, run, shapes, sizes, what), temporary.stat().st_size
        check_difference(difference, TOLERANCE, what)

    write_whole(path, write)
    return Exported(path, "torch.export", tuple(sizes), difference, size)
