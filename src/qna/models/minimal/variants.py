"""The sizes of the minimal transformer, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qna._core.checks import head_dim, natural, per_axis, positive, rate
from qna._core.errors import check_choice
from qna.models.family import Variant
from qna.parts.minimal_attention import QK, VALUES


@dataclass(frozen=True)
class MinimalVariant(Variant):
    """A row of blocks of one form of attention, after which each is normalised.

    Attributes:
        dim: channels.
        depth: blocks.
        num_heads: of the attention.
        qk: form of queries and keys: "full", "collapsed" or "symmetric".
        value: form of values and output: "full", "collapsed" or "none".
        mlp_ratio: hidden channels of a block's MLP per channel; 0 for no MLP, and no norm of it.
        patch_size: pixels per axis of a token.
        drop: dropout in training, of tokens as they come in, of attention's weights and of both branches.
        drop_path_rate: of the last block in training; it grows linearly from 0. The re-implementation has
            none.
        image_size: pixels per axis, or height and width, for which positions are learned; a caller changes it
            by `img_size`.
        channels: of the images of the data set that it is named after, and of the published count; what a
            network takes is told by `in_chans`.
        classes: logits, where nothing else is said.
        published: parameters that the re-implementation tells, with images of so many channels. It counts a
            norm of 2 `dim` in each block that has no MLP, which nothing runs through.
    """

    dim: int = 64
    depth: int = 6
    num_heads: int = 1
    qk: str = "full"
    value: str = "full"
    mlp_ratio: int = 1
    patch_size: int = 7
    drop: float = 0.1
    drop_path_rate: float = 0.0
    image_size: int | tuple[int, int] = 28  # pyright: ignore[reportIncompatibleVariableOverride]
    channels: int = 1
    classes: int = 10
    published: int | None = None

    def __post_init__(self):
        owner = type(self).__name__
        names = ("dim", "depth", "patch_size", "channels", "classes")
        positive(owner, **{name: getattr(self, name) for name in names})
        natural(owner, mlp_ratio=self.mlp_ratio)
        head_dim(owner, self.dim, self.num_heads)
        rate(owner, drop=self.drop)
        check_choice("qk", self.qk, QK)
        check_choice("value", self.value, VALUES)

    @property
    def unused(self) -> int:
        """Parameters of the published count that nothing runs through, and that are not built here."""
        return 0 if self.mlp_ratio else 2 * self.dim * self.depth

    @property
    def map_size(self) -> tuple[int, int]:
        """Rows and columns of tokens for which positions are learned."""
        height, width = per_axis("img_size", self.image_size, 2, minimum=1)
        return -(-height // self.patch_size), -(-width // self.patch_size)

    @classmethod
    def settings(cls) -> set[str]:
        """Names of the fields that a caller may change; the images' size goes by timm's name, `img_size`."""
        return super().settings() - {"image_size", "channels", "classes", "published"}


_MNIST = MinimalVariant()
_CIFAR = replace(_MNIST, patch_size=8, image_size=32, channels=3)
_COLLAPSED = {"qk": "collapsed"}
_MINIMAL = {"qk": "collapsed", "value": "none"}
_SYMMETRIC = {"qk": "symmetric", "mlp_ratio": 0}
# a vision transformer's, of one head
_TINY = MinimalVariant(
    dim=192, depth=12, mlp_ratio=4, patch_size=16, drop=0.0, image_size=224, channels=3, classes=1000
)


def _of(base: MinimalVariant, published: int, **sizes: object) -> MinimalVariant:
    """A published size: a network takes images of three channels unless it is told otherwise."""
    made = replace(base, **sizes)  # pyright: ignore[reportArgumentType]
    further = (3 - made.channels) * made.patch_size**2 * made.dim
    return replace(made, published=published, parameters=published - made.unused + further)


MINIMAL = {
    "minimal_mnist_full_mlp": _of(_MNIST, 156_298),
    "minimal_mnist_full_mlp_4": _of(_MNIST, 156_298, num_heads=4),
    "minimal_mnist_collapsed_mlp": _of(_MNIST, 131_338, **_COLLAPSED),
    "minimal_mnist_minimal_mlp": _of(_MNIST, 81_418, **_MINIMAL),
    "minimal_mnist_full": _of(_MNIST, 106_378, mlp_ratio=0),
    "minimal_mnist_full_4": _of(_MNIST, 106_378, mlp_ratio=0, num_heads=4),
    "minimal_mnist_symmetric": _of(_MNIST, 68_938, **_SYMMETRIC),
    "minimal_mnist_symmetric_4": _of(_MNIST, 59_722, **_SYMMETRIC, num_heads=4),
    "minimal_mnist_collapsed": _of(_MNIST, 81_418, **_COLLAPSED, mlp_ratio=0),
    "minimal_mnist_minimal": _of(_MNIST, 31_498, **_MINIMAL, mlp_ratio=0),
    "minimal_cifar_full_mlp": _of(_CIFAR, 165_450),
    "minimal_cifar_full_mlp_4": _of(_CIFAR, 165_450, num_heads=4),
    "minimal_cifar_minimal_mlp": _of(_CIFAR, 90_570, **_MINIMAL),
    "minimal_cifar_full": _of(_CIFAR, 115_530, mlp_ratio=0),
    "minimal_cifar_full_4": _of(_CIFAR, 115_530, mlp_ratio=0, num_heads=4),
    "minimal_cifar_symmetric": _of(_CIFAR, 78_090, **_SYMMETRIC),
    "minimal_cifar_symmetric_4": _of(_CIFAR, 68_874, **_SYMMETRIC, num_heads=4),
    "minimal_cifar_collapsed": _of(_CIFAR, 90_570, **_COLLAPSED, mlp_ratio=0),
    "minimal_cifar_minimal": _of(_CIFAR, 40_650, **_MINIMAL, mlp_ratio=0),
    # ours: all of attention and MLP of a tiny vision transformer, of one head, and what is left of it
    "minimal_tiny_full_mlp": replace(_TINY, parameters=5_717_032),
    "minimal_tiny_collapsed_mlp": replace(_TINY, **_COLLAPSED, parameters=5_272_360),
    "minimal_tiny_minimal": replace(_TINY, **_MINIMAL, mlp_ratio=0, parameters=827_944),
}
