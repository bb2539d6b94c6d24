"""Names and layouts of the authors' Flax parameters, tensor by tensor, for a `QnAViT`.

Theirs differ from ours in five ways: kernels of linear layers and convolutions end with (in, out); the
channels of QnA's values run over (h, d), ours over (d, h); queries, keys and values of self-attention lie
head by head, (h, 3, d), ours (3, h, d); a window's taps share one axis, as do its L * h tables; a strided
block ends a stage, ours begins the next. Each tensor is a reshape, a permutation and a reshape of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from qna.mixers import QnA2d, QnAPool2d, WindowAttention2d
from qna.models._parts.block import MixerBlock
from qna.models._parts.shortcut import AveragePoolShortcut
from qna.models._parts.stem import ResNetStem
from qna.models.qna_vit.network import QnAViT


@dataclass(frozen=True)
class AuthorsTensor:
    """One tensor under both its names.

    Attributes:
        path: the authors' name, with its collection: "params/StemBlock_0/conv_1x1/kernel".
        key: ours, in the state dict.
        shape: the authors' shape.
        split: `shape` with axes split in their factors.
        order: the permutation of `split` that becomes ours.
        ours: our shape.
    """

    path: str
    key: str
    shape: tuple[int, ...]
    split: tuple[int, ...]
    order: tuple[int, ...]
    ours: tuple[int, ...]

    def from_authors(self, tensor: Tensor) -> Tensor:
        """Our layout of the authors' tensor, contiguous."""
        return tensor.reshape(self.split).permute(self.order).reshape(self.ours).contiguous()

    def to_authors(self, tensor: Tensor) -> Tensor:
        """The authors' layout of our tensor, contiguous."""
        permuted = tensor.reshape([self.split[axis] for axis in self.order])
        back = [self.order.index(axis) for axis in range(len(self.order))]
        return permuted.permute(back).reshape(self.shape).contiguous()


def authors_tensors(model: QnAViT) -> list[AuthorsTensor]:
    """Every tensor of `model` that its state dict holds, with the authors' name and layout."""
    return [
        *_stem(model.stem),
        *_blocks(model.stages),
        *_norm("ClassificationHead_0/LayerNorm_0", "norm", model.norm),
        *_pool("ClassificationHead_0/FusedKQnA_0", "head.pool.attention", model.head.pool),
        *_linear("ClassificationHead_0/head_logits", "head.fc", model.head.fc),
    ]


def _blocks(stages: nn.Sequential) -> Iterator[AuthorsTensor]:
    learned = 0
    for i, stage in enumerate(stages):
        windowed = 0
        for j, block in enumerate(stage.children()):
            assert isinstance(block, MixerBlock)
            if isinstance(block.mixer, WindowAttention2d):
                windowed += 1
                name = f"LSAStage_{i}/MSA_Block_{windowed}"
            elif isinstance(block.shortcut, nn.Identity):
                learned += 1
                name = f"QnAStage_{i}/QnA_Block_{learned}"
            else:
                name = f"QnAStage_{i - 1}/QnA_Block_{learned + 1}_stride_2"
                learned = 0
            yield from _block(name, f"stages.{i}.{j}", block)


def _block(path: str, key: str, block: MixerBlock) -> Iterator[AuthorsTensor]:
    if not isinstance(block.shortcut, nn.Identity):
        pooled = isinstance(block.shortcut, AveragePoolShortcut)
        conv = f"{path}/AvgPool1x1Conv_0/Conv_0" if pooled else f"{path}/Conv_0"
        weight = block.shortcut.get_parameter("proj.weight")
        out, inner = weight.shape
        yield _tensor(
            f"{conv}/kernel", f"{key}.shortcut.proj.weight", weight, (inner, out), (1, 0), lead=(1, 1)
        )
    yield from _norm(f"{path}/LayerNorm_0", f"{key}.norm1", block.norm1)
    if isinstance(block.mixer, WindowAttention2d):
        yield from _window(f"{path}/MultiHeadSelfAttention_0", f"{key}.mixer", block.mixer)
    else:
        assert isinstance(block.mixer, QnA2d)
        yield from _qna(f"{path}/FusedKQnA_0", f"{key}.mixer", block.mixer)
    yield from _norm(f"{path}/LayerNorm_1", f"{key}.norm2", block.norm2)
    yield from _linear(f"{path}/MlpBlock_0/Dense_0", f"{key}.mlp.fc1", block.mlp.fc1)
    yield from _linear(f"{path}/MlpBlock_0/Dense_1", f"{key}.mlp.fc2", block.mlp.fc2)


