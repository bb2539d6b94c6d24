"""The `qna` command: one module per sub-command, imported only when it is called."""

from __future__ import annotations

import importlib
import sys

# sub-command -> what it does; each is a module here, "_" for "-", with main(arguments) -> exit status
COMMANDS = {
    "train": "train a model on images, evaluate it and write a report",
    "eval": "judge trained networks on held-out images, also corrupted ones, side by side",
    "predict": "say what is on images in files and folders",
    "explain": "draw what a network looks at in a photo",
    "share": "put a trained model in a folder that timm and the Hugging Face hub read",
    "convert": "turn a checkpoint of the authors (Flax) into safetensors, or back",
    "data": "compose scenes with masks and boxes to learn from",
    "lab": "try a published claim in minutes, beside a control that can win",
    "simulate-gna": "count what a strided neighbourhood attention can gain on tiled hardware",
    "bench": "measure time and memory beside other operators and models",
    "plot": "draw pictures of measurements",
    "list": "list mixers, models, tasks and laboratories with their papers",
    "doctor": "show what this machine has and what would make qna faster here",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one sub-command; bad input ends with one sentence and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] in ("-V", "--version"):
        from qna import __version__

        print(f"qna {__version__}")
        return 0
    # torch stays out until a command needs it: these errors live in a module without it
    from qna._core.errors import InvalidInput, MissingExtra, UnknownName

    try:
        if arguments[0] not in COMMANDS:
            raise UnknownName("command", arguments[0], COMMANDS)
        module = importlib.import_module(f"qna.cli.{arguments[0].replace('-', '_')}")
        return module.main(arguments[1:])
    except (InvalidInput, MissingExtra) as error:
        from qna._core.outside import as_line

        print(f"qna: {as_line(str(error))}", file=sys.stderr)
        return 2


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return f"usage: qna COMMAND [...]\n\n{rows}\n\n`qna COMMAND --help` tells a command's options."
