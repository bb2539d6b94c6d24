"""Write vsa.json: logits of the authors' own ViTAEv2 on the weights and images of `rule.py`.

    PYTHON tests/models/golden/generate_vsa.py --official CHECKOUT/Image-Classification

CHECKOUT is ViTAE-Transformer/ViTAE-VSA, PYTHON that of this package with einops; all is computed in float64,
on the processor. Tried with torch 2.13.0 and timm 1.0.31, of which the modules that the checkout imports have
other names by now. With `--compare NAME ...` nothing is written: our models of these names are held to the
authors', both at the sizes of `FULL`, each of a network built for it.
"""

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import torch

import qna.models
from qna._core.third_party import import_vision
from qna.models.vsa.authors import read

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import rule  # noqa: E402

_WINDOWS = {"RC_tokens_type": ["VSA"] * 2, "NC_tokens_type": ["VSA"] * 2, "stages": 2, "cpe": True}
# name of the case -> arguments of theirs, arguments of ours beside the nano size, sizes
CASES = {
    # 11 and 6 positions, which windows of 3 and 7 do not divide
    "wide": (
        {**_WINDOWS, "embed_dims": [16, 16], "wide_pcm": True, "token_dims": [16, 32],
         "downsample_ratios": [2, 2], "kernel_size": [3, 3], "dilations": [[1, 2], [1, 2]],
         "NC_depth": [1, 2], "NC_heads": [1, 2], "RC_heads": [1, 2], "NC_group": [1, 8],
         "RC_group": [1, 4], "mlp_ratio": 2.0, "window_size": 3},
        {},
        (16, 44),
    ),
    "narrow": (
        {**_WINDOWS, "embed_dims": [8, 8], "wide_pcm": False, "token_dims": [8, 16],
         "downsample_ratios": [4, 2], "kernel_size": [7, 3], "dilations": [[1, 2, 3, 4], [1, 2, 3]],
         "NC_depth": [2, 1], "NC_heads": [2, 4], "RC_heads": [2, 2], "NC_group": [2, 4],
         "RC_group": [1, 8], "mlp_ratio": 4.0, "window_size": 7},
        {"dims": [8, 16], "depths": [2, 1], "heads": [2, 4], "reduction_heads": [2, 2], "groups": [2, 4],
         "reduction_groups": [1, 8], "reductions": [4, 2], "kernel_sizes": [7, 3],
         "dilations": [[1, 2, 3, 4], [1, 2, 3]], "wide": False, "mlp_ratio": 4, "window_size": 7},
        (64, 96),
    ),
}  # fmt: skip
MODEL = "vitaev2_vsa_nano_16"
# of 160 pixels theirs gives NaN: the last map is smaller than a window
FULL = (224, 288)
THEIRS = {
    "vitaev2_vsa_small": "ViTAEv2_VSA_S",
    "vitaev2_vsa_widepcm_small": "ViTAEv2_VSA_widePCM_S",
    "vitaev2_vsa_48m": "ViTAEv2_VSA_widePCM_48M",
    "vitaev2_vsa_base": "ViTAEv2_VSA_widePCM_B",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    parser.add_argument("--compare", nargs="+", metavar="NAME")
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    package = checkout(options.official)
    if options.compare:
        for name in options.compare:
            compare(getattr(importlib.import_module("vitaev2_vsa.models"), THEIRS[name]), name)
        return
    golden = {name: run(package.ViTAE_VSA_basic, *case) for name, case in CASES.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in golden.items())
    (HERE / "vsa.json").write_text(f"{{\n{lines}\n}}\n")


def checkout(folder):
    """The authors' module of networks, with what they import under the names of timm's older versions."""
    layers = import_vision("timm.layers", extra="models", purpose="the authors' code")
    helpers, registry = ModuleType("timm.models.helpers"), ModuleType("timm.models.registry")
    helpers.load_pretrained, registry.register_model = None, lambda function: function
    import numpy

    fromnumeric = ModuleType("numpy.core.fromnumeric")
    fromnumeric.resize, fromnumeric.shape = numpy.resize, numpy.shape
    sys.modules |= {
        "timm.models.layers": layers,
        "timm.models.helpers": helpers,
        "timm.models.registry": registry,
        "numpy.core.fromnumeric": fromnumeric,
    }
    # their coordinates ask for a GPU
    torch.Tensor.cuda = lambda tensor: tensor
    sys.path.insert(0, str(folder))
    return importlib.import_module("vitaev2_vsa.base_model")


def filled(network):
    """In evaluation mode, with weights by the rule."""
    network = network.eval()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(rule.torch_tensor(name, tuple(tensor.shape))))
    return network


@torch.no_grad()
def run(network, their_arguments, arguments, sizes):
    """The authors' logits for one case; a network of theirs takes images of one size."""
    outputs = []
    for size in sizes:
        theirs = filled(network(img_size=size, num_classes=7, **their_arguments))
        logits = theirs(torch.from_numpy(rule.images(size, size)).double())
        print(f"{size}: deviation {logits.std():.3f}")  # noqa: T201 - progress
        outputs.append({"size": size, "deviation": logits.std().item(), "logits": logits.tolist()})
    return {
        "model": MODEL,
        "arguments": {**arguments, "num_classes": 7},
        "shapes": {n: list(t.shape) for n, t in theirs.state_dict().items()},
        "outputs": outputs,
    }


@torch.no_grad()
def compare(network, name):
    """One of our models beside the authors'."""
    for size in FULL:
        theirs = filled(network(img_size=size))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "theirs.pth"
            torch.save(theirs.state_dict(), path)
            state = read(path, name, {})
        ours = qna.models.create(name, device="meta").eval()
        ours.load_state_dict(state, assign=True)
        x = torch.from_numpy(rule.images(size, size)).double()
        expected = theirs(x)
        error = (ours(x) - expected).abs().max() / expected.std()
        print(f"{name} {size}: {error:.1e} of a deviation of {expected.std():.3f}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
