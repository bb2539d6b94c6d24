"""Language: which token comes next, in text of files or in sequences that ask for what was read before."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna.data import TrainingOrder, evaluation_batches, training_batches
from qna.data.text import (
    UNSCORED,
    Bytes,
    FileTokens,
    TokenBatch,
    TokenData,
    is_drawn,
    load_drawn,
    load_text,
)
from qna.eval.tokens import TokenScores, TokenTally
from qna.models.decoder import Decoder, create_decoder
from qna.train.config import NetworkOptions, TrainConfig
from qna.train.network import adapted, prepare_network
from qna.train.task import Headline


class Language:
    """Says which token follows each, by a decoder of any causal mixer."""

    config: TrainConfig
    data: TokenData

    @property
    def headline(self) -> Headline:
        """Bits per byte of text; of sequences that are drawn, the part of the answers that is right."""
        return Headline("right", ".2%") if self.data.tokens is None else Headline("bits_per_byte", ".4f")

    def load(self, config: TrainConfig) -> TokenData:
        """The text or the sequences that the configuration names."""
        self.config = config
        self.data = load_tokens(config)
        return self.data

    def build_network(self, options: NetworkOptions, data: TokenData) -> nn.Module:
        """The decoder."""
        return build_decoder(options, data.vocabulary, data)

    def fingerprint(self, data: TokenData) -> dict[str, Any]:
        """Vocabulary, and number and digest of the sequences of both parts."""
        facts: dict[str, Any] = {"vocabulary": data.vocabulary}
        parts = {"training sequences": [data.train], "held-out sequences": data.held_out.parts}
        for name, several in parts.items():
            facts |= {name: sum(map(len, several))}
            facts |= {f"order or contents of the {name}": " ".join(part.digest for part in several)}
        return facts

    def about(self, data: TokenData) -> dict[str, Any]:
        """What it takes to write text as tokens, and to read it again."""
        return {
            "config": json.loads(self.config.to_json()),
            "vocabulary": data.vocabulary,
            "tokens": None if data.tokens is None else data.tokens.told(),
        }

    def training_batches(
        self, data: TokenData, order: TrainingOrder, epoch: int, start: int
    ) -> Iterator[TokenBatch]:
        """TokenWindows cut at other places in every epoch, or sequences drawn anew."""
        workers = self.config.images.workers
        return training_batches(data.train, _batch, order, epoch=epoch, start=start, workers=workers)

    def held_out_batches(self, data: TokenData, rank: int, world: int) -> Iterator[TokenBatch]:
        """Every length by itself, of about as many tokens a batch as in training."""
        o, context, workers = self.config.optim, self.config.language.context, self.config.images.workers
        return itertools.chain.from_iterable(
            evaluation_batches(
                part,
                _batch,
                max(1, o.batch_size * context // part.length),
                rank=rank,
                world=world,
                workers=workers,
            )
            for part in data.held_out.parts
        )

    def examples(self, batch: TokenBatch) -> int:
        """Sequences."""
        return len(batch.tokens)

    def unreadable(self, batch: TokenBatch) -> list[str]:
        """None: a file that cannot be read ends the run before it begins."""
        return []

    def varied(self, batch: TokenBatch, seed: int) -> TokenBatch:
        """As it is."""
        return batch

    def inputs(self, batch: TokenBatch) -> tuple[Tensor]:
        """The tokens (B, N)."""
        return (batch.tokens,)

    def loss(self, output: Tensor, batch: TokenBatch, seed: int) -> Tensor:
        """Cross entropy of the tokens that are asked for."""
        targets = batch.targets.to(output.device)
        return F.cross_entropy(output.flatten(0, 1).float(), targets.flatten(), ignore_index=UNSCORED)

    def tally(self, device: torch.device | str) -> TokenTally:
        """Counts nats and right tokens, by length."""
        return TokenTally(lengths_of(self.config), self.data.tokens_per_byte, device)

    def report(self, scores: TokenScores) -> dict[str, Any]:
        """At the length of training, and at every length."""
        first = scores.first
        per_byte = {} if first.bits_per_byte is None else {"bits_per_byte": first.bits_per_byte}
        return {
            "held_out": first.sequences,
            "loss": first.loss,
            "right": first.right,
            **per_byte,
            "lengths": [asdict(of_length) for of_length in scores.lengths],
        }


def _batch(examples: Any, indices: Any, seed: int) -> TokenBatch:
    return examples.batch(indices, seed)


def lengths_of(config: TrainConfig) -> tuple[int, ...]:
    """Lengths that are judged: that of training, and those that are asked for beside it."""
    return tuple(dict.fromkeys((config.language.context, *config.language.lengths)))


def load_tokens(config: TrainConfig) -> TokenData:
    """The data of a configuration.

    Raises:
        UnknownName: for a kind of sequences or an option of it that there is not.
        InvalidInput: there is no such data, or too little of it.
    """
    told, name = config.language, config.images.data
    lengths = lengths_of(config)
    if is_drawn(name):
        for option in ("tokenizer", "limit"):
            if getattr(told, option):
                raise InvalidInput(
                    f"{name} is drawn as tokens, and {option}={getattr(told, option)} is of text"
                )
        return load_drawn(
            name, context=told.context, lengths=lengths, count=told.sequences, seed=told.split_seed
        )
    tokens = Bytes() if told.tokenizer is None else FileTokens.from_file(told.tokenizer)
    return load_text(
        name,
        tokens,
        context=told.context,
        lengths=lengths,
        suffixes=told.suffixes,
        share=told.held_out,
        limit=told.limit,
        seed=told.split_seed,
    )


def build_decoder(options: NetworkOptions, vocabulary: int, data: TokenData | None = None) -> Decoder:
    """Return the decoder that `options` name.

    Args:
        options: its size and mixers, and weights where it has some already.
        vocabulary: tokens that there are.
        data: whose beginning is the text of mixers that make queries and keys of a fixed one; None where
            weights bring theirs.

    Raises:
        UnknownName: for a size, mixer, adapter or argument that does not exist, with the nearest names.
        InvalidInput: if one of them refuses its values, there is less data than the text has, an adapter does
            not suit decoders, or the weights are of another network.
    """
    own = options.model_arguments()
    if "vocabulary" in own:
        raise InvalidInput("model_kwargs cannot set vocabulary: it follows from the data")
    network = create_decoder(options.model, vocabulary=vocabulary, **own)
    if data is not None and network.text is not None:
        network.fix_text(_beginning(data, len(network.text)))
    adapted(network, options)
    prepare_network(network, options)
    return network


def _beginning(data: TokenData, count: int) -> Tensor:
    """The first `count` tokens that are trained on, window by window."""
    windows = -(-count // data.train.length)
    if windows > len(data.train):
        raise InvalidInput(
            f"queries and keys are to be of a fixed text of {count:,} tokens, and {data.name!r} has "
            f"{len(data.train) * data.train.length:,} to train on; give the mixer a smaller length"
        )
    return data.train.batch(range(windows), 0).tokens.flatten()[:count]
