"""What a model may become while it is built, since its name and arguments may come from anybody's file.

A few bytes can ask for a million blocks, or for weights that no memory holds. Such a model is refused when it
passes a bound, not when the machine has given up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from qna._core.errors import InvalidInput

# timm's largest have two thousand; one takes about 20 KiB without its weights
MODULES = 2**13
# classes apart; a network that is so deep makes lists as long before its first module
NUMBER = 2**17

_bytes_of_file: ContextVar[int | None] = ContextVar("bytes_of_file", default=None)


@contextmanager
def of_file(size: int) -> Iterator[None]:
    """Inside the block models are built whose weights are in a file of `size` bytes."""
    token = _bytes_of_file.set(size)
    try:
        yield
    finally:
        _bytes_of_file.reset(token)


@contextmanager
def bounded_building() -> Iterator[None]:
    """Inside the block this thread builds a model.

    Raises:
        InvalidInput: as soon as it has more modules than `MODULES`, parameters that this machine's memory
            does not hold, or more numbers in them than the file of its weights has bytes.
    """
    here, memory, size = threading.get_ident(), _memory(), _bytes_of_file.get()
    modules, numbers, taken = 0, 0, 0

    def count_module(*_: Any) -> None:
        nonlocal modules
        modules += threading.get_ident() == here  # the hooks are all threads'
        if modules > MODULES:
            raise InvalidInput(f"it would have more than {MODULES:,} modules")

    def count_parameter(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal numbers, taken
        # other types stand for tensors that are not there, as torch's fake ones do
        if threading.get_ident() != here or type(parameter) is not nn.Parameter:
            return
        numbers += parameter.numel()
        if size is not None and numbers > size:
            raise InvalidInput(f"its weights would be more numbers than the {size:,} bytes of their file")
        if parameter.device.type == "cpu":
            taken += parameter.numel() * parameter.element_size()
        if taken > memory:
            raise InvalidInput(
                f"its weights would take more than the {memory:,} bytes of memory that are here"
            )

    hooks = [
        register_module_module_registration_hook(count_module),
        register_module_parameter_registration_hook(count_parameter),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_arguments(model: str, arguments: Mapping[str, Any]) -> None:
    """Check the integers in the arguments of a model, however they are nested; classes may be any number.

    Raises:
        InvalidInput: one of them is larger than `NUMBER`.
    """
    for name, value in arguments.items():
        if name != "num_classes" and any(abs(number) > NUMBER for number in _integers(value)):
            raise InvalidInput(f"argument {name} of model {model} must have numbers of at most {NUMBER:,}")


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict | tuple | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _integers(part)


def _memory() -> int:
    """Bytes of memory that this machine has; where it does not tell, more than any has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**62
