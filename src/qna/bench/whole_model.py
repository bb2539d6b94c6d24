"""Whole image models by timm's name: inference and training steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qna._core.backends import use_backend
from qna._core.errors import UnknownName
from qna.bench.gate import WrongOutput, check
from qna.bench.peers.contender import FORWARD
from qna.bench.peers.from_timm import timm_module

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

    Args:
        name: as timm knows it; this library's models are registered there.
        setting: the images.

    Raises:
        UnknownName: timm does not know the model.
    """

    def __init__(self, name: str, setting: ModelSetting):
        self.setting = setting
        self.device = torch.device(setting.device)
        dtype = getattr(torch, setting.dtype)
        torch.manual_seed(0)
        self.model = create(name, setting.size).to(self.device, dtype)
        generator = torch.Generator().manual_seed(0)
        shape = (setting.batch, 3, setting.size, setting.size)
        self.images = torch.randn(shape, generator=generator).to(self.device, dtype)
        self.labels = torch.arange(setting.batch, device=self.device)
        parameters = sum(p.numel() for p in self.model.parameters())
        self.extra: dict[str, Any] = {"parameters": parameters}
        self.optimizer: torch.optim.Optimizer | None = None

    def verify(self, mode: str) -> None:
        """Logits of the first image against the same model in fp64 by the reference backend.

        For a step also: every parameter gets a finite gradient.
        """
        exact = copy.deepcopy(self.model).double().eval()
        self.model.eval()
        with torch.no_grad():
            found = self.model(self.images)[:1]
            with use_backend("reference"):
                expected = exact(self.images[:1].double())
        depth = sum(1 for m in self.model.modules() if isinstance(m, nn.Linear | nn.Conv2d))
        check("logits", found, expected, terms=depth * 1000, dtype=found.dtype)
        if mode == STEP:
            self.call(STEP)()
            for name, p in self.model.named_parameters():
                if p.grad is None or not bool(p.grad.isfinite().all()):
                    raise WrongOutput(f"parameter {name} has no finite gradient")

    def call(self, mode: str) -> Callable[[], object]:
        """Inference on the batch, or one step: forward, cross-entropy, backward, AdamW."""
        if mode == FORWARD:
            self.model.eval()
            return torch.inference_mode()(lambda: self.model(self.images))
        self.model.train()
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        return self._step

    def _step(self) -> None:
        assert self.optimizer
        self.optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(self.model(self.images), self.labels).backward()
        self.optimizer.step()


def check_names(names: Iterable[str]) -> None:
    """Raise `UnknownName` for the first that timm does not know."""
    timm = timm_module("timm")
    for name in names:
        if not timm.is_model(name):
            raise UnknownName("model", name, timm.list_models())


def create(name: str, size: int) -> nn.Module:
    """The model for images of `size`; models of one fixed size are built for it."""
    check_names([name])
    timm = timm_module("timm")
    try:
        return timm.create_model(name, img_size=size)
    except TypeError:
        # convolutional models take any size and no such argument
        return timm.create_model(name)
