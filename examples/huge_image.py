"""Features and logits of an image that no memory has to hold: from a file, tile by tile, to a file.

    python examples/huge_image.py
    python examples/huge_image.py --side 8192 --tile 1024 --folder /a/disk
    python examples/huge_image.py --side 512 --tile 128 --picture seams.png

Then a corner is computed whole as well, as far as tiles of its own would see, and must be the same.
"""

import argparse
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import nn

import qna
from qna.models import registry


class FeaturesAndLogits(nn.Module):
    """The last map, (B, H', W', C), and what the classifier makes of its mean."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.peak = 0
        for module in network.modules():
            module.register_forward_hook(self._look)

    def forward(self, x):
        """Of images (B, C, H, W)."""
        features = self.network.forward_features(x)
        return features, self.network.forward_head(features)

    def _look(self, *_):
        self.peak = max(self.peak, own_memory())


def own_memory():
    """Bytes of this process that no file backs."""
    status = Path("/proc/self/status")
    return 1024 * int(re.search(r"RssAnon:\s*(\d+)", status.read_text())[1]) if status.exists() else 0


def draw_image(path, side):
    """Noise of the spectrum of photographs, in strips: a file of bytes, (1, 3, side, side)."""
    image = np.memmap(path, np.float32, "w+", shape=(1, 3, side, side))
    drawn = np.random.default_rng(0)
    for top in range(0, side, 256):
        image[:, :, top : top + 256] = drawn.standard_normal(image[:, :, top : top + 256].shape, np.float32)
    image.flush()
    return np.memmap(path, np.float32, "r", shape=(1, 3, side, side))


def draw_seams(path, network, image, tile):
    """How far the features of tiles are from those of the whole image, without and with a halo."""
    import matplotlib.pyplot as plt

    with torch.no_grad():
        whole, _ = network(image)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
    for ax, halo in zip(axes, (0, "exact"), strict=True):
        features, _ = qna.tiled(network, tile=tile, halo=halo)(image)
        gap = (features - whole).abs().amax(-1)[0] / whole.std()
        shown = ax.imshow(gap.clamp_min(1e-8).log10(), vmin=-8, vmax=0, cmap="magma")
        name = halo if halo == "exact" else f"{halo} pixels"
        ax.set_title(f"halo: {name}; at most {gap.max():.0e}", fontsize=10)
        ax.set_axis_off()
    figure.colorbar(shown, ax=axes, label="log10 of the difference / spread")
    figure.savefig(path, dpi=110)


def main():
    """Draw, compute, compare."""
    parser = argparse.ArgumentParser(description="An image in tiles.")
    parser.add_argument("--side", type=int, default=1024, metavar="PIXELS")
    parser.add_argument("--tile", type=int, default=512, metavar="PIXELS")
    parser.add_argument("--model", default="qna_vit_nano_16", metavar="NAME")
    parser.add_argument(
        "--folder", type=Path, help="for the image and its features; default: a temporary one"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the seams that a halo removes")
    options = parser.parse_args()
    torch.manual_seed(0)
    network = FeaturesAndLogits(registry.create(options.model).eval().fuse())
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, Progress() as bar:
        image = draw_image(Path(folder) / "image", options.side)
        task = bar.add_task("tiles")
        tiled = qna.tiled(
            network,
            tile=options.tile,
            notify=lambda done, total: bar.update(task, completed=done, total=total),
        )

        plan = tiled.plan(image.shape)
        places = plan.followed.ends[0]
        shape = (1, *places.sizes, network.network.num_features)
        features = np.memmap(Path(folder) / "features", np.float32, "w+", shape=shape)
        logits = torch.empty(1, network.network.num_classes)

        before, began, cpu = own_memory(), time.perf_counter(), time.process_time()
        tiled(image, out=(features, logits))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        print(
            f"{options.model} on {options.side} x {options.side} pixels: {len(plan)} tiles of at most "
            f"{plan.largest} pixels, halo {plan.halo[0]}, period {plan.period[0]}, "
            f"{plan.overhead:.2f} pixels computed per pixel"
        )
        peak = (network.peak - before) / 1e6
        print(f"{seconds:.1f} s, {cpu:.1f} s of processors, {peak:.0f} MB of memory at the peak")

        # as whole as it has to be: from the corner to two tiles and their halo
        cut = min(2 * options.tile, options.side)
        part = min(
            -(-(cut + plan.halo[0][1]) // plan.period[0]) * plan.period[0] + options.side % plan.period[0],
            options.side,
        )
        with torch.no_grad():
            whole, _ = network(torch.from_numpy(np.array(image[:, :, :part, :part])))
        n = int(cut / places.stride[0])
        gap = np.abs(features[:, :n, :n] - whole[:, :n, :n].numpy()).max()
        print(f"largest difference to the corner in one piece: {gap:.1e}; spread {whole.std():.2f}")
        assert gap < 1e-4
        if options.picture is not None:
            draw_seams(options.picture, network, torch.from_numpy(np.array(image)), options.tile)


if __name__ == "__main__":
    main()
