"""Learn handwritten digits of one size with a small TransNeXt, and name digits of other sizes with it.

Half a minute on one core: pip install '.[train]' && python examples/transnext.py
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from qna import models
from qna.data import load_data


def images(pixels: Tensor, size: int) -> Tensor:
    """Images (B, 1, 8, 8) of bytes as (B, 1, size, size) from -1 to 1."""
    return F.interpolate(pixels.float() / 127.5 - 1, (size, size), mode="bilinear")


def main() -> None:
    """Train, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--model", default="transnext_nano_16", help="or nat_nano_16, qna_vit_nano_16 ...")
    parser.add_argument("--sizes", type=int, nargs="+", default=(16, 21, 24, 32))
    options = parser.parse_args()
    torch.manual_seed(0)
    data = load_data("digits")
    network = models.create(options.model, in_chans=1, num_classes=10)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for _ in range(options.epochs):
        for batch in torch.randperm(len(data.train.pixels)).split(32):
            optimizer.zero_grad()
            logits = network(images(data.train.pixels[batch], 16))
            F.cross_entropy(logits, data.train.labels[batch]).backward()
            optimizer.step()
    network.eval()
    for size in options.sizes:
        with torch.no_grad():
            answers = network(images(data.held_out.pixels, size)).argmax(1)
        right = (answers == data.held_out.labels).double().mean()
        print(f"{size} x {size}: {100 * right:.1f} % of {len(answers)} held-out digits right")


if __name__ == "__main__":
    main()
