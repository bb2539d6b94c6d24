"""What the registry knows of a family of models, and of one of its sizes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from qna._core.about import About

Size = TypeVar("Size", bound="Variant")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One size of a family; the family's own fields stand beside these.

    Attributes:
        parameters: exact count with the classes of timm's configuration, 1000 unless it says otherwise; None
            where a field was changed.
        image_size: pixels per axis that it is meant for.
    """

    parameters: int | None = None
    image_size: int = 224

    def varied(self: Size, arguments: Mapping[str, Any]) -> tuple[Size, dict[str, Any]]:
        """This variant with those of `arguments` that are its fields, and the arguments that are not."""
        own = {name: value for name, value in arguments.items() if name in self.settings()}
        others = {name: value for name, value in arguments.items() if name not in own}
        return (replace(self, **own, parameters=None) if own else self), others

    @classmethod
    def settings(cls) -> set[str]:
        """Names of the fields that a caller may change."""
        return {f.name for f in fields(cls)} - {"parameters"}


@dataclass(frozen=True)
class Authors:
    """How checkpoints of a family's authors are read, and written where that is possible.

    Attributes:
        suffix: of their files, ".msgpack".
        read: (file, name of the variant, arguments) -> the state dict.
        write: (file, state dict, name of the variant, arguments, source=where the state dict came from, for
            errors); None where nothing writes their format.
    """

    suffix: str
    read: Callable[[Path, str, Mapping[str, Any]], dict[str, Tensor]]
    write: Callable[..., None] | None = None


@dataclass(frozen=True)
class Family:
    """A family of models: one network in several sizes.

    Attributes:
        name: of the family.
        about: the published work.
        network: its class; ``network.of(variant, **arguments)`` makes a model, where arguments are the
            variant's fields and the constructor's keyword-only ones.
        variants: sizes by the name under which they are created.
        timm_cfg: of a variant: what timm's configuration says beside the common entries; among them
            "first_conv", "classifier", "pool_size" and "license".
        stages: of a variant: how many maps ``features_only`` gives.
        task: what the models are for.
        authors: how the authors' checkpoints are read; None where there are none that can be.
        leaves: kinds of modules that torch.fx must not look into, beside the mixers.
        exempt: clause of the models' contract -> why the family breaks it. An exemption that is no longer
            needed makes the test fail.
    """

    name: str
    about: About
    network: type[nn.Module]
    variants: Mapping[str, Any]
    timm_cfg: Callable[[Any], Mapping[str, Any]]
    stages: Callable[[Any], int]
    task: str = "classification"
    authors: Authors | None = None
    leaves: tuple[type[nn.Module], ...] = ()
    exempt: Mapping[str, str] = field(default_factory=dict)

    def build(
        self,
        variant: Variant,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **arguments: Any,
    ) -> nn.Module:
        """The model of a variant, changed by `arguments`, on `device` and of `dtype` where they are given."""
        with nullcontext() if device is None else torch.device(device):
            network = self.network.of(variant, **arguments)  # type: ignore[attr-defined]
            return network if dtype is None else network.to(dtype=dtype)

    def arguments(self, name: str) -> set[str]:
        """What `name` takes: its variant's fields, and the keyword-only arguments of network and `build`."""
        takes = [*_parameters(self.network), *_parameters(self.build)]
        # of a network that a variant describes, what its parts take
        if (parts := getattr(self.network, "parts", None)) is not None:
            takes += _parameters(parts)
        return self.variants[name].settings() | {p.name for p in takes if p.kind is p.KEYWORD_ONLY}


def _parameters(function: Callable[..., Any]) -> Iterable[inspect.Parameter]:
    return inspect.signature(function).parameters.values()
