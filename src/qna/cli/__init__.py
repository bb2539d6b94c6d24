"""The `qna` command: one module per sub-command, imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys

# sub-command -> what it does; each is a module here, "_" for "-", with main(arguments) -> exit status
COMMANDS = {
    "train": "train a model on images, evaluate it and write a report",
    "eval": "judge trained networks on held-out images, also corrupted ones, side by side",
    "predict": "say what is on images in files and folders",
    "generate": "go on with a text as a trained network of language does",
    "explain": "draw what a network looks at in a photo",
    "export": "write a trained network as ONNX or a torch.export archive, for images of any size",
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
    """Run one sub-command; what ends it early is said in one sentence.

    Returns:
        the exit status: the sub-command's; 2 for bad input, 130 for Ctrl-C, and 1 for a file that cannot be
        read or written, too little memory, or a reader of the output that has gone.
    """
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        ended = _ending(error)
        if ended is None:
            raise
        from qna._core.outside import as_line

        why, status = ended
        print(f"qna: {as_line(why)}", file=sys.stderr)
        return status


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] in ("-V", "--version"):
        from qna import __version__

        print(f"qna {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        from qna._core.errors import UnknownName

        raise UnknownName("command", arguments[0], COMMANDS)
    module = importlib.import_module(f"qna.cli.{arguments[0].replace('-', '_')}")
    return module.main(arguments[1:])


def _ending(error: BaseException) -> tuple[str, int] | None:
    """A sentence on what ended a command, with its status; None for a fault of ours."""
    # torch stays out until a command needs it: these errors live in a module without it
    from qna._core.errors import InvalidInput, MissingExtra

    cause = " ".join(str(error).split())
    if isinstance(error, InvalidInput | MissingExtra):
        return str(error), 2
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, OSError):
        return cause if error.filename is None else f"{error.filename}: {error.strerror}", 1
    if isinstance(error, MemoryError) or "can't allocate memory" in cause:
        return f"too little memory: {cause or 'a smaller size needs less'}", 1
    return None


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return f"usage: qna COMMAND [...]\n\n{rows}\n\n`qna COMMAND --help` tells a command's options."
