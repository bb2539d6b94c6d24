"""Double the resolution of images with learned queries, beside bilinear up-sampling.

    python examples/upsample.py                             # handwritten digits: needs '.[train]'
    python examples/upsample.py --photographs --epochs 10   # pieces of photographs: needs '.[dense]'

A quarter of a minute on one core each.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qna
from qna.data import load_data


class Doubler(nn.Module):
    """What bilinear up-sampling misses: (B, H, W, channels) -> (B, 2 H, 2 W, channels)."""

    def __init__(self, channels: int, dim: int = 32):
        super().__init__()
        self.embed = nn.Linear(channels, dim)
        self.mix = qna.QnA2d(dim, num_heads=4, kernel_size=3)
        self.upsample = qna.QnAUpsample2d(dim, num_heads=4, factor=2)
        self.paint = nn.Linear(dim, channels)
        # bilinear up-sampling is where it begins
        for parameter in self.paint.parameters():
            nn.init.zeros_(parameter)

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


def digits() -> list[Tensor]:
    """To train on, and others: uint8 (B, 1, 8, 8)."""
    data = load_data("digits")
    return [data.train.pixels, data.held_out.pixels]


def photographs() -> list[Tensor]:
    """Pieces of three to train on, and of another: uint8 (B, 3, 32, 32)."""
    from skimage import data

    parts = []
    for taken in ([data.astronaut(), data.chelsea(), data.coffee()], [data.rocket()]):
        cut = [torch.from_numpy(photo).unfold(0, 32, 32).unfold(1, 32, 32).flatten(0, 1) for photo in taken]
        parts.append(torch.cat(cut))
    return parts


def halve(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, H, W, C) from 0 to 1, and what is left of them at half the size."""
    images = pixels.float().div(255)
    return images.movedim(1, -1), F.avg_pool2d(images, 2).movedim(1, -1)


def main() -> None:
    """Train, and tell the PSNR on images held out."""
    parser = argparse.ArgumentParser(description="Double the resolution of images.")
    parser.add_argument("--photographs", action="store_true", help="of scikit-image, in place of digits")
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    torch.manual_seed(0)
    train, held_out = photographs() if options.photographs else digits()
    images, small = halve(train)
    network = Doubler(images.shape[-1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for _ in range(options.epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.mse_loss(network(small[batch]), images[batch]).backward()
            optimizer.step()
    images, small = halve(held_out)
    with torch.no_grad():
        restored = network(small)
    print(f"bilinear {psnr(bilinear(small), images):.2f} dB, learned queries {psnr(restored, images):.2f} dB")


if __name__ == "__main__":
    main()