def _qna(path: str, key: str, layer: QnA2d | QnAPool2d) -> Iterator[AuthorsTensor]:
    part = layer.project.get_parameter
    L, h, d = part("query").shape
    C, out, table = layer.dim, layer.out_dim, part("position.table")
    taps = (table.shape[0] * table.shape[1], L * h)
    key, out_key = f"{key}.project", f"{key}.out.weight"
    yield _tensor(f"{path}/query", f"{key}.query", part("query"), (L, h, d), (0, 1, 2), shape=(L, h * d))
    yield _tensor(f"{path}/Wk", f"{key}.key", part("key"), (C, h, d), (1, 2, 0), shape=(C, h * d))
    yield _tensor(
        f"{path}/to_v/kernel",
        f"{key}.value.weight",
        part("value.weight"),
        (C, h, d),
        (2, 1, 0),
        shape=(C, h * d),
    )
    yield _tensor(
        f"{path}/attn_scale_weights",
        f"{key}.query_weight.table",
        part("query_weight.table"),
        tuple(table.shape),
        (0, 1, 2, 3),
        shape=(1, 1, *taps),
    )
    yield _tensor(
        f"{path}/rpe_bias", f"{key}.position.table", table, tuple(table.shape), (0, 1, 2, 3), shape=taps
    )
    yield _tensor(
        f"{path}/to_out/kernel", out_key, layer.out.weight, (h, d, out), (2, 1, 0), shape=(h * d, out)
    )


def _window(path: str, key: str, layer: WindowAttention2d) -> Iterator[AuthorsTensor]:
    C, h, table = layer.dim, layer.num_heads, layer.position_table
    assert table is not None
    rpe = f"{path}/RelativePositionalEmbedding_0/rpe_bias"
    offsets = (table.shape[0] * table.shape[1], h)
    yield _tensor(rpe, f"{key}.position_table", table, tuple(table.shape), (0, 1, 2), shape=offsets)
    yield _tensor(
        f"{path}/to_qkv/kernel",
        f"{key}.qkv.weight",
        layer.qkv.weight,
        (C, h, 3, C // h),
        (2, 1, 3, 0),
        shape=(C, 3 * C),
    )
    yield from _linear(f"{path}/to_out", f"{key}.out", layer.out)


def _pool(path: str, key: str, pool: nn.Module) -> Iterator[AuthorsTensor]:
    attention = getattr(pool, "attention", None)
    if isinstance(attention, QnAPool2d):
        yield from _qna(path, key, attention)


def _stem(stem: nn.Module) -> Iterator[AuthorsTensor]:
    weight = stem.get_parameter("conv.weight")
    out, inner, rows, columns = weight.shape
    name = "conv_7x7" if isinstance(stem, ResNetStem) else "conv_1x1"
    split = (rows, columns, inner, out)
    yield _tensor(f"StemBlock_0/{name}/kernel", "stem.conv.weight", weight, split, (3, 2, 0, 1))
    if isinstance(stem, ResNetStem):
        path, key, norm = "StemBlock_0/BatchNorm_0", "stem.norm", stem.norm
        yield from _norm(path, key, norm)
        mean, var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        yield _vector(f"{path}/mean", f"{key}.running_mean", mean, collection="batch_stats")
        yield _vector(f"{path}/var", f"{key}.running_var", var, collection="batch_stats")


def _norm(path: str, key: str, norm: nn.Module) -> Iterator[AuthorsTensor]:
    yield _vector(f"{path}/scale", f"{key}.weight", norm.get_parameter("weight"))
    yield _vector(f"{path}/bias", f"{key}.bias", norm.get_parameter("bias"))


def _linear(path: str, key: str, layer: nn.Module) -> Iterator[AuthorsTensor]:
    if not isinstance(layer, nn.Linear):
        return  # a head without classes
    yield _tensor(
        f"{path}/kernel", f"{key}.weight", layer.weight, (layer.in_features, layer.out_features), (1, 0)
    )
    if layer.bias is not None:
        yield _vector(f"{path}/bias", f"{key}.bias", layer.bias)


def _vector(path: str, key: str, ours: Tensor, *, collection: str = "params") -> AuthorsTensor:
    shape = tuple(ours.shape)
    return AuthorsTensor(f"{collection}/{path}", key, shape, shape, (0,), shape)


def _tensor(
    path: str,
    key: str,
    ours: Tensor,
    split: tuple[int, ...],
    order: tuple[int, ...],
    *,
    shape: tuple[int, ...] | None = None,
    lead: tuple[int, ...] = (),
) -> AuthorsTensor:
    shape = lead + split if shape is None else shape
    return AuthorsTensor(f"params/{path}", key, shape, split, order, tuple(ours.shape))
