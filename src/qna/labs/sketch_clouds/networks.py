"""What a sketch and a caption say, and a network that tells the noise in a cloud of points by it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import InvalidInput
from qna.labs.sketch_clouds.things import VOCABULARY, WORDS_IN_CAPTION
from qna.parts.attend import attend
from qna.parts.capsule_routing import SelfAttentionRouting
from qna.parts.capsules import Capsules
from qna.parts.mlp import ChannelMlp

_PATCH = 4


class SketchCapsules(nn.Module):
    """A line drawing as a few vectors, by two levels of attention: strokes to capsules, and among capsules.

        p_k = sum_i softmax_i(u_k . f_i) V f_i        over patches i that hold a stroke
        a_k = sigmoid(w . p_k + c),        then self-attention routing of (p, a)

    In the spirit of Wu, Wang et al., "Sketch and Text Guided Diffusion Model for Colored Point Cloud
    Generation" (ICCV 2023, arXiv 2308.02874), whose abstract tells of a capsule network with attention that
    keeps strokes and ignores the ground, and no more: all formulas here are our choice. A patch without a
    stroke has no weight at all; a drawing without strokes gives capsules with the activation 0.

    Args:
        dim: D, of a capsule and of a patch.
        capsules: K.
        side: pixels of a drawing, a multiple of 4.
    """

    def __init__(self, dim: int, capsules: int, side: int):
        super().__init__()
        checks.positive("SketchCapsules", dim=dim, capsules=capsules, side=side)
        if side % _PATCH:
            raise InvalidInput(f"SketchCapsules: side must be a multiple of {_PATCH}, got {side}")
        self.side = side
        self.see = nn.Sequential(
            nn.Conv2d(1, dim // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
        )
        self.place = nn.Parameter(torch.randn((side // _PATCH) ** 2, dim) / math.sqrt(dim))
        self.norm = nn.LayerNorm(dim)
        self.ask = nn.Parameter(torch.randn(capsules, dim) / math.sqrt(dim))
        self.value = nn.Linear(dim, dim)
        self.activation = nn.Linear(dim, 1)
        self.routing = SelfAttentionRouting(dim)

    def forward(self, sketch: Tensor) -> Tensor:
        """(B, 1, side, side), above 0 at strokes -> selected capsules (B, K, D)."""
        if sketch.shape[1:] != (1, self.side, self.side):
            raise InvalidInput(
                f"SketchCapsules: sketches must be (B, 1, {self.side}, {self.side}), got "
                f"{tuple(sketch.shape)}"
            )
        weights, features = self._seen(sketch)
        poses = weights @ self.value(features)
        drawn = sketch.flatten(1).any(1)[:, None]
        activations = self.activation(poses).squeeze(-1).sigmoid() * drawn
        routed = self.routing(Capsules(poses[:, None], activations[:, None]))
        return (routed.activations[..., None] * routed.poses)[:, 0]

    def weights(self, sketch: Tensor) -> Tensor:
        """How much each capsule takes of each patch, (B, K, side / 4, side / 4)."""
        return self._seen(sketch)[0].unflatten(-1, (self.side // _PATCH,) * 2)

    def _seen(self, sketch: Tensor) -> tuple[Tensor, Tensor]:
        features = self.norm(self.see(sketch).flatten(2).mT + self.place)
        empty = F.max_pool2d(sketch, _PATCH).flatten(1) == 0
        scores = (self.ask @ features.mT).masked_fill(empty[:, None], -math.inf)
        # without any stroke all patches count alike, and then the activations are 0
        scores = scores.masked_fill(empty.all(1)[:, None, None], 0.0)
        return scores.softmax(-1), features


class Guide(nn.Module):
    """What guides: capsules of a sketch that have attended the words, and the words; (B, K + 8, dim).

    Args:
        dim: channels.
        capsules: of the sketch.
        side: pixels of the sketch.
        num_heads: of the attention that fuses them.
    """

    def __init__(self, dim: int, capsules: int, side: int, *, num_heads: int = 4):
        super().__init__()
        self.sketch = SketchCapsules(dim, capsules, side)
        self.word = nn.Embedding(len(VOCABULARY), dim)
        self.place = nn.Parameter(torch.randn(WORDS_IN_CAPTION, dim) / math.sqrt(dim))
        self.fuse = CrossAttention(dim, num_heads)

    def forward(self, sketch: Tensor, words: Tensor) -> Tensor:
        """Sketches (B, 1, side, side) and words (B, 8), places in the vocabulary."""
        strokes, told = self.sketch(sketch), self.word(words) + self.place
        return torch.cat([strokes + self.fuse(strokes, told), told], 1)


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to others: (B, N, dim) and (B, M, dim) -> (B, N, dim)."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        checks.head_dim("CrossAttention", dim, num_heads)
        self.num_heads = num_heads
        self.norm, self.norm_other = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q, self.kv, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Attend."""
        q = self.q(self.norm(x)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        kv = self.kv(self.norm_other(other)).unflatten(-1, (2, self.num_heads, -1))
        k, v = kv.permute(2, 0, 3, 1, 4)
        return self.out(attend(q, k, v).transpose(1, 2).flatten(2))


class PointBlock(nn.Module):
    """Points attend each other, then what guides them, then an MLP; the time shifts what enters it."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.among, self.guided = CrossAttention(dim, num_heads), CrossAttention(dim, num_heads)
        self.norm, self.time = nn.LayerNorm(dim), nn.Linear(dim, dim)
        self.mlp = ChannelMlp(dim, 2 * dim)

    def forward(self, x: Tensor, guide: Tensor, time: Tensor) -> Tensor:
        """(B, N, dim), (B, M, dim) and (B, dim) -> (B, N, dim)."""
        x = x + self.among(x, x)
        x = x + self.guided(x, guide)
        return x + self.mlp(self.norm(x) + self.time(time)[:, None])


class Told(NamedTuple):
    """What a sample is guided by.

    Attributes:
        sketch: (B, 1, side, side).
        words: int64 (B, 8).
    """

    sketch: Tensor
    words: Tensor


class PointDenoiser(nn.Module):
    """The noise in three channels of every point of a cloud; permuting the points permutes the result.

    For shape the three channels are coordinates. For colour they are red, green and blue, and the coordinates
    are given beside them; nothing changes these.

    Args:
        dim: channels.
        depth: blocks.
        capsules: of the sketch.
        side: pixels of the sketch.
        num_heads: of attention.
        placed: whether coordinates are given.
    """

    def __init__(self, dim: int, depth: int, capsules: int, side: int, *, num_heads: int = 4, placed: bool):
        super().__init__()
        checks.positive("PointDenoiser", dim=dim, depth=depth)
        self.placed, self.dim = placed, dim
        self.guide = Guide(dim, capsules, side, num_heads=num_heads)
        self.embed = nn.Linear(6 if placed else 3, dim)
        self.time = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.blocks = nn.ModuleList(PointBlock(dim, num_heads) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, 3)

    def forward(
        self, noisy: Tensor, time: Tensor, told: Tensor | Told, points: Tensor | None = None
    ) -> Tensor:
        """The noise.

        Args:
            noisy: (B, N, 3).
            time: of the diffusion, int64 (B,).
            told: what guides, or what `guide` made of it.
            points: coordinates (B, N, 3), of colours alone.

        Returns:
            (B, N, 3).
        """
        if self.placed != (points is not None):
            raise InvalidInput(
                "a denoiser of colours needs the points, and one of shapes has none; got "
                + ("none" if points is None else "points")
            )
        guide = self.guide(*told) if isinstance(told, Told) else told
        x = self.embed(noisy if points is None else torch.cat([noisy, points], -1))
        at = self.time(sinusoids(time, self.dim))
        for block in self.blocks:
            x = block(x, guide, at)
        return self.out(self.norm(x))


def sinusoids(time: Tensor, dim: int) -> Tensor:
    """Sines and cosines of a time at `dim` / 2 frequencies from 1 to 1 / 10,000: (B, dim)."""
    steps = torch.arange(dim // 2, device=time.device) / (dim // 2)
    angle = time[:, None] * torch.exp(-math.log(10000) * steps)
    return torch.cat([angle.sin(), angle.cos()], 1)
