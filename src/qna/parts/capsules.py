"""Capsules: groups of channels with an activation, made of features, routed, and joined in one feature."""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import InvalidInput


class Capsules(NamedTuple):
    """Vectors that each stand for one thing, and how much of it is there.

    Attributes:
        poses: (B, N, K, D): at each of N places a capsule of each of K types.
        activations: (B, N, K), each in [0, 1].
    """

    poses: Tensor
    activations: Tensor


class Routing(Protocol):
    """Capsules (B, N, K, D) to capsules (B, N', K, D)."""

    def __call__(self, capsules: Capsules) -> Capsules:
        """Route."""
        ...

    def macs(self, places: int, types: int) -> int:
        """Multiply-adds of one example whose N places have K types of capsules."""
        ...


class PrimaryCapsules(nn.Module):
    """A pose and an activation for each type of capsule, of features: ``W x + b`` and ``sigmoid(w x + c)``.

    Args:
        features: channels of the input.
        types: K, the capsules that a place has.
        dim: D, of a pose.

    Raises:
        InvalidInput: for sizes below 1.
    """

    def __init__(self, features: int, types: int, dim: int):
        super().__init__()
        checks.positive("PrimaryCapsules", features=features, types=types, dim=dim)
        self.features, self.types, self.dim = features, types, dim
        self.pose = nn.Linear(features, types * dim)
        self.activation = nn.Linear(features, types)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Capsules:
        """Make capsules of features.

        Args:
            x: (B, features), which is one place, or places (B, N, features).
            mask: bool (B, N), False for places that are padding: their capsules have the activation 0.

        Raises:
            InvalidInput: for other shapes.
        """
        if x.ndim not in (2, 3) or x.shape[-1] != self.features or 0 in x.shape[1:]:
            raise InvalidInput(
                f"PrimaryCapsules: features must be (B, {self.features}) or (B, N, {self.features}), got "
                f"{tuple(x.shape)}"
            )
        x = x if x.ndim == 3 else x[:, None]
        if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
            raise InvalidInput(
                f"PrimaryCapsules: the mask must be bool {tuple(x.shape[:2])}, got {mask.dtype} "
                f"{tuple(mask.shape)}"
            )
        activations = self.activation(x).sigmoid()
        if mask is not None:
            activations = activations * mask[..., None]
        return Capsules(self.pose(x).unflatten(-1, (self.types, self.dim)), activations)

    def macs(self, places: int) -> int:
        """Multiply-adds of one example."""
        return places * self.features * self.types * (self.dim + 1)


class NoRouting(nn.Module):
    """Capsules as they are: what routing is compared with."""

    def forward(self, capsules: Capsules) -> Capsules:
        """The same capsules."""
        return capsules

    def macs(self, places: int, types: int) -> int:
        """None."""
        return 0


class CapsuleEncoder(nn.Module):
    """One feature of a modality: capsules of its features are routed, scaled by activations and joined.

        c = routing(primary(x))        y = W concat_k(mean_n(a_nk p_nk)) + b

    After Duarte, Chen, Shvetsova et al., "Routing with Self-Attention for Multimodal Capsule Networks" (arXiv
    2112.00775), whose abstract says that features of each modality become capsules, that self-attention
    selects among them and that what is selected forms a joint feature; there is no public code. That a type's
    capsules are averaged over the places is our choice, made so that sequences of any length have one
    feature. Modalities share the selection when their encoders are given the same `routing`.

    Args:
        features: channels of the input.
        types: K.
        dim: D.
        out_dim: of the joint feature.
        routing: capsules (B, N, K, D) to capsules (B, N', K, D); see `qna.parts.capsule_routing`.
    """

    def __init__(self, features: int, types: int, dim: int, out_dim: int, routing: nn.Module):
        super().__init__()
        checks.positive("CapsuleEncoder", out_dim=out_dim)
        self.primary = PrimaryCapsules(features, types, dim)
        self.routing = routing
        self.join = nn.Linear(types * dim, out_dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, features) or (B, N, features), a bool mask (B, N) False for padding -> (B, out_dim).

        Raises:
            InvalidInput: for other shapes.
        """
        poses, activations = self.routing(self.primary(x, mask))
        selected = activations[..., None] * poses
        if mask is None or selected.shape[1] == 1:
            mean = selected.mean(1)
        else:
            # capsules of padding are 0 in the sum
            mean = selected.sum(1) / mask.sum(1).clamp(min=1)[:, None, None]
        return self.join(mean.flatten(1))

    def macs(self, places: int) -> int:
        """Multiply-adds of one example."""
        join = self.join.in_features * self.join.out_features
        routed = cast(Routing, self.routing).macs(places, self.primary.types)
        return self.primary.macs(places) + routed + join
