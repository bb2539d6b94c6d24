"""Image tokens that attend a window and all text tokens in one softmax: joint attention at a window's cost.

    python examples/joint_tokens.py
    python examples/joint_tokens.py --side 128 --text 256 --kernel 16 --stride 8

In image generators each image token attends every token of image and text, which grows with the fourth power
of the image's side. Here it attends the image tokens around it; text tokens are few, and attend everything.
Dense attention under a mask, as long as that fits, must give the same.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.ops import neighborhood_attention

Tokens = Sequence[Tensor]  # queries, keys and values
MOST = 8192  # tokens whose dense mask is made for the comparison


def joint_attention(image: Tokens, text: Tokens, kernel_size: int, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Queries, keys and values of the image (B, H, W, heads, d) and of the text (B, M, heads, d).

    Positions, rotary ones say, are put into queries and keys before.

    Returns:
        what either attends, in these shapes.
    """
    _, keys, values = text
    of_image = neighborhood_attention(
        *image, kernel_size=kernel_size, stride=stride, extra_keys=keys, extra_values=values
    )
    everything = [torch.cat([t, i.flatten(1, 2)], 1) for t, i in zip(text[1:], image[1:], strict=True)]
    of_text = dense_attention(text[0], *everything)
    return of_image, of_text


def dense_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Of tokens (B, N, heads, d); `mask` is (N, N'), True where a query attends a key."""
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def joint_mask(height: int, width: int, text: int, kernel_size: int, stride: int) -> Tensor:
    """Who attends whom, image tokens first: a window is centred on the middle of its stride's group."""

    def along(size: int) -> Tensor:
        at = torch.arange(size)
        middle = (at // stride * stride + stride // 2).clamp(max=size - 1)
        start = (middle - kernel_size // 2).clamp(0, size - kernel_size)
        return (at >= start[:, None]) & (at < start[:, None] + kernel_size)

    rows, columns = along(height), along(width)
    window = (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1)
    return F.pad(window, (0, text, 0, text), value=True)


def by_dense_attention(
    image: Tokens, text: Tokens, kernel_size: int, stride: int = 1
) -> tuple[Tensor, Tensor]:
    """As `joint_attention`, with all tokens in a row and a mask of all pairs."""
    _, height, width, *_ = image[0].shape
    row = [torch.cat([i.flatten(1, 2), t], 1) for i, t in zip(image, text, strict=True)]
    mask = joint_mask(height, width, text[0].shape[1], kernel_size, stride)
    of_image, of_text = dense_attention(*row, mask).split([height * width, text[0].shape[1]], 1)
    return of_image.unflatten(1, (height, width)), of_text


def timed(call: Callable[[], tuple[Tensor, Tensor]]) -> tuple[tuple[Tensor, Tensor], float]:
    """What it gives, and the milliseconds of its second call."""
    call()
    begin = time.perf_counter()
    found = call()
    return found, (time.perf_counter() - begin) * 1e3


def main() -> None:
    """Run both on random tokens, and tell how they differ and what they take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=48, help="image tokens along each axis")
    parser.add_argument("--text", type=int, default=64, help="text tokens")
    parser.add_argument("--kernel", type=int, default=13)
    parser.add_argument(
        "--stride", type=int, default=1, help="image tokens along an axis that share a window"
    )
    asked = parser.parse_args()
    torch.manual_seed(0)
    heads, dim = 4, 32
    image = tuple(torch.randn(1, asked.side, asked.side, heads, dim) for _ in range(3))
    text = tuple(torch.randn(1, asked.text, heads, dim) for _ in range(3))
    arguments = (image, text, asked.kernel, asked.stride)
    ours, took = timed(lambda: joint_attention(*arguments))
    print(f"{asked.side}x{asked.side} image and {asked.text} text tokens: {took:.1f} ms")
    if asked.side**2 + asked.text > MOST:
        print(f"dense attention under a mask is left out above {MOST} tokens")
        return
    dense, took = timed(lambda: by_dense_attention(*arguments))
    error = max(float((a - b).abs().max()) for a, b in zip(ours, dense, strict=True))
    print(f"dense attention under a mask: {took:.1f} ms, largest difference {error:.1e}")


if __name__ == "__main__":
    main()
