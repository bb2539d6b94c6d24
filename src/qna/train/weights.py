"""Files of weights, from here and elsewhere: which tensors they hold, and whether a network can take them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna._core.state_dict import bare, read_state_dict, say_which_average
from qna._core.tensor_file import read_tensors
from qna.train.checkpoint import SHARDED_CHECKPOINT
from qna.train.fitting import load_whole


def load_start(network: nn.Module, path: Path) -> None:
    """Start from the weights in `path`; a classifier for another number of classes keeps its fresh weights.

    Args:
        network: changed in place.
        path: as for `read_weights`.

    Raises:
        InvalidInput: if the file cannot be read, or its first tensor that does not fit.
    """
    start_from(network, read_weights(path), path)


def start_from(network: nn.Module, given: dict[str, Tensor], path: Path) -> None:
    """`load_start` with the tensors that were read from `path`."""
    own = network.state_dict()
    for head in classifier_names(network):
        names = [name for name in own if name.startswith(f"{head}.")]
        # a part that is missing is no other number of classes
        if any(name in given and given[name].shape != own[name].shape for name in names) or not any(
            name in given for name in names
        ):
            given |= {name: own[name] for name in names}
    load_whole(network, given, path)


def without_classifier(network: nn.Module, names: Iterable[str]) -> set[str]:
    """Those of `names` that are not of the network's classifier."""
    heads = tuple(f"{head}." for head in classifier_names(network))
    return {name for name in names if not name.startswith(heads)}


def classifier_names(network: nn.Module) -> tuple[str, ...]:
    """Names of the layers that end in the logits, as timm's configuration of the network tells."""
    named = getattr(network, "default_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name.

    Where a checkpoint holds a running average beside the weights, the average is taken, and a line of the log
    "qna" says so.

    Args:
        path: a safetensors file, a run's checkpoint among them (with shards: its checkpoint.json), or a torch
            file of tensors: a state dict, one in a checkpoint under "state_dict" or "model", or what timm's
            train.py writes. Nothing but tensors, plain values and an argparse.Namespace is unpickled.

    Raises:
        InvalidInput: if the file cannot be read, or holds anything else.
    """
    try:
        if path.name == SHARDED_CHECKPOINT:
            from qna.train.sharded_checkpoint import read_shards

            tensors = read_shards(path)
        elif path.suffix == ".safetensors":
            tensors, _ = read_tensors(path)
        else:
            tensors = read_state_dict(path)
    except Exception as error:  # what a damaged file makes of the readers is not listed anywhere
        kind = "" if isinstance(error, InvalidInput) else f"{type(error).__name__}: "
        cause = " ".join(str(error).split())
        raise InvalidInput(f"{path} cannot be read as weights: {kind}{cause}") from None
    return _of_run({bare(name): tensor for name, tensor in tensors.items()}, path)


def _of_run(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights that a run's checkpoint would evaluate; any other file's tensors as they are."""
    parts = ("average/", "network/")
    found = [part for part in parts if any(name.startswith(part) for name in tensors)]
    if not found:
        return tensors
    if len(found) > 1:
        say_which_average(path, "its average", "those that were trained")
    start = found[0]
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
