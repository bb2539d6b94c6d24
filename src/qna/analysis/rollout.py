"""Attention rollout: from which places of the image a network's answer draws, through all of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna.analysis.token_attention import TokenAttention, token_attention
from qna.parts.protocols import MovesPositions
from qna.parts.rows import PositionRows


@dataclass(frozen=True)
class RolloutStep:
    """How the positions of one map become those of the next: half by attention, half by the skip path.

    Attributes:
        name: of the layer.
        size: (H, W) of the map that goes in.
        attention: the layer's shares.
        skip: those of the skip path; None where each position keeps its place.
    """

    name: str
    size: tuple[int, int]
    attention: PositionRows
    skip: PositionRows | None = None

    def pull(self, relevance: Tensor) -> Tensor:
        """Relevance (B, positions out) -> (B, positions in); the total stays.

        The step's matrix is ``(A + S) / 2``. Where a window sees nothing of the map, its row of A is 0 and
        the skip path counts whole.
        """
        positions = self.size[0] * self.size[1]
        relevance = relevance / (self.attention.shares.sum(-1) + 1)
        kept = relevance if self.skip is None else self.skip.pull(relevance, positions)
        return kept + self.attention.pull(relevance, positions)


@dataclass(frozen=True)
class Rollout:
    """Where the answer comes from.

    Attributes:
        layers: names of the layers, in the order in which they ran.
        relevance: float32 (B, H, W) over the first map; its mean over the map is 1 (for a transformer with
            class or register tokens, the part that stays with these is left out).
    """

    layers: tuple[str, ...]
    relevance: Tensor

    def over_image(self, size: tuple[int, int]) -> Tensor:
        """The map (B, *size), enlarged bilinearly."""
        return F.interpolate(self.relevance[:, None], size, mode="bilinear", align_corners=False)[:, 0]


@torch.no_grad()
def attention_rollout(network: nn.Module, images: Tensor) -> Rollout:
    """Follow the pooled answer back through all blocks to the first map (Abnar and Zuidema, ACL 2020).

    The paper multiplies the matrices ``(A + I) / 2`` of all layers, A being attention averaged over heads,
    and takes a row. Here A is a block's row-stochastic matrix of positions to positions, averaged over heads
    and learned queries before the query weights; strided blocks map a grid to a coarser one, and their skip
    path takes the place of I. The last factor is the pooling. The product is evaluated from the row's side: a
    row vector goes through one block after the other, each of which keeps only the shares inside its windows
    (n K numbers for n windows of K positions), so that no matrix of positions by positions is formed beyond
    what a layer with global attention is by itself. MLPs keep every position in place.

    Args:
        network: a model of qna, or one of timm's plain vision transformers; it is put in evaluation mode, and
            back afterwards.
        images: (B, C, H, W).

    Raises:
        InvalidInput: if its blocks are not such that positions can be followed.
    """
    training = network.training
    network.eval()
    try:
        steps, pool = _record(network, images)
        if steps:
            return _follow(steps, pool, len(images))
        tokens = token_attention(network, images)
    finally:
        network.train(training)
    if tokens is None:
        raise InvalidInput(
            "a rollout follows blocks of qna.models or of a plain vision transformer, which "
            f"{type(network).__name__} does not have"
        )
    return _follow_tokens(tokens)


def _record(network: nn.Module, images: Tensor) -> tuple[list[RolloutStep], PositionRows | None]:
    """The steps of all blocks, in the order in which they ran, and the pooling's row."""
    steps: list[RolloutStep] = []
    pools: list[PositionRows] = []

    def keep(name: str, block: Any, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        try:
            rows, skip = block.position_step(*inputs)
        except InvalidInput as error:
            raise InvalidInput(f"attention rollout cannot pass {name}: {error}") from None
        steps.append(RolloutStep(name, (x.shape[1], x.shape[2]), rows, skip))

    blocks = [(name, m) for name, m in network.named_modules() if _moves_positions(m)]
    hooks = [block.register_forward_pre_hook(partial(keep, name)) for name, block in blocks]
    pool: Any = getattr(getattr(network, "head", None), "pool", None)
    if hooks and hasattr(pool, "attention_rows"):
        hooks.append(
            pool.register_forward_pre_hook(lambda m, inputs: pools.append(m.attention_rows(inputs[0])))
        )
    try:
        if hooks:
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return steps, pools[0] if pools else None


def _moves_positions(module: nn.Module) -> bool:
    return isinstance(module, MovesPositions)


def _follow(steps: list[RolloutStep], pool: PositionRows | None, batch: int) -> Rollout:
    positions = steps[-1].attention.shares.shape[1]
    one = steps[-1].attention.shares.new_ones(batch, 1)
    # without a pooling of its own every position of the last map counts alike
    relevance = one.expand(-1, positions) / positions if pool is None else pool.pull(one, positions)
    for step in reversed(steps):
        if relevance.shape[1] != step.attention.shares.shape[1]:
            raise InvalidInput(f"the map that {step.name} gives is not the next block's")
        relevance = step.pull(relevance)
    height, width = steps[0].size
    relevance = relevance.unflatten(1, (height, width)) * (height * width)
    return Rollout(tuple(step.name for step in steps), relevance.float())


def _follow_tokens(tokens: TokenAttention) -> Rollout:
    first = tokens.shares[0]
    relevance = first.new_zeros(first.shape[:2])
    if tokens.by_class_token:
        relevance[:, 0] = 1
    else:
        relevance[:, tokens.prefix :] = 1 / (first.shape[1] - tokens.prefix)
    for shares in reversed(tokens.shares):
        relevance = (relevance + (relevance[:, None] @ shares)[:, 0]) / 2
    patches = relevance[:, tokens.prefix :].unflatten(1, tokens.size)
    return Rollout(tokens.layers, patches / patches.mean((1, 2), keepdim=True))
