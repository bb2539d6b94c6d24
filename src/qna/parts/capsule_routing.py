"""How capsules become capsules of a higher layer: by self-attention at once, or by iterated agreement."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import InvalidInput, check_choice
from qna.parts.capsules import Capsules

KEYS, POSES = "keys", "poses"
GATES = (KEYS, POSES)


class SelfAttentionRouting(nn.Module):
    """Routing without iterations: every capsule attends all capsules of all places, and is activated anew.

        s_ij = q_i . k_j / sqrt(d)        p'_i = sum_j softmax_j(s_ij + log a_j) v_j
        a'_i = a_i sigmoid(w . p'_i + b)

    with q, k, v linear maps of the poses without bias, shared by all capsules. That routing is
    self-attention, is not iterated and selects by activations is told by the abstract of arXiv 2112.00775;
    the formulas are our choice. An activation counts a capsule as a key that often, so that one with the
    activation 0 has no effect on any other and, since a' scales its pose, none on what is made of all. With
    ``gate="poses"`` activations scale the poses before attention instead: ``q, k, v`` are then maps of ``a
    p``, ``a' = sigmoid(w . p' + b)``, and a capsule that is not there still takes its share of the softmax.

    A permutation of capsules permutes the result; with one capsule p' is v. Cost: ``3 M D^2 + 2 M^2 D``
    multiply-adds for M = N K capsules, and ``num_heads M^2`` weights.

    Args:
        dim: D, of a pose.
        num_heads: of attention; d = D / num_heads.
        gate: where activations enter, "keys" or "poses".

    Raises:
        InvalidInput: heads that do not divide `dim`.
    """

    def __init__(self, dim: int, *, num_heads: int = 1, gate: str = KEYS):
        super().__init__()
        checks.positive("SelfAttentionRouting", dim=dim, num_heads=num_heads)
        self.dim, self.num_heads = dim, num_heads
        self.head_dim = checks.head_dim("SelfAttentionRouting", dim, num_heads)
        self.gate = check_choice("gate", gate, GATES)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.select = nn.Linear(dim, 1)

    def forward(self, capsules: Capsules) -> Capsules:
        """Capsules (B, N, K, D) to the same number of capsules."""
        poses, activations = capsules
        weights, v = self._attended(capsules)
        routed = (weights @ v).transpose(1, 2).flatten(2)
        selected = self.select(routed).squeeze(-1).sigmoid()
        if self.gate == KEYS:
            selected = activations.flatten(1) * selected
        return Capsules(routed.unflatten(1, poses.shape[1:3]), selected.unflatten(1, poses.shape[1:3]))

    def weights(self, capsules: Capsules) -> Tensor:
        """What each capsule attends, (B, num_heads, N K, N K): rows sum to 1."""
        return self._attended(capsules)[0]

    def macs(self, places: int, types: int) -> int:
        """Multiply-adds of one example."""
        capsules = places * types
        return capsules * self.dim * (3 * self.dim + 2 * capsules + 1)

    def _attended(self, capsules: Capsules) -> tuple[Tensor, Tensor]:
        flat, gates = _checked(self, capsules, self.dim)
        if self.gate == POSES:
            flat = gates[..., None] * flat
        q, k, v = self.qkv(flat).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        scores = q @ k.mT / math.sqrt(self.head_dim)
        if self.gate == KEYS:
            counts = gates.clamp(min=torch.finfo(gates.dtype).tiny).log().masked_fill(gates == 0, -math.inf)
            # where no capsule is there, none has an effect either
            counts = counts.masked_fill((gates == 0).all(1, keepdim=True), 0.0)
            scores = scores + counts[:, None, None]
        return scores.softmax(-1), v


class _Votes(nn.Module):
    """What each capsule expects each capsule of the higher layer to be: ``V_ij = W_ij p_i``, W by types."""

    def __init__(self, types: int, dim: int, out_types: int | None, iterations: int):
        super().__init__()
        name, self.out_types = type(self).__name__, types if out_types is None else out_types
        checks.positive(name, types=types, dim=dim, out_types=self.out_types, iterations=iterations)
        self.types, self.dim, self.iterations = types, dim, iterations
        self.weight = nn.Parameter(torch.empty(types, self.out_types, dim, dim))
        nn.init.normal_(self.weight, std=dim**-0.5)

    def _votes(self, poses: Tensor) -> Tensor:
        """(B, N, K, D) -> (B, K', N K, D), so that all that follows are products of matrices."""
        batch, places, types, dim = poses.shape
        if types != self.types:
            raise InvalidInput(
                f"{type(self).__name__} has votes of {self.types} types of capsules, got {types}"
            )
        by_type = poses.permute(2, 0, 1, 3).reshape(types, batch * places, dim)
        votes = by_type @ self.weight.transpose(1, 2).reshape(types, dim, self.out_types * dim)
        votes = votes.view(types, batch, places, self.out_types, dim).permute(1, 3, 2, 0, 4)
        return votes.reshape(batch, self.out_types, places * types, dim)

    def _macs(self, places: int, a_pass: int) -> int:
        votes = places * self.types * self.out_types * self.dim
        return votes * (self.dim + a_pass)


class DynamicRouting(_Votes):
    """Routing by agreement (Sabour, Frosst, Hinton, NeurIPS 2017, Procedure 1).

        c_i = softmax_j(b_i)      v_j = squash(sum_i c_ij V_ij)      b_ij = b_ij + V_ij . v_j

    begun with b = 0 and repeated; ``squash(s) = |s|^2 / (1 + |s|^2) s / |s|``. There a capsule's length is
    its activation, so what is routed is ``a p``, and the result has the activation |v| and the pose v / |v|.
    Cost: ``M K' D^2`` multiply-adds for the votes of M = N K capsules, ``(2 iterations - 1) M K' D`` for
    routing, and as many numbers as votes, M K' D, in each iteration of a backward pass.

    Args:
        types: K of the input.
        dim: D, of a pose.
        out_types: K' of the result; None for K.
        iterations: of routing, one or more.
    """

    def __init__(self, types: int, dim: int, *, out_types: int | None = None, iterations: int = 3):
        super().__init__(types, dim, out_types, iterations)

    def forward(self, capsules: Capsules) -> Capsules:
        """Capsules (B, N, K, D) to (B, 1, K', D)."""
        _checked(self, capsules, self.dim)
        votes = self._votes(capsules.activations[..., None] * capsules.poses)
        logits = votes.new_zeros(votes.shape[:-1])
        total = (logits.softmax(1)[:, :, None] @ votes).squeeze(2)
        for _ in range(self.iterations - 1):
            logits = logits + (votes @ squash(total)[..., None]).squeeze(-1)
            total = (logits.softmax(1)[:, :, None] @ votes).squeeze(2)
        square = total.square().sum(-1)
        return Capsules(nn.functional.normalize(total, dim=-1)[:, None], (square / (1 + square))[:, None])

    def macs(self, places: int, types: int) -> int:
        """Multiply-adds of one example."""
        return self._macs(places, 2 * self.iterations - 1)


class EMRouting(_Votes):
    """Routing by expectation and maximisation (Hinton, Sabour, Frosst, ICLR 2018, Procedure 1).

    A higher capsule is a Gaussian of the votes for it, with a variance for each channel h. In turn, r begun
    with 1 / K' for every pair of capsules:

        R_ij = r_ij a_i
        mu_j = sum_i R_ij V_ij / sum_i R_ij      var_j = sum_i R_ij (V_ij - mu_j)^2 / sum_i R_ij
        a_j = sigmoid(lambda (beta_a - sum_h (beta_u + log sigma_jh) sum_i R_ij))
        r_ij = a_j N(V_ij; mu_j, var_j) / sum_k a_k N(V_ik; mu_k, var_k)

    The paper's poses are 4 x 4 matrices; here they are vectors and W_ij any matrix. Our choices: lambda rises
    in equal steps to 1, beta_a and beta_u are a number for each type, and 1e-6 is added to variances. Cost:
    ``M K' D^2`` multiply-adds for the votes and ``(3 iterations - 1) M K' D`` for routing.

    Args:
        types: K of the input.
        dim: D, of a pose.
        out_types: K' of the result; None for K.
        iterations: of routing, one or more.
    """

    def __init__(self, types: int, dim: int, *, out_types: int | None = None, iterations: int = 3):
        super().__init__(types, dim, out_types, iterations)
        self.beta_a = nn.Parameter(torch.zeros(self.out_types))
        self.beta_u = nn.Parameter(torch.zeros(self.out_types))

    def forward(self, capsules: Capsules) -> Capsules:
        """Capsules (B, N, K, D) to (B, 1, K', D)."""
        _, given = _checked(self, capsules, self.dim)
        votes = self._votes(capsules.poses)
        shares = votes.new_full(votes.shape[:-1], 1 / self.out_types)
        mean, log_activation = votes, shares
        for step in range(1, self.iterations + 1):
            shares = shares * given[:, None]
            total = shares.sum(2)
            parts = (shares / total[..., None].clamp(min=1e-12))[:, :, None]
            mean = (parts @ votes).squeeze(2)
            squares = (votes - mean[:, :, None]).square()
            variance = (parts @ squares).squeeze(2) + 1e-6
            cost = (self.dim * self.beta_u + variance.log().sum(-1) / 2) * total
            log_activation = nn.functional.logsigmoid(step / self.iterations * (self.beta_a - cost))
            if step < self.iterations:
                far = (squares @ (1 / variance)[..., None]).squeeze(-1) + variance.log().sum(-1, keepdim=True)
                shares = (log_activation[..., None] - far / 2).softmax(1)
        return Capsules(mean[:, None], log_activation.exp()[:, None])

    def macs(self, places: int, types: int) -> int:
        """Multiply-adds of one example."""
        return self._macs(places, 3 * self.iterations - 1)


def squash(s: Tensor) -> Tensor:
    """``|s|^2 / (1 + |s|^2) s / |s|`` along the last axis; 0 where s is 0."""
    square = s.square().sum(-1, keepdim=True)
    return s * torch.linalg.vector_norm(s, dim=-1, keepdim=True) / (1 + square)


def _checked(routing: nn.Module, capsules: Capsules, dim: int) -> tuple[Tensor, Tensor]:
    """Poses (B, M, D) and activations (B, M) of capsules that are what they must be."""
    poses, activations = capsules
    if poses.ndim != 4 or poses.shape[-1] != dim or activations.shape != poses.shape[:-1]:
        raise InvalidInput(
            f"{type(routing).__name__}: capsules must be poses (B, N, K, {dim}) and activations (B, N, K), "
            f"got {tuple(poses.shape)} and {tuple(activations.shape)}"
        )
    return poses.flatten(1, 2), activations.flatten(1)
