"""The sizes of Terminator, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qna._core.checks import not_negative, positive, rate
from qna._core.errors import InvalidInput
from qna.models.family import Variant

# kernels of a block's local branches, by what they read and what they take their context from
LOCAL_BRANCHES = 4


@dataclass(frozen=True)
class TerminatorVariant(Variant):
    """A row of slow-fast blocks on a map that is never halved.

    Attributes:
        dims: channels that each block makes; each a multiple of 12, by whose groups they are standardised.
        earlier: for each block, which blocks' maps its bottleneck reads beside its input, which is the map of
            the block before; their channels are repeated to as many as the input's.
        kernel_sizes: of a block's local branches, four odd numbers.
        layers: of each block's slow net for the whole map.
        hidden: channels of the slow nets for maps.
        local_hidden: of those for the local kernels.
        channel_hidden: of the one that weighs channels.
        interact_hidden: of the one that weighs the channels of an interaction.
        batch_context: local kernels follow from the mean over the batch, as published, or from each image.
        running_stats: standardise over the batch by running statistics in evaluation, not by the batch at
            hand as published.
        slow_loss: weight of the slow loss in training, 1 in the author's; above 0 the network then gives
            `WithLosses`.
        drop_path_rate: of whole channels that are left out in training, after every block but the first;
            there are no paths around a block.
        classes: logits, where nothing else is said.
    """

    dims: tuple[int, ...] = (12, 36, 72, 144, 288)
    earlier: tuple[tuple[int, ...], ...] = ((), (), (0,), (1,), (2, 1))
    kernel_sizes: tuple[int, ...] = (3, 9, 5, 7)
    layers: tuple[int, ...] = (3, 2, 2, 2, 2)
    hidden: int = 64
    local_hidden: int = 32
    channel_hidden: int = 32
    interact_hidden: int = 16
    batch_context: bool = True
    running_stats: bool = False
    slow_loss: float = 0.0
    drop_path_rate: float = 0.05
    classes: int = 10
    image_size: int = 32

    @classmethod
    def settings(cls) -> set[str]:
        """Names of the fields that a caller may change; images' size goes by timm's name, `img_size`."""
        return super().settings() - {"image_size"}

    def __post_init__(self):
        owner = type(self).__name__
        names = ("hidden", "local_hidden", "channel_hidden", "interact_hidden", "classes", "image_size")
        positive(owner, **{name: getattr(self, name) for name in names})
        rate(owner, drop_path_rate=self.drop_path_rate)
        for name in ("dims", "layers", "kernel_sizes"):
            numbers = getattr(self, name)
            if not isinstance(numbers, tuple | list) or not numbers:
                raise InvalidInput(f"{name} must be a tuple of integers, got {numbers!r}")
            positive(owner, **{f"{name}[{i}]": n for i, n in enumerate(numbers)})
        if len(self.kernel_sizes) != LOCAL_BRANCHES or not all(k % 2 for k in self.kernel_sizes):
            raise InvalidInput(f"kernel_sizes must be {LOCAL_BRANCHES} odd numbers, got {self.kernel_sizes}")
        if not isinstance(self.earlier, tuple | list):
            raise InvalidInput(f"earlier must tell of every block which maps it reads, got {self.earlier!r}")
        for name in ("batch_context", "running_stats"):
            # a word would count as True whatever it says
            if not isinstance(getattr(self, name), bool):
                raise InvalidInput(f"{name} must be True or False, got {getattr(self, name)!r}")
        if not len(self.dims) == len(self.layers) == len(self.earlier):
            raise InvalidInput(
                f"dims, layers and earlier must tell of as many blocks, got {len(self.dims)}, "
                f"{len(self.layers)} and {len(self.earlier)}"
            )
        not_negative(owner, slow_loss=self.slow_loss)
        for number, places in enumerate(self.earlier):
            listed = isinstance(places, tuple | list)
            if not (listed and all(type(place) is int and 0 <= place < number - 1 for place in places)):
                raise InvalidInput(f"earlier[{number}] must name blocks before {number - 1}, got {places}")


_CIFAR10 = TerminatorVariant(parameters=1_339_395)

# the author's code counts 1,336,855 and 1,362,865: it has the 2,560 weights of the renormalisation in lists,
# where they are not counted, and 20 biases more that a standardisation takes away
TERMINATOR = {
    "terminator_cifar10": _CIFAR10,
    "terminator_cifar100": replace(_CIFAR10, classes=100, parameters=1_365_405),
    # ours, for tests and first tries
    "terminator_nano_16": TerminatorVariant(
        dims=(12, 24, 48),
        earlier=((), (), (0,)),
        layers=(2, 1, 1),
        hidden=16,
        local_hidden=8,
        channel_hidden=8,
        interact_hidden=8,
        image_size=16,
        parameters=43_839,
    ),
}
