"""The random weights and images of the golden logits; shared by their generator (under JAX) and their test.

Needs numpy alone. `RandomState` draws the same numbers in every version of numpy.
"""

import math
import zlib

import numpy as np

# tensors that start at zero or near it get values large enough to show in the logits
SCALES = {"bias": 0.2, "rpe_bias": 0.5, "attn_scale_weights": 0.5, "mean": 0.3}


def tensor(path, shape):
    """Values of what the authors call `path`, for example "params/StemBlock_0/conv_1x1/kernel"."""
    leaf = path.rsplit("/", 1)[-1]
    draws = np.random.RandomState(zlib.crc32(path.encode())).standard_normal(shape)
    if leaf in ("scale", "var"):
        values = 1 + 0.2 * np.tanh(draws)
    elif leaf in SCALES:
        values = SCALES[leaf] * draws
    elif leaf == "query":
        values = draws
    elif leaf == "Wk":
        # keys of three times the usual length: attention far from even
        values = draws * 3 / math.sqrt(shape[0])
    else:
        values = draws / math.sqrt(math.prod(shape[:-1]))
    return values.astype(np.float32)


def image(size):
    """One image, channels last."""
    return np.random.RandomState(7).standard_normal((1, size, size, 3)).astype(np.float32)


def torch_tensor(name, shape):
    """Values of what authors who train in PyTorch call `name`, for example "levels.0.blocks.1.attn.rpb"."""
    leaf = name.rsplit(".", 1)[-1]
    draws = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if leaf.startswith("gamma") or leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        # scales of norms and of branches
        values = 1 + 0.2 * np.tanh(draws)
    elif leaf == "rpb":
        values = 0.5 * draws
    elif len(shape) == 1:
        values = 0.2 * draws
    elif name.endswith("qkv.weight"):
        # attention far from even
        values = draws * 2 / math.sqrt(shape[1])
    else:
        values = draws / math.sqrt(math.prod(shape[1:]))
    return values.astype(np.float32)


def images(*size):
    """Two images, channels first."""
    return np.random.RandomState(7).standard_normal((2, 3, *size)).astype(np.float32)
