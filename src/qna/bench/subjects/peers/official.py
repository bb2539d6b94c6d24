"""The authors' JAX layer, from a checkout of their code and a Python that has JAX; nothing of it is here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

import qna
from qna._core.errors import InvalidInput
from qna.bench.measure import gate, memory
from qna.bench.measure.contender import BACKWARD, Contender, Setting
from qna.bench.measure.lines import Lines
from qna.bench.measure.remote import RemoteProvider
from qna.bench.subjects.peers.two_convolutions import declines, layer_at, layer_leaves

NAME = "official"


@dataclass(frozen=True)
class Checkout:
    """Where the authors' code and a Python with JAX are."""

    path: Path
    python: Path

    def __post_init__(self) -> None:
        if not (self.path / "layers" / "qna.py").is_file():
            raise InvalidInput(
                f"--official {self.path} has no layers/qna.py; give a checkout of moabarar/qna"
            )
        if not self.python.is_file():
            raise InvalidInput(f"--official-python {self.python} is no file; give a Python with jax and flax")


class OfficialLayers:
    """The processes that run the authors' layer, one per number of threads; a context manager.

    Args:
        checkout: their code; None gives a provider that says what is missing.
    """

    def __init__(self, checkout: Checkout | None):
        self.checkout = checkout
        self._folder = tempfile.TemporaryDirectory(prefix="qna-official-")
        self._processes: dict[tuple[int, bool], Lines] = {}

    def provider(self, case: str, setting: Setting, level: str, threads: int) -> RemoteProvider:
        """The layer at a setting."""

        def refuses(mode: str) -> str | None:
            if self.checkout is None:
                return "give --official CHECKOUT and --official-python PYTHON"
            if level == "op":
                return "a whole layer: see `qna bench layer`"
            if setting.device != "cpu" or setting.dtype != "float32":
                return f"compared in float32 on CPU, got {setting.dtype} on {setting.device}"
            return declines(setting, level, mode)

        processes = self._process(threads, probing=False), self._process(threads, probing=True)
        folder = Path(self._folder.name)
        return OfficialLayer(setting, folder, case, processes, threads=threads, refuses=refuses)

    def __enter__(self) -> OfficialLayers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.close()
        self._folder.cleanup()

    def _process(self, threads: int, *, probing: bool) -> Lines:
        if (threads, probing) not in self._processes:
            # without a checkout no provider asks
            command = ["none"]
            if self.checkout is not None:
                script = Path(__file__).with_name("official_child.py")
                command = [str(self.checkout.python), str(script), str(self.checkout.path), str(threads)]
            environment = {"PYTHONPATH": str(Path(qna.__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
            environment |= memory.RETURN_FREED_BLOCKS if probing else memory.KEEP_FREED_BLOCKS
            self._processes[threads, probing] = Lines(command, environment)
        return self._processes[threads, probing]


class OfficialLayer(RemoteProvider):
    """Leaves go to the process as a file, outputs come back as one: they are checked here."""

    # the leaves are there once `verify` has written them
    apart = False

    def __init__(
        self,
        setting: Setting,
        folder: Path,
        case: str,
        processes: tuple[Lines, Lines],
        *,
        threads: int,
        refuses: Callable[[str], str | None],
    ):
        self.setting = setting
        self.folder = folder
        question = {"leaves": str(folder / "leaves.npz"), "setting": asdict(setting)}
        extra = {"by": "jax"}
        super().__init__(NAME, case, question, processes, threads=threads, refuses=refuses, extra=extra)

    def verify(self, mode: str) -> None:
        """Compare what the process computes with the definition here."""
        leaves = layer_leaves(self.setting)
        contender = contender_elsewhere(self.setting, leaves)
        at = gate.positions(leaves["x"])
        sample = torch.randn(len(at), self.setting.dim, generator=torch.Generator().manual_seed(1))
        gradient = torch.zeros_like(leaves["x"])
        gradient[at[:, 0], at[:, 1], at[:, 2]] = sample
        _save(self.folder / "leaves.npz", {**leaves, "gradient": gradient})
        # the process reads the leaves again when it is asked to verify
        import numpy as np

        found_at = self.folder / "found.npz"
        self.timing.ask(do="verify", question=self.question, mode=mode, found=str(found_at))
        found = {name: torch.from_numpy(a) for name, a in np.load(found_at).items()}
        gate.check_arrays(found, contender, at, sample if mode == BACKWARD else None)


def contender_elsewhere(setting: Setting, leaves: dict[str, Tensor]) -> Contender:
    """The leaves and the definition of a contender that runs in another process."""

    def forward() -> Tensor:
        raise RuntimeError("runs in another process")

    terms = setting.window**2 + 3 * setting.dim
    return Contender(forward, leaves, lambda given, at: layer_at(setting, given, at), terms)


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    import numpy as np

    arrays: dict[str, Any] = {name: t.detach().numpy() for name, t in tensors.items()}
    np.savez(path, **arrays)
