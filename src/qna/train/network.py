"""The network of a run, by any name that timm knows."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from qna._core.errors import InvalidInput, check_choice, require
from qna.models import create
from qna.models.registry import takes
from qna.train.checkpoint import SHARDED_CHECKPOINT
from qna.train.config import NetworkOptions

# arguments of models that options of their own or the data set -> what does
ELSEWHERE = {
    "num_classes": "it follows from the data",
    "in_chans": "it follows from the data",
    "img_size": "use image_size",
    "image_size": "use image_size",
    "drop_path_rate": "use drop_path",
    "pretrained": "use pretrained",
}


def build_network(options: NetworkOptions, *, classes: int, channels: int, image_size: int) -> nn.Module:
    """Return the network: (B, channels, image_size, image_size) -> (B, classes).

    Raises:
        UnknownName: for a model that timm does not know, or a part to freeze that the network does not have,
            with the nearest names.
        InvalidInput: if the model refuses the options, or the weights are of another network.
    """
    network = create_network(options, classes=classes, channels=channels, image_size=image_size)
    if options.weights is not None:
        load_start(network, options.weights)
    freeze(network, options.freeze)
    if options.grad_checkpointing:
        if not hasattr(network, "set_grad_checkpointing"):
            raise InvalidInput(f"model {options.model!r} has no gradient checkpointing")
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    if options.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try_network(network, options.model, channels, image_size)
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
        "drop_path_rate": options.drop_path,
        "pretrained": options.pretrained or None,
        # others read any size
        "img_size": image_size if takes(options.model, "img_size") else None,
    }
    own = options.model_arguments()
    for name in own:
        if name in ELSEWHERE:
            raise InvalidInput(f"model_kwargs cannot set {name}: {ELSEWHERE[name]}")
    arguments = {name: value for name, value in wanted.items() if value is not None} | own
    return create(options.model, **arguments)


def try_network(network: nn.Module, model: str, channels: int, image_size: int) -> None:
    """Let the network read one image, so that a size which it refuses is said now and in one sentence."""
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, channels, image_size, image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        size = f"{image_size}x{image_size}"
        raise InvalidInput(f"model {model!r} cannot read images of {size}: {error}") from error
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


def load_start(network: nn.Module, path: Path) -> None:
    """Start from the weights in `path`; a classifier for another number of classes keeps its fresh weights.

    Args:
        network: changed in place.
        path: a safetensors file, a run's checkpoint among them (with shards: its checkpoint.json), or a torch
            file that holds tensors only.

    Raises:
        InvalidInput: if the file cannot be read, or its first tensor that does not fit.
    """
    given, own = read_weights(path), network.state_dict()
    heads = classifier_names(network)
    for name in own:
        is_head = any(name.startswith(f"{head}.") for head in heads)
        if is_head and (name not in given or given[name].shape != own[name].shape):
            given[name] = own[name]
    for name in [*own, *given]:
        if name not in given:
            raise InvalidInput(f"{path} has no tensor {name!r}")
        if name not in own:
            raise InvalidInput(f"{path} has a tensor {name!r} that the network does not have")
        if given[name].shape != own[name].shape:
            shapes = f"{tuple(given[name].shape)}, the network's is {tuple(own[name].shape)}"
            raise InvalidInput(f"{path}: the shape of {name!r} is {shapes}")
    network.load_state_dict(given)


def classifier_names(network: nn.Module) -> tuple[str, ...]:
    """Names of the layers that end in the logits, as timm's configuration of the network tells."""
    named = getattr(network, "default_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a weights file by name; of a run's checkpoint, those that it would evaluate.

    Raises:
        InvalidInput: if the file cannot be read, or holds anything else.
    """
    torch_format = require("safetensors.torch", extra="train", purpose="loading weights")
    try:
        if path.suffix == ".safetensors":
            return _of_checkpoint(torch_format.load_file(path))
        if path.name == SHARDED_CHECKPOINT:
            from qna.train.sharded_checkpoint import read_shards

            return _of_checkpoint(read_shards(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes of the readers is not listed anywhere
        raise InvalidInput(f"{path} cannot be read as weights: {type(error).__name__}: {error}") from None
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(v, torch.Tensor) for v in loaded.values()):
        raise InvalidInput(f"{path} must hold tensors by name, got {type(loaded).__name__}")
    return loaded


def _of_checkpoint(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights that a run's checkpoint would evaluate; any other file's tensors as they are."""
    for part in ("average/", "network/"):
        found = {name.removeprefix(part): t for name, t in tensors.items() if name.startswith(part)}
        if found:
            return found
    return tensors
