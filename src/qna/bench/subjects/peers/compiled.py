"""torch.compile as every compiled peer uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable)

# a benchmark compiles one function per setting; the default of 8 is meant for one model
_LIMIT = 256


def compiled(function: F, device: str, *, fullgraph: bool = True) -> F:
    """Compile for static shapes, as one graph; on CPU without a pool of compile processes."""
    import torch
    import torch._dynamo
    import torch._inductor.config

    torch._dynamo.config.recompile_limit = max(_LIMIT, torch._dynamo.config.recompile_limit)
    if device == "cpu":
        torch._inductor.config.compile_threads = 1
    made: Any = torch.compile(function, fullgraph=fullgraph, dynamic=False)
    return made
