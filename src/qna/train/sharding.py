"""A network in shards, a part of every weight in each process: PyTorch's FSDP2."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from qna._core.errors import InvalidInput, require
from qna.adapters.registry import has_resting_parts
from qna.train.config import TrainConfig

SEQUENCES = (nn.Sequential, nn.ModuleList)
WRITER = "HuggingFaceStorageWriter"


def check_sharding(config: TrainConfig, processes: int) -> None:
    """Check before anything is built that a run can be sharded.

    Raises:
        InvalidInput: with the way out.
    """
    if config.run.sharding == "none":
        return
    writer = getattr(require("torch.distributed.checkpoint", extra="train", purpose="sharding"), WRITER, None)
    if writer is None or "save_distributed" not in inspect.signature(writer).parameters:
        raise InvalidInput(
            "sharding fsdp needs a torch that writes shards as safetensors, as 2.13 does; "
            f"this is {torch.__version__}"
        )
    if processes == 1:
        raise InvalidInput(
            "sharding fsdp spreads the network over processes and this is the only one; start it with "
            "`torchrun --nproc-per-node N -m qna train ...`, or leave --sharding out"
        )
    refused = {
        "precision fp16": (config.run.precision == "fp16", "take bf16"),
        "channels_last": (config.network.channels_last, "shards are contiguous; leave it out"),
        "compile": (config.network.compile, "leave one of the two out"),
    }
    for option, (given, way_out) in refused.items():
        if given:
            raise InvalidInput(f"{option} cannot be used with sharding fsdp: {way_out}")


def shard(network: nn.Module, device: torch.device) -> None:
    """Keep of every parameter only this process's rows, in place: `fully_shard` per block and for the rest.

    A block's weights are gathered for its forward and its backward pass and let go after each; gradients and
    the optimizer's state stay sharded. Autocast works as without shards, on weights gathered in their own
    precision, so that a run's figures are those of DDP.

    Args:
        network: on `device`, with the same weights in every process.
        device: of this process.

    Raises:
        InvalidInput: if the network has parameters that cannot be sharded, or statistics that every process
            would gather for itself.
    """
    # here, because runs without shards should not wait for these imports
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if has_resting_parts(network):
        raise InvalidInput(
            "sharding fsdp cannot take a network of which parts rest while others learn, and whose teacher "
            "is a whole copy of it; leave --sharding out"
        )
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            raise InvalidInput(
                f"sharding fsdp cannot keep the running statistics of {name!r} equal over processes; take a "
                "model without batch norm, or leave --sharding out"
            )
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    try:
        for block in [*blocks(network), network]:
            fully_shard(block, mesh=mesh)
    except (ValueError, NotImplementedError) as error:
        raise InvalidInput(
            f"sharding fsdp cannot take this network: {error}; leave --sharding out"
        ) from error


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The parts that a network repeats: the innermost items of its sequences that have parts themselves.

    In QnA-ViT and timm's transformers these are the blocks, in ConvNeXt and Swin those of all stages.
    """
    for child in network.children():
        inner = list(blocks(child))
        if inner:
            yield from inner
        elif isinstance(network, SEQUENCES) and not isinstance(child, SEQUENCES) and _has_parts(child):
            yield child


def _has_parts(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and any(True for _ in module.parameters())


def whole_weights(network: nn.Module) -> dict[str, Tensor]:
    """The state dict of a sharded network without shards, in every process; all must call it together."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    state = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True))
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def local_part(tensor: Tensor) -> Tensor:
    """What this process has of `tensor`: its shard, or all of a tensor without shards."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()
