"""Two encoders with capsules, and the ways of routing that are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from qna.labs.capsule_retrieval.config import CapsuleRetrievalConfig
from qna.labs.capsule_retrieval.pairs import CAPTIONS, LENGTH, WORDS
from qna.parts.capsule_routing import DynamicRouting, EMRouting, SelfAttentionRouting
from qna.parts.capsules import CapsuleEncoder, Capsules, NoRouting

ATTENTION, DYNAMIC, EM, NONE = "self-attention", "dynamic", "em", "no-routing"
FEATURES, WORD_DIM = 128, 32

# (capsules, their channels, iterations) -> a routing
ROUTINGS: Mapping[str, Callable[[int, int, int], nn.Module]] = {
    ATTENTION: lambda capsules, dim, iterations: SelfAttentionRouting(dim),
    DYNAMIC: lambda capsules, dim, iterations: DynamicRouting(capsules, dim, iterations=iterations),
    EM: lambda capsules, dim, iterations: EMRouting(capsules, dim, iterations=iterations),
    NONE: lambda capsules, dim, iterations: NoRouting(),
}


class TwoModalities(nn.Module):
    """A feature of each modality, by encoders that share their routing.

    Args:
        task: "halves" or "captions".
        routing: one of `ROUTINGS`.
        capsules: of each modality.
        side: of an image, a multiple of 4.
        config: the other sizes.
    """

    def __init__(self, task: str, routing: str, capsules: int, side: int, config: CapsuleRetrievalConfig):
        super().__init__()
        if task == CAPTIONS:
            self.see, self.read = _image_features(side, side), _word_features()
        else:
            self.see, self.read = (_image_features(side, side // 2) for _ in range(2))
        shared = ROUTINGS[routing](capsules, config.dim, config.iterations)
        self.a, self.b = (
            CapsuleEncoder(FEATURES, capsules, config.dim, config.out_dim, shared) for _ in range(2)
        )

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 1, H, W), and images or words (B, 3) -> two features (B, out_dim)."""
        return self.a(self.see(a)), self.b(self.read(b))


def _image_features(height: int, width: int) -> nn.Module:
    positions = -(-height // 4) * -(-width // 4)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * positions, FEATURES),
        nn.ReLU(),
    )


def _word_features() -> nn.Module:
    return nn.Sequential(
        nn.Embedding(WORDS, WORD_DIM), nn.Flatten(), nn.Linear(LENGTH * WORD_DIM, FEATURES), nn.ReLU()
    )


def routed_call(routing: nn.Module, poses: Tensor, activations: Tensor) -> Callable[[], object]:
    """A call that routes and finds all gradients."""

    given = [poses.requires_grad_(), activations.requires_grad_(), *routing.parameters()]

    def call() -> object:
        routed = routing(Capsules(poses, activations))
        return torch.autograd.grad((routed.activations[..., None] * routed.poses).sum(), given)

    return call
