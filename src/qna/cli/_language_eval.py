"""`qna eval` of networks of language."""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from qna._core.errors import InvalidInput
from qna._core.files import write_text
from qna._core.outside import as_line
from qna.cli import _classifiers
from qna.cli._answers import OF_CLASSIFIERS, refuse
from qna.cli._progress import bars
from qna.cli._tables import Table, letters, page, show
from qna.data.text import is_drawn
from qna.eval.tokens import TokenScores
from qna.train.folder import claim_folder
from qna.train.reload_language import LanguageModel, load_language
from qna.train.tasks.language import Language

_REFUSED = (*OF_CLASSIFIERS, "corruptions", "severities", "data_dir", "download", "image_size")
# calls whose median is a time; tokens that are made one by one in each
_CALLS, _MADE = 3, 16


@dataclass(frozen=True)
class LengthSpeed:
    """How fast a network reads a sequence, goes on after it, and what it remembers.

    Attributes:
        length: tokens that were read.
        read: tokens per second of the sequence in one step.
        made: tokens per second, one by one, behind it.
        state: bytes of the state per token of the sequence.
    """

    length: int
    read: float
    made: float
    state: float


def eval_language(
    parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]
) -> int:
    """Judge decoders on held-out sequences, side by side, and write what was found."""
    refuse(parser, options, _REFUSED, "tells the next token")
    device = _classifiers.device(options)
    models = [load_language(source) for source in options.models]
    if len({model.name for model in models}) < len(models):
        raise InvalidInput("a network is named twice")
    found = []
    with bars("`qna eval`") as begin:
        for model in models:
            task, data = _task(model, options)
            told = begin(model.name, len(data.held_out))
            scores = _judge(model, task, data, device, told)
            speeds = [measured(model, length, device) for length in _lengths(scores)]
            found.append((model, data, scores, speeds))
    tables, notes = _tables(found), [f"Judged on {data.name}: {data.origin}." for _, data, *_ in found[:1]]
    notes.append(
        "Tokens per second read at once, and made one by one behind them; bytes of the state per token read."
    )
    show(tables, notes)
    name = Path(found[0][1].name.replace(":", "-")).name
    folder = claim_folder(options.out or Path("runs") / f"eval-{name}")
    command = shlex.join(["qna", "eval", *arguments])
    about = {"command": command, "models": [_plain(*one) for one in found]}
    try:
        write_text(folder / "scores.json", json.dumps(about, allow_nan=False) + "\n")
        title = f"{', '.join(model.name for model in models)} on {found[0][1].name}"
        write_text(folder / "report.md", page(title, tables, notes, {}, command))
    except OSError as error:
        print(f"qna: cannot write the report to {as_line(str(folder))}: {error}", file=sys.stderr)
        return 1
    for what, file in {"report": "report.md", "everything": "scores.json"}.items():
        print(f"{what:<12}  {as_line(str(folder / file))}")
    return 0


def _task(model: LanguageModel, options: argparse.Namespace) -> tuple[Language, Any]:
    """The task with the data that is judged on, which must have the vocabulary of the network."""
    config, language = model.config, model.config.language
    if options.lengths:
        language = replace(language, lengths=tuple(options.lengths))
    if options.data and is_drawn(options.data):
        # what the network read was text, of which drawn sequences have no bytes
        language = replace(language, limit=0, tokenizer=None)
    images = replace(config.images, data=options.data or config.images.data, workers=options.workers)
    optim = replace(config.optim, batch_size=options.batch_size)
    task = Language()
    data = task.load(replace(config, language=language, images=images, optim=optim))
    told, own = None if data.tokens is None else data.tokens.told(), model.tokens
    if data.vocabulary != model.network.vocabulary or told != (None if own is None else own.told()):
        raise InvalidInput(
            f"{model.name} knows {model.network.vocabulary:,} tokens of {config.images.data}, and "
            f"{data.name} has {data.vocabulary:,} of its own; give --data that fits"
        )
    return task, data


@torch.no_grad()
def _judge(model: LanguageModel, task: Language, data: Any, device: torch.device, told: Any) -> TokenScores:
    network, tally = model.network.to(device), task.tally(device)
    for batch in task.held_out_batches(data, 0, 1):
        tally.add(network(batch.tokens.to(device)), batch)
        told(len(batch.tokens))
    return tally.scores()


def _lengths(scores: TokenScores) -> list[int]:
    return [of_length.length for of_length in scores.lengths]


@torch.inference_mode()
def measured(model: LanguageModel, length: int, device: torch.device) -> LengthSpeed:
    """Median times of one sequence, its tokens any."""
    network, reading, making = model.network.to(device), [], []
    tokens = torch.zeros(1, length, dtype=torch.int64, device=device)
    state = network.init_state(1)
    for _ in range(_CALLS):
        begun = time.perf_counter()
        logits, state = network.step(tokens, network.init_state(1))
        # what is asked for is there
        logits[0, -1, 0].item()
        read = time.perf_counter()
        later = state
        for _ in range(_MADE):
            logits, later = network.step(tokens[:, :1], later)
        logits[0, -1, 0].item()
        reading.append(read - begun)
        making.append((time.perf_counter() - read) / _MADE)
    return LengthSpeed(
        length, length / statistics.median(reading), 1 / statistics.median(making), state.nbytes / length
    )


def _tables(found: Sequence[tuple[LanguageModel, Any, TokenScores, list[LengthSpeed]]]) -> dict[str, Table]:
    head = ["model", "tokens", "sequences", "nats/token", "right (%)", "bits/byte"]
    scored, timed = [], []
    for letter, (model, _, scores, speeds) in zip(letters(len(found)), found, strict=True):
        name = model.name if len(found) == 1 else f"{letter}  {model.name}"
        parameters = f"{sum(p.numel() for p in model.network.parameters()) / 1e6:.2f}"
        for of_length, speed in zip(scores.lengths, speeds, strict=True):
            per_byte = of_length.bits_per_byte
            figures = [f"{of_length.loss:.4f}", f"{100 * of_length.right:.2f}"]
            figures.append("-" if per_byte is None else f"{per_byte:.4f}")
            scored.append([name, f"{of_length.length:,}", f"{of_length.sequences:,}", *figures])
            speed_of = [f"{value:,.0f}" for value in (speed.read, speed.made, speed.state)]
            timed.append([name, parameters, f"{speed.length:,}", *speed_of])
    speeds_head = ["model", "params (M)", "tokens", "read/s", "made/s", "bytes/token"]
    return {"held-out sequences": (head, scored), "speed and memory of one sequence": (speeds_head, timed)}


def _plain(model: LanguageModel, data: Any, scores: TokenScores, speeds: list[LengthSpeed]) -> dict[str, Any]:
    return {
        "model": model.name,
        "architecture": model.config.network.model,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "data": data.name,
        "lengths": [asdict(of_length) for of_length in scores.lengths],
        "speeds": [asdict(speed) for speed in speeds],
    }
