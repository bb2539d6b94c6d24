"""Memory of one image in tiles, in a process of its own: ``python -m tests.tiling.peak SIDE FOLDER``.

Image and results lie in files. Prints the bytes of the process's own memory at its peak beyond what it held
before: pages of files, which the system takes back when it needs them, are not counted.
"""

import re
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import qna
from qna.bench.measure.memory import return_freed_blocks
from qna.models import registry


def own():
    """Bytes of this process that no file backs."""
    return 1024 * int(re.search(r"RssAnon:\s*(\d+)", Path("/proc/self/status").read_text())[1])


class Watched(nn.Module):
    """The network's map, and its memory while it is made."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.peak = 0
        for module in network.modules():
            module.register_forward_hook(self._look)

    def _look(self, *_):
        self.peak = max(self.peak, own())

    def forward(self, x):
        return self.network.forward_features(x)


def main(side, folder):
    torch.set_num_threads(1)
    return_freed_blocks()
    side, folder = int(side), Path(folder)
    network = Watched(registry.create("qna_vit_nano_16").eval())
    pixels = np.memmap(folder / f"pixels{side}", np.float32, "w+", shape=(1, 3, side, side))
    out = np.memmap(folder / f"out{side}", np.float32, "w+", shape=(1, side // 8, side // 8, 128))
    tiled = qna.tiled(network, tile=128)
    tiled(pixels)  # what is allocated once: torch's libraries keep code for every shape of tile
    before, network.peak = own(), 0
    tiled(pixels, out=out)
    print(network.peak - before)  # noqa: T201 (for its parent)


if __name__ == "__main__":
    main(*sys.argv[1:])
