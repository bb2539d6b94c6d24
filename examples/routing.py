"""Which regions of a picture choose which: three striped spots far apart find each other.

A second on one core: pip install '.[models]' && python examples/routing.py
"""

import argparse

import torch
from torch import Tensor, nn

from qna import create_mixer
from qna.analysis.cost import total_macs

REGIONS = 7
# regions (row, column) that are striped
SPOTS = ((1, 1), (1, 5), (5, 3))


def picture(side: int) -> Tensor:
    """A map (1, side, side, 4) of noise: two channels are high in striped spots, two elsewhere."""
    g = torch.Generator().manual_seed(0)
    x = 0.3 * torch.randn(1, side, side, 4, generator=g)
    x[..., 2:] += 1
    size = -(-side // REGIONS)
    for row, column in SPOTS:
        spot = x[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
        spot[..., :2] += 3
        spot[..., 2:] -= 1
    return x


def main() -> None:
    """Route, and draw in letters what the first spot attends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=56, help="pixels per axis, of at least 7")
    options = parser.parse_args()
    x = picture(options.side)
    torch.manual_seed(0)
    layer = create_mixer("BiLevelRoutingAttention2d", 4, num_heads=1, regions=REGIONS, topk=3)
    with torch.no_grad():
        # queries and keys as the picture has them: what is alike meets best
        layer.qkv.weight[:8].copy_(torch.eye(4).repeat(2, 1))
        nn.init.zeros_(layer.qkv.bias)
        chosen = layer.routes(x)[0, SPOTS[0][0], SPOTS[0][1]].tolist()
        for row in range(REGIONS):
            numbers = [row * REGIONS + column for column in range(REGIONS)]
            print(" ".join("#" if number in chosen else "." for number in numbers))
    full = create_mixer("BiLevelRoutingAttention2d", 4, num_heads=1, regions=REGIONS, topk=REGIONS**2)
    routed, whole = (total_macs(mixer, x.shape) / 1e6 for mixer in (layer, full))
    print(f"{routed:.2f} million multiply-adds, to all regions {whole:.2f}")


if __name__ == "__main__":
    main()
