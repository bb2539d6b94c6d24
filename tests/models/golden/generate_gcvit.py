"""Write gcvit.json: logits of the authors' own GC ViT on the weights and images of `rule.py`.

    PYTHON tests/models/golden/generate_gcvit.py --official CHECKOUT

CHECKOUT is NVlabs/GCVit (non-commercial; it is run, and nothing of it is kept here but what it computes),
PYTHON that of this package; all is computed in float64. Tried with torch 2.13.0 and timm 1.0.31. Their code
takes squares of one size alone.
"""

import argparse
import importlib
import json
import sys
import warnings
from pathlib import Path

import torch

import qna.models  # noqa: F401 - first, for what it does for torchvision

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import rule  # noqa: E402

SMALL = {"dim": 16, "depths": [3, 2, 2, 4], "num_heads": [1, 2, 4, 8], "mlp_ratio": 2, "layer_scale": 0.5}
# name of the case -> what theirs is, its arguments, model of ours, its arguments, pixels
CASES = {
    "gcvit": (
        "GCViT",
        {**SMALL, "window_size": [7, 7, 14, 7], "resolution": 224},
        "qna_gcvit_small",
        SMALL,
        224,
    ),
    "gcvit_xxtiny": ("gc_vit_xxtiny", {}, "qna_gcvit_xxtiny", {}, 224),
    "gcvit_small2": ("gc_vit_small2", {}, "qna_gcvit_small2", {}, 224),
    "large_384": (
        "gc_vit_large_384_21k",
        {},
        "qna_gcvit_large",
        {"window_sizes": [12, 12, 24, 12]},
        384,
    ),
}
KEPT = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    parser.add_argument("cases", nargs="*", help="all unless some are named; others stay as they are")
    options = parser.parse_args()
    sys.path.insert(0, str(options.official / "models"))
    warnings.simplefilter("ignore")  # of timm's old places
    path = HERE / "gcvit.json"
    golden = json.loads(path.read_text()) if path.exists() else {}
    for name in options.cases or CASES:
        golden[name] = run(*CASES[name])
        cases = ",\n".join(f"{json.dumps(n)}: {json.dumps(case)}" for n, case in golden.items())
        path.write_text(f"{{\n{cases}\n}}\n")


@torch.no_grad()
def run(name, their_arguments, ours, arguments, pixels):
    """The authors' logits for one case."""
    classes = {"num_classes": 10} if name == "GCViT" else {}
    network = getattr(importlib.import_module("gc_vit"), name)(**their_arguments, **classes)
    network = network.double().eval()
    for module in network.modules():
        if hasattr(module, "scale"):
            # a tensor of float32 there, no parameter: 2e-8 beside the number that it stands for
            module.scale = (module.qkv.in_features / module.num_heads) ** -0.5
    state = network.state_dict()
    drawn = {
        n: torch.from_numpy(rule.torch_tensor(n, tuple(t.shape))).double() if t.is_floating_point() else t
        for n, t in state.items()
    }
    network.load_state_dict(drawn)
    logits = network(torch.from_numpy(rule.images(pixels, pixels)).double())
    print(f"{name} {pixels}: deviation {logits.std():.3f}")  # noqa: T201 - progress
    return {
        "model": ours,
        "arguments": arguments,
        "classes": logits.shape[1],
        "pixels": pixels,
        "tensors": len(state),
        "deviation": logits.std().item(),
        "logits": logits[:, :KEPT].tolist(),
    }


if __name__ == "__main__":
    main()
