"""Write biformer.json: logits of the authors' own BiFormer on the weights and images of `rule.py`.

    PYTHON tests/models/golden/generate_biformer.py --official CHECKOUT

CHECKOUT is rayleizhu/BiFormer, PYTHON that of this package with einops 0.8.2 beside it; all is computed in
float64. Tried with torch 2.13.0 and timm 1.0.31. What the code imports of fairscale is not called.
"""

import argparse
import importlib
import json
import sys
import types
import warnings
from pathlib import Path

import torch

from qna._core.third_party import import_vision

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import rule  # noqa: E402

LEGACY = {
    "depth": [1, 1, 2, 1],
    "embed_dim": [16, 32, 64, 128],
    "head_dim": 16,
    "mlp_ratios": [3] * 4,
    "n_win": 4,
    "kv_downsample_mode": "identity",
    "kv_per_wins": [-1] * 4,
    "topks": [1, 3, 8, -2],
    "qk_dims": [16, 32, 64, 128],
    "auto_pad": True,
}
LAYOUT = {"depth": [1, 1, 1, 1], "embed_dim": [16, 32, 64, 128], "head_dim": 16, "n_wins": (4,) * 4}
LAYOUT["norm_layer"] = torch.nn.BatchNorm2d
OURS = {"dim": 16, "depths": [1, 1, 2, 1], "topks": [1, 3, 8, None], "regions": 4, "head_dim": 16}
OURS_STL = {**OURS, "depths": [1, 1, 1, 1], "topks": [1, 4, 16, None]}
# maps that 4 regions divide in three stages, and others
EVEN, ODD = ((64, 128),), ((96, 70), (64, 128))
# name of the case -> what theirs is, its arguments, model of ours, its arguments, sizes
CASES = {
    "biformer": ("biformer.BiFormer", LEGACY, "biformer_nano_32", OURS, ODD),
    "stl": ("biformer_stl.BiFormerSTL", LAYOUT, "biformer_stl", OURS_STL, EVEN),
    "stl_nchw": (
        "biformer_stl_nchw.nchwBiFormerSTL",
        {**LAYOUT, "topks": (1, 4, 16, -1)},
        "biformer_stl_nchw",
        OURS_STL,
        (*EVEN, (96, 160)),  # a map of odd size would lose its last row in their code
    ),
    "biformer_tiny": ("biformer.biformer_tiny", {}, "biformer_tiny", {}, ((224, 224), (112, 224))),
    "biformer_small": ("biformer.biformer_small", {}, "biformer_small", {}, ((224, 112),)),
    "biformer_base": ("biformer.biformer_base", {}, "biformer_base", {}, ((112, 224),)),
    "biformer_stl": ("biformer_stl.biformer_stl", {}, "biformer_stl", {}, ((224, 224), (224, 448))),
    "biformer_stl_nchw": ("biformer_stl_nchw.biformer_stl_nchw", {}, "biformer_stl_nchw", {}, ((224, 448),)),
}  # fmt: skip
KEPT = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    parser.add_argument("cases", nargs="*", help="all unless some are named; others stay as they are")
    options = parser.parse_args()
    sys.path.insert(0, str(options.official))
    import_vision("timm", extra="models", purpose="the authors' code")
    warnings.simplefilter("ignore")  # of timm's old places
    checkpoint = types.ModuleType("fairscale.nn.checkpoint")
    checkpoint.checkpoint_wrapper = None
    sys.modules.update({"fairscale": types.ModuleType("fairscale"), "fairscale.nn": types.ModuleType("nn")})
    sys.modules["fairscale.nn.checkpoint"] = checkpoint
    path = HERE / "biformer.json"
    golden = json.loads(path.read_text()) if path.exists() else {}
    for name in options.cases or CASES:
        golden[name] = run(*CASES[name])
        cases = ",\n".join(f"{json.dumps(n)}: {json.dumps(case)}" for n, case in golden.items())
        path.write_text(f"{{\n{cases}\n}}\n")


@torch.no_grad()
def run(theirs, their_arguments, ours, arguments, sizes):
    """The authors' logits for one case."""
    module, _, name = theirs.partition(".")
    classes = {"num_classes": 10} if "head_dim" in their_arguments else {}
    network = getattr(importlib.import_module(f"models.{module}"), name)(**their_arguments, **classes)
    network = network.double().eval()
    state = network.state_dict()
    network.load_state_dict(
        {
            n: torch.from_numpy(rule.torch_tensor(n, tuple(t.shape))).double() if t.is_floating_point() else t
            for n, t in state.items()
        }
    )
    outputs = []
    for size in sizes:
        logits = network(torch.from_numpy(rule.images(*size)).double())
        print(f"{theirs} {size}: deviation {logits.std():.3f}")  # noqa: T201 - progress
        outputs.append({"size": size, "deviation": logits.std().item(), "logits": logits[:, :KEPT].tolist()})
    return {
        "model": ours,
        "arguments": {**arguments, **classes},
        "shapes": {n: list(t.shape) for n, t in state.items()},
        "outputs": outputs,
    }


if __name__ == "__main__":
    main()
