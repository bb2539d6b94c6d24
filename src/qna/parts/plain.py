"""Whether a module is nothing but what its type says, so that its value may be computed another way."""

from __future__ import annotations

from typing import TypeGuard, TypeVar

from torch import nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

M = TypeVar("M", bound=nn.Module)


def is_plain(layer: nn.Module, kind: type[M]) -> TypeGuard[M]:
    """Whether calling `layer` computes what its type `kind` does, and nothing that others see or change.

    It is not where a tool has put another module in its place (adapters, quantised layers, parametrizations),
    hung a hook on it (pruning does) or on all modules (counters do), replaced its `forward`, or given it a
    parameter that is no plain tensor.
    """
    return (
        type(layer) is kind
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
        and not layer._backward_hooks
        and not layer._backward_pre_hooks
        and not _has_any_global_hook()
        and "forward" not in layer.__dict__
        and not any(map(is_traceable_wrapper_subclass, layer._parameters.values()))
    )
