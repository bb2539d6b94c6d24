"""What windows know of a spot far away: nothing with queries of their own, something with the whole image's.

A second on one core: pip install '.[models]' && python examples/global_context.py
"""

import argparse

import torch

from qna import create_mixer

WINDOW = 4


def main() -> None:
    """Take a bright spot out of a corner, and draw which windows give another answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=4, help="windows per axis")
    options = parser.parse_args()
    torch.manual_seed(0)
    side = options.windows * WINDOW
    without = torch.randn(1, side, side, 16)
    spotted = without.clone()
    spotted[:, :2, :2] += 5
    for name, arguments in (("WindowAttention2d", {}), ("GlobalContextAttention2d", {"halvings": 1})):
        layer = create_mixer(name, 16, num_heads=2, window_size=WINDOW, **arguments).eval()
        with torch.no_grad():
            change = (layer(spotted) - layer(without)).abs().amax(-1)[0]
        changed = change.unfold(0, WINDOW, WINDOW).unfold(1, WINDOW, WINDOW).amax((2, 3)) > 1e-5
        print(name)
        for row in changed.tolist():
            print(" ".join("#" if window else "." for window in row))


if __name__ == "__main__":
    main()
