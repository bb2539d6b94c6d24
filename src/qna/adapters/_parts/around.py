"""Modules that stand where another stood, with parts of its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Around(nn.Module):
    """Has the parts and the settings of the module whose place it takes, under their names.

    Args:
        old: that module; a state dict of it loads here.
    """

    def __init__(self, old: nn.Module):
        super().__init__()
        for name, part in old.named_children():
            self.add_module(name, part)
        for name, setting in vars(old).items():
            if not name.startswith("_") and name != "training":
                setattr(self, name, setting)
        self.train(old.training)


class AroundBlock(Around):
    """timm's block of attention and MLP."""

    norm1: Any
    attn: Any
    ls1: Any
    drop_path1: Any
    norm2: Any
    mlp: Any
    ls2: Any
    drop_path2: Any

    def with_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        """The skip path and what attention gives, (B, N, C)."""
        return x + self.drop_path1(self.ls1(attended))

    def with_mlp(self, x: Tensor) -> Tensor:
        """The second half of the block: (B, N, C) -> the same."""
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class AroundAttention(Around):
    """timm's attention."""

    num_heads: int
    head_dim: int
    scale: float
    qkv: Any
    q_norm: Any
    k_norm: Any
    attn_drop: Any
    norm: Any
    gate: Any
    proj: Any
    proj_drop: Any
