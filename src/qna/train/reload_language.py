"""A decoder of language brought back from a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from qna._core.errors import InvalidInput
from qna.data.text import Tokens, tokens_told
from qna.models.decoder import Decoder
from qna.train.checkpoint import load_tensors
from qna.train.config import TrainConfig
from qna.train.reload import made_of, told_in, weights_of
from qna.train.tasks.language import build_decoder


@dataclass(frozen=True)
class LearnedTokens:
    """What a run's weights say of it in their header.

    Attributes:
        config: of the run.
        vocabulary: tokens that there are.
        tokens: how text is written as tokens; None where sequences were drawn.
    """

    config: TrainConfig
    vocabulary: int
    tokens: Any = None


@dataclass(frozen=True)
class LanguageModel:
    """A decoder, and what it takes to use it.

    Attributes:
        name: the source that it was brought back from.
        network: in evaluation mode.
        config: of the run.
        tokens: how text is written as tokens; None where it learned sequences that are drawn.
    """

    name: str
    network: Decoder
    config: TrainConfig
    tokens: Tokens | None


def load_language(source: str) -> LanguageModel:
    """Bring the decoder of a run of language back, in evaluation mode.

    Args:
        source: the run's folder, or the model.safetensors in one.

    Raises:
        InvalidInput: if there is no such run, it is of another task, or its file is damaged.
    """
    path = weights_of(source)
    tensors, about = load_tensors(path)
    config = about.get("config")
    run = config.get("run") if isinstance(config, dict) else None
    if not isinstance(run, dict) or run.get("task") != "language":
        raise InvalidInput(f"{source} is no run of language")
    seen = told_in(path, about, LearnedTokens)
    tokens = None if seen.tokens is None else tokens_told(seen.tokens, path)
    if tokens is not None and tokens.vocabulary != seen.vocabulary:
        raise InvalidInput(
            f"{path} is damaged: {seen.vocabulary:,} tokens, and its text has {tokens.vocabulary:,}"
        )
    make = partial(build_decoder, seen.config.network.architecture(), seen.vocabulary)
    network = made_of(tensors, f"{path} has the weights of another network: it", make)
    return LanguageModel(source, cast(Decoder, network.eval()), seen.config, tokens)
