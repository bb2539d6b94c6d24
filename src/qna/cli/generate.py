"""`qna generate`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from qna._core.errors import InvalidInput
from qna._core.outside import as_text
from qna.cli import _classifiers

if TYPE_CHECKING:
    import torch

    from qna.train.reload_language import LanguageModel

_DESCRIPTION = """\
Go on with a text, token by token, as a network of `qna train --task language` does. The text comes from
--prompt or from standard input, and what is made of it goes to standard output as it comes. The network may
end the text before all tokens are made.
"""
DTYPES = ("bf16", "fp16", "fp32")


def main(arguments: list[str]) -> int:
    """Generate and print."""
    parser = argparse.ArgumentParser("qna generate", description=_DESCRIPTION)
    parser.add_argument("model", metavar="RUN", help="folder of a run of `qna train --task language`")
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help="to go on with; default: standard input, unless that is a terminal",
    )
    parser.add_argument(
        "--tokens", type=_classifiers.whole, default=200, metavar="N", help="to make (default 200)"
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="0 takes the likeliest (default 1)"
    )
    parser.add_argument("--top-k", type=_classifiers.whole, metavar="K", help="likeliest that are drawn from")
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="probability of all that are drawn from"
    )
    parser.add_argument("--seed", type=_classifiers.whole, default=0, metavar="S", help="default 0")
    parser.add_argument(
        "--cache",
        default="all",
        metavar="POLICY",
        help="what is kept of keys and values: all, window:window=1024,sinks=4, groups:group=1024,sinks=4, "
        "or H2O: heavy:heavy=512,recent=512 (default all)",
    )
    parser.add_argument("--cache-dtype", choices=DTYPES, help="of what is kept; default: the weights'")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="default auto")
    parser.add_argument(
        "--threads", type=_classifiers.whole, default=0, metavar="N", help="0: as torch takes"
    )
    options = parser.parse_args(arguments)
    from qna.mixers.causal.policies import policy_of
    from qna.models.decoder.generation import Sampling
    from qna.train.reload_language import load_language

    sampling = Sampling(options.temperature, options.top_k, options.top_p, options.seed)
    policy = None if options.cache == "all" else policy_of(options.cache)
    if options.tokens < 1:
        raise InvalidInput(f"tokens must be at least 1, got {options.tokens}")
    model = load_language(options.model)
    device = _classifiers.device(options)
    prompt = _prompt(options.prompt)
    _print(model, prompt, options, {"sampling": sampling, "policy": policy}, device)
    return 0


def _prompt(given: str | None) -> bytes:
    if given is not None:
        # an argument need not be text
        return os.fsencode(given)
    return b"" if sys.stdin.isatty() else sys.stdin.buffer.read()


def _print(
    model: LanguageModel, prompt: bytes, options: argparse.Namespace, how: dict, device: torch.device
) -> None:
    import torch

    from qna.models.decoder.generation import generate

    tokens = model.tokens
    if tokens is None:
        raise InvalidInput(f"{model.name} learned {model.config.images.data}, which is no text to go on with")
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, None: None}
    begun = torch.tensor([[tokens.end, *tokens.encode(prompt).tolist()]], device=device)
    made = generate(
        model.network.to(device), begun, count=options.tokens, dtype=dtypes[options.cache_dtype], **how
    )
    reader = tokens.reader()
    for token in made:
        if int(token) == tokens.end:
            break
        # what a network makes is from outside as well
        sys.stdout.write(as_text(reader.read(int(token))))
        sys.stdout.flush()
    sys.stdout.write(as_text(reader.rest()) + "\n")
