"""Networks that see further or less far, alike in all else."""

from __future__ import annotations

from qna.models.nat import NAT, NATVariant

DILATED, PLAIN, WIDER = "dinat", "nat", "nat-5x5"
_KERNEL = 3
# contender -> positions per axis of its neighbourhoods, and whether every second block is dilated
CONTENDERS = {DILATED: (_KERNEL, True), PLAIN: (_KERNEL, False), WIDER: (5, False)}


def build(name: str, *, channels: int, size: int, dim: int, blocks: int, patch_size: int) -> NAT:
    """A contender: the layout of DiNAT_s, whose positions see nothing of others but by attention.

    Args:
        name: in `CONTENDERS`.
        channels: of the images.
        size: their height and width.
        dim: channels.
        blocks: of its one stage; every second is dilated where any is.
        patch_size: pixels per axis of a position of the map.
    """
    kernel, dilated = CONTENDERS[name]
    variant = NATVariant(
        dim,
        (blocks,),
        2,
        dilations=(dilation_of(-(-size // patch_size), kernel) if dilated else 1,),
        head_dim=16,
        kernel_size=kernel,
        overlapping=False,
        patch_size=patch_size,
        image_size=size,
    )
    return NAT(variant, in_chans=channels, num_classes=10)


def dilation_of(size: int, kernel: int) -> int:
    """The largest with which a window fits a map of `size` positions per axis, as in the paper."""
    return max(1, size // kernel)
