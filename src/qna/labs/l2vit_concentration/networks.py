"""Networks of a block of windows and one of attention of the whole map, and what stands behind that."""

from __future__ import annotations

from torch import nn

from qna.labs.one_stage import one_stage
from qna.mixers import FullAttention2d, LinearAttention2d, WindowAttention2d
from qna.models._parts.hierarchy import Hierarchy
from qna.models.l2vit.block import L2ViTBlock, near_of
from qna.parts.mlp import ChannelMlp

CONCENTRATED, PLAIN, SOFTMAX = "concentrated", "plain", "softmax"
NETWORKS = (CONCENTRATED, PLAIN, SOFTMAX)
HEAD_DIM, WINDOW, CONCENTRATION, MLP_RATIO = 16, 7, 7, 4
# hidden channels that cost what concentration does, and in parameters its biases and norms as well
WIDER = CONCENTRATION**2 + 3


def build(name: str, *, channels: int, classes: int, dim: int, patch_size: int) -> Hierarchy:
    """A contender for images of so many channels; its last block has attention of the whole map."""
    heads = dim // HEAD_DIM
    local = WindowAttention2d(
        dim, num_heads=heads, window_size=WINDOW, bias=True, border="zero", position_bias=False
    )
    whole: nn.Module = (
        FullAttention2d(dim, num_heads=heads, bias=True)
        if name == SOFTMAX
        else LinearAttention2d(dim, num_heads=heads)
    )
    blocks = []
    for mixer, linear in ((local, False), (whole, True)):
        near = near_of(
            dim,
            linear=linear,
            concentration_size=CONCENTRATION if name == CONCENTRATED else 0,
            drop_path=0.0,
        )
        blocks.append(L2ViTBlock(dim, mixer, near, drop_path=0.0, mlp_ratio=MLP_RATIO))
    if name != CONCENTRATED:
        blocks[1].mlp = ChannelMlp(dim, MLP_RATIO * dim + WIDER, approximate="none")
    return one_stage(blocks, channels=channels, classes=classes, dim=dim, patch_size=patch_size)
