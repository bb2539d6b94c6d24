"""`qna convert`."""

from __future__ import annotations

import argparse
from pathlib import Path

from qna._core.errors import InvalidInput
from qna._core.outside import as_line

_DESCRIPTION = """\
Convert a checkpoint of the authors (of QnA-ViT Flax msgpack, of others PyTorch) to safetensors; those of
QnA-ViT also back: the suffix of OUT says which. With --adapter, a checkpoint of an adapter's authors. It
needs no JAX, and nothing in a file is run. The weights then load with timm.create_model(NAME,
checkpoint_path=OUT).
"""


def main(arguments: list[str]) -> int:
    """Convert one file."""
    parser = argparse.ArgumentParser("qna convert", description=_DESCRIPTION)
    parser.add_argument("source", metavar="IN", type=Path, help="the authors' file, or safetensors")
    parser.add_argument(
        "target", metavar="OUT", type=Path, help="a name that ends in .safetensors or .msgpack"
    )
    parser.add_argument("--model", required=True, help="the model that IN holds, for example qna_vit_tiny")
    parser.add_argument("--stem", help="patch (default) or resnet")
    parser.add_argument("--global-pool", help="avg (default), qnav1 or qnav2")
    parser.add_argument("--shortcut", help="conv1x1 (default) or avgpool")
    parser.add_argument(
        "--img-size", type=int, help="pixels for which qnav1 or qnav2 was trained (default 224)"
    )
    parser.add_argument(
        "--model-kwargs",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="other arguments of the model, for example heads=8,8,8,8",
    )
    parser.add_argument("--adapter", help="what IN's authors put around the model, for example evit")
    parser.add_argument(
        "--adapter-args",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="arguments of the adapter, for example keep_rate=0.7",
    )
    options = vars(parser.parse_args(arguments))
    source, target, model = (options.pop(name) for name in ("source", "target", "model"))
    named, adapter, adapter_args = (options.pop(name) for name in ("model_kwargs", "adapter", "adapter_args"))
    if adapter_args and adapter is None:
        raise InvalidInput("--adapter-args are of an adapter, and none is named; name one with --adapter")

    from qna import adapters
    from qna.adapters.convert import convert as convert_adapted
    from qna.models.convert import convert
    from qna.train.config import named_values

    changes = {name: value for name, value in options.items() if value is not None}
    changes |= named_values(named, "--model-kwargs")
    try:
        if adapter is None:
            count = convert(source, target, model, changes)
        else:
            chosen = adapters.adapter(adapter, **named_values(adapter_args, "--adapter-args"))
            count = convert_adapted(source, target, model, chosen, changes)
    except OSError as error:
        raise InvalidInput(f"cannot write {target}: {error.strerror or error}") from None
    print(as_line(f"{target}: {count} tensors of {model}"))
    return 0
