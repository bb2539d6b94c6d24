"""Whether tensors from a file are those of a network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from qna._core.errors import InvalidInput


def load_whole(network: nn.Module, given: Mapping[str, Tensor], source: object) -> None:
    """Give `network` exactly the tensors `given`, which came from `source`.

    Raises:
        InvalidInput: the first tensor that is missing, left over, of another shape or kind, or holds NaN.
    """
    check_fit(network.state_dict(), given, source)
    check_numbers(given, source)
    network.load_state_dict(dict(given))


def check_fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: object) -> None:
    """Check that `given` has the names, shapes and kinds of `own`, whose data are not looked at."""
    for name in [*own, *given]:
        if name not in given:
            raise InvalidInput(f"{source} has no tensor {name!r}")
        if name not in own:
            raise InvalidInput(f"{source} has a tensor {name!r} that the network does not have")
        if given[name].shape != own[name].shape:
            shapes = f"{tuple(given[name].shape)}, the network's is {tuple(own[name].shape)}"
            raise InvalidInput(f"{source}: the shape of {name!r} is {shapes}")
        if _kind(given[name]) != _kind(own[name]):
            kinds = f"{_short(given[name])}, the network's are {_short(own[name])}"
            raise InvalidInput(f"{source}: the numbers of {name!r} are {kinds}")


def _kind(tensor: Tensor) -> str:
    """Numbers of one kind are converted to each other, as those of half precision are."""
    if tensor.is_floating_point():
        return "real"
    return "complex" if tensor.is_complex() else "whole"


def _short(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def check_numbers(given: Mapping[str, Tensor], source: object) -> None:
    """Check that no tensor holds NaN.

    Raises:
        InvalidInput: the first that does.
    """
    for name, tensor in given.items():
        if tensor.is_floating_point() and tensor.isnan().any():
            raise InvalidInput(f"{source}: {name!r} holds NaN")
