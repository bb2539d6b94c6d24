"""Double the resolution of handwritten digits with learned queries, beside bilinear up-sampling.

A quarter of a minute on one core: pip install '.[train]' && python examples/upsample.py
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qna
from qna.data import load_data


class Doubler(nn.Module):
    """What bilinear up-sampling misses: (B, H, W, 1) -> (B, 2 H, 2 W, 1)."""

    def __init__(self, dim: int = 32):
        super().__init__()
        self.embed = nn.Linear(1, dim)
        self.mix = qna.QnA2d(dim, num_heads=4, kernel_size=3)
        self.upsample = qna.QnAUpsample2d(dim, num_heads=4, factor=2)
        self.paint = nn.Linear(dim, 1)

    def forward(self, small: Tensor) -> Tensor:
        """The doubled image."""
        x = self.embed(small)
        x = F.gelu(self.upsample(x + self.mix(x)))
        return bilinear(small) + self.paint(x)


def bilinear(small: Tensor) -> Tensor:
    """Twice the height and width."""
    return F.interpolate(small.movedim(-1, 1), scale_factor=2.0, mode="bilinear").movedim(1, -1)


def psnr(restored: Tensor, images: Tensor) -> float:
    """In dB, of values from 0 to 1."""
    return float(-10 * F.mse_loss(restored.clamp(0, 1), images).log10())


def halve(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, H, W, 1) from 0 to 1, and what is left of them at half the size."""
    images = pixels.float().div(255)
    return images.movedim(1, -1), F.avg_pool2d(images, 2).movedim(1, -1)


def main() -> None:
    """Train on digits and tell the PSNR on those held out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    epochs = parser.parse_args().epochs
    torch.manual_seed(0)
    data = load_data("digits")
    images, small = halve(data.train.pixels)
    network = Doubler()
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.mse_loss(network(small[batch]), images[batch]).backward()
            optimizer.step()
    images, small = halve(data.held_out.pixels)
    with torch.no_grad():
        restored = network(small)
    print(f"bilinear {psnr(bilinear(small), images):.2f} dB, learned queries {psnr(restored, images):.2f} dB")


if __name__ == "__main__":
    main()
