"""The network of a run, by any name that timm knows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qna._core.errors import InvalidInput, check_choice
from qna._core.tensor_file import read_tensors
from qna.adapters import adapter, from_pretrained
from qna.models import create
from qna.models.registry import takes
from qna.models.shared_folder import LOCAL, WEIGHTS, read_config
from qna.train.config import NetworkOptions
from qna.train.fitting import check_numbers
from qna.train.weights import load_start, read_weights, start_from, without_classifier

# arguments of models that options of their own or the data set -> what does
ELSEWHERE = {
    "num_classes": "it follows from the data",
    "in_chans": "it follows from the data",
    "img_size": "use image_size",
    "image_size": "use image_size",
    "drop_path_rate": "use drop_path",
    "pretrained": "use pretrained",
}


def prepare_network(network: nn.Module, options: NetworkOptions) -> nn.Module:
    """Do to a network what `options` say beside its name: first weights, frozen parts, memory.

    Raises:
        UnknownName: for a part to freeze that the network does not have, with the nearest names.
        InvalidInput: if the weights are of another network, or it has no gradient checkpointing.
    """
    # beside an adapter they were loaded when it came
    if options.weights is not None and not options.adapter:
        load_start(network, options.weights)
    freeze(network, options.freeze)
    if options.grad_checkpointing:
        if not hasattr(network, "set_grad_checkpointing"):
            raise InvalidInput(f"model {options.model!r} has no gradient checkpointing")
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    if options.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def create_network(
    options: NetworkOptions,
    *,
    classes: int | None = None,
    channels: int | None = None,
    image_size: int | None = None,
) -> nn.Module:
    """Make the network that `options` name; None is what the model takes by itself.

    Raises:
        UnknownName: for a model that timm does not know, with the nearest names.
        InvalidInput: if the model refuses the options.
    """
    wanted = {
        "num_classes": classes,
        "in_chans": channels,
        "pretrained": options.pretrained or None,
        # others read any size
        "img_size": image_size if takes(options.model, "img_size") else None,
    }
    arguments = {name: value for name, value in wanted.items() if value is not None}
    arguments |= common_arguments(options)
    folder = Path(options.model.removeprefix(LOCAL))
    whole = options.model.startswith(LOCAL) and options.pretrained
    if whole:
        _check_weights(folder / WEIGHTS)
    if whole and read_config(folder).qna_adapters:
        del arguments["pretrained"]
        network = from_pretrained(folder, **arguments).train()
    else:
        network = create(options.model, **arguments)
    return adapted(network, options)


def adapted(network: nn.Module, options: NetworkOptions) -> nn.Module:
    """Put the adapters of `options`, if any, around a network, and load the weights that it is to start from.

    Those of the bare network, or of one that holds the first of the adapters, are loaded before what may take
    over what it replaces.
    """
    if not options.adapter:
        return network
    path = options.weights
    start = None if path is None else read_weights(path)
    for name, arguments in options.adapters():
        chosen = adapter(name, **arguments)
        if path is not None and start is not None and _same_names(network, start):
            start_from(network, start, path)
            start = None
        network = chosen.apply(network)
    if path is not None and start is not None:
        start_from(network, start, path)
    return network


def _same_names(network: nn.Module, given: Iterable[str]) -> bool:
    """Whether `given` names what the network has, beside its classifier."""
    return without_classifier(network, given) == without_classifier(network, network.state_dict())


def common_arguments(options: NetworkOptions) -> dict[str, Any]:
    """Arguments of a model that follow from the options alone, whatever it is for.

    Raises:
        InvalidInput: if model_kwargs set what has an option of its own or follows from the data.
    """
    own = options.model_arguments()
    for name in own:
        if name in ELSEWHERE:
            raise InvalidInput(f"model_kwargs cannot set {name}: {ELSEWHERE[name]}")
    return own if options.drop_path is None else {"drop_path_rate": options.drop_path, **own}


def _check_weights(path: Path) -> None:
    """Refuse weights in a folder of timm's that are damaged, before timm reads them without a limit."""
    if not path.is_file():
        return
    try:
        tensors, _ = read_tensors(path)
    except (OSError, InvalidInput) as error:
        raise InvalidInput(f"{path} cannot be read as weights: {error}") from None
    for name, tensor in tensors.items():
        if tensor.is_complex() or tensor.dtype is torch.int8:
            raise InvalidInput(f"{path}: {name!r} holds {str(tensor.dtype).removeprefix('torch.')}")
    check_numbers(tensors, path)


def refuse_adapter(options: NetworkOptions, task: str) -> None:
    """Raise `InvalidInput` where an adapter is named for what is no classifier."""
    if options.adapter:
        raise InvalidInput(
            f"--adapter {options.adapter[0]} is put around classifiers, and this is {task}; leave it out"
        )


def try_network(network: nn.Module, model: str, channels: int, size: tuple[int, int]) -> None:
    """Let the network read one image, so that a size which it refuses is said now and in one sentence."""
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, channels, *size))
    except (AssertionError, RuntimeError, ValueError) as error:
        shown = f"{size[0]}x{size[1]}"
        raise InvalidInput(f"model {model!r} cannot read images of {shown}: {error}") from error
    finally:
        network.train()


def freeze(network: nn.Module, parts: tuple[str, ...]) -> None:
    """Let the named parts keep their weights.

    Args:
        network: changed in place.
        parts: names of modules or parameters.

    Raises:
        UnknownName: for a part that is not there.
        InvalidInput: if nothing would be left to train.
    """
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    for part in parts:
        check_choice("part to freeze", part, [*filter(None, modules), *parameters])
        for parameter in modules[part].parameters() if part in modules else [parameters[part]]:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in parameters.values()):
        raise InvalidInput(f"freezing {', '.join(parts)} leaves nothing to train")


def train_mode(network: nn.Module) -> None:
    """Put `network` in training mode, all but frozen parts: they keep their statistics."""
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
