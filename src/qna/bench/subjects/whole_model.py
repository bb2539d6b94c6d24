"""Whole image models by timm's name: inference, with a backward pass, and training steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.backends import use_backend
from qna._core.errors import UnknownName
from qna.bench.measure.contender import BACKWARD, FORWARD
from qna.bench.measure.gate import WrongOutput, check
from qna.bench.subjects.peers.compiled import compiled
from qna.bench.subjects.peers.from_timm import timm_module

STEP = "step"


@dataclass(frozen=True)
class ModelSetting:
    """A batch of square images."""

    batch: int
    size: int
    dtype: str = "float32"
    device: str = "cpu"


class ModelWork:
    """A model with random weights on random images.

    Inference has weights and images in the setting's dtype. A training step in half precision has them in
    fp32 under autocast, as one would train, without loss scaling. On a GPU images and the weights of
    convolutions lie channels-last, the layout in which cuDNN is fastest in half precision.

    Args:
        name: as timm knows it; this library's models are registered there.
        setting: the images.
        arguments: of the model, beside the size of its images.
        adapter: what is put around it, by "name" and "arguments", or None.
        compile: whether it runs under torch.compile, in its default mode.

    Raises:
        UnknownName: timm does not know the model.
        InvalidInput: the adapter does not suit the model.
    """

    # one call is thousands of kernels, and users run models by eager calls
    recordable = False

    def __init__(
        self,
        name: str,
        setting: ModelSetting,
        *,
        arguments: Mapping[str, Any] | None = None,
        adapter: Mapping[str, Any] | None = None,
        compile: bool = False,
    ):
        self.setting = setting
        self.device = torch.device(setting.device)
        self.dtype: torch.dtype = getattr(torch, setting.dtype)
        torch.manual_seed(0)
        self.model = create(name, setting.size, **(arguments or {}))
        # whether some parameters get no gradient in some updates
        self.rests = False
        if adapter is not None:
            # a worker that measures an older commit may find no adapters in it
            from qna.adapters.registry import ADAPTERS, again

            self.model = again(self.model, [adapter], "the question")
            self.rests = getattr(ADAPTERS[adapter["name"]], "rests", False)
        self.model.to(self.device)
        generator = torch.Generator().manual_seed(0)
        shape = (setting.batch, 3, setting.size, setting.size)
        self.images = torch.randn(shape, generator=generator).to(self.device)
        if self.device.type != "cpu":
            self.images = self.images.contiguous(memory_format=torch.channels_last)
            for module in self.model.modules():
                if isinstance(module, nn.Conv2d):
                    weight = module.weight
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        # models may have parts that make no graph; what they compile in pieces is still theirs
        self.run = compiled(self.model, setting.device, fullgraph=False) if compile else self.model
        self.labels = torch.arange(setting.batch, device=self.device)
        parameters = sum(p.numel() for p in self.model.parameters())
        self.extra: dict[str, Any] = {"parameters": parameters, "compiled": compile}
        if adapter is not None:
            self.extra["adapter"] = adapter
        self.optimizer: torch.optim.Optimizer | None = None

    def verify(self, mode: str) -> None:
        """Logits of the first image against the same model in fp64 by the reference backend.

        For a step, and its backward pass alone, also: every parameter gets a finite gradient that is not
        frozen, and that the adapter does not let rest. The logits are
        then those of the eager form: what is compiled for inference is not what a step runs.
        """
        self._prepare(mode)
        self.model.eval()
        if mode == FORWARD:
            found = self._infer()[:1]
        else:
            with torch.no_grad(), self._autocast():
                found = self.model(self.images[:1])
        exact = copy.deepcopy(self.model).double().eval()
        with torch.no_grad(), use_backend("reference"):
            expected = exact(self.images[:1].double())
        depth = sum(1 for m in self.model.modules() if isinstance(m, nn.Linear | nn.Conv2d))
        check("logits", found, expected, terms=depth * 1000, dtype=self.dtype)
        if mode != FORWARD:
            self.call(mode)()
            for name, p in self.model.named_parameters():
                if p.grad is None and (self.rests or not p.requires_grad):
                    continue
                if p.grad is None or not bool(p.grad.isfinite().all()):
                    raise WrongOutput(f"parameter {name} has no finite gradient")

    def call(self, mode: str) -> Callable[[], object]:
        """Inference on the batch, or one step: forward, cross-entropy, backward and, of a step, AdamW.

        Losses that the model returns beside its output are added to the cross-entropy, as training adds them.
        """
        self._prepare(mode)
        if mode == FORWARD:
            self.model.eval()
            return self._infer
        self.model.train()
        if mode == BACKWARD:
            return self._backward
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        return self._step

    @torch.inference_mode()
    def _infer(self) -> Tensor:
        return self.run(self.images)

    def _backward(self) -> None:
        self.model.zero_grad(set_to_none=True)
        with self._autocast():
            output = self.run(self.images)
            # `WithLosses`, asked by field: an older package that is measured may not have it
            beside = getattr(output, "losses", None)
            logits = output if beside is None else output.output
            loss = F.cross_entropy(logits, self.labels) + sum((beside or {}).values())
        loss.backward()

    def _step(self) -> None:
        assert self.optimizer
        self._backward()
        self.optimizer.step()

    def _prepare(self, mode: str) -> None:
        """Weights and images in the dtype of a mode."""
        dtype = torch.float32 if mode != FORWARD and self.dtype.itemsize < 4 else self.dtype
        self.model.to(dtype)
        self.images = self.images.to(dtype)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype.itemsize < 4)


def check_names(names: Iterable[str]) -> None:
    """Raise `UnknownName` for the first that timm does not know."""
    # timm itself is asked, as a worker that measures an older commit may find no resolver of names in it
    timm = timm_module("timm")
    for name in names:
        if not timm.is_model(name):
            raise UnknownName("model", name, timm.list_models())


def create(name: str, size: int, **arguments: Any) -> nn.Module:
    """The model for images of `size`; models of one fixed size are built for it."""
    check_names([name])
    timm = timm_module("timm")
    try:
        return timm.create_model(name, img_size=size, **arguments)
    except TypeError:
        # convolutional models take any size and no such argument
        return timm.create_model(name, **arguments)
