"""Learn handwritten digits with a small NAT, and tell what part of the held-out ones it gets right.

Half a minute on one core: pip install '.[train]' && python examples/neighborhood.py
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from qna import models
from qna.data import load_data


def images(pixels: Tensor) -> Tensor:
    """Images (B, 1, 8, 8) of bytes as (B, 1, 16, 16) from -1 to 1."""
    return F.interpolate(pixels.float() / 127.5 - 1, scale_factor=2.0, mode="bilinear")


def main() -> None:
    """Train, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--model", default="nat_nano_16", help="or dinat_s_nano_16, qna_vit_nano_16 ...")
    options = parser.parse_args()
    torch.manual_seed(0)
    data = load_data("digits")
    network = models.create(options.model, in_chans=1, num_classes=10)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for _ in range(options.epochs):
        for batch in torch.randperm(len(data.train.pixels)).split(32):
            optimizer.zero_grad()
            logits = network(images(data.train.pixels[batch]))
            F.cross_entropy(logits, data.train.labels[batch]).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        answers = network(images(data.held_out.pixels)).argmax(1)
    right = (answers == data.held_out.labels).double().mean()
    print(f"{options.model}: {100 * right:.1f} % of {len(answers)} held-out digits right")


if __name__ == "__main__":
    main()
