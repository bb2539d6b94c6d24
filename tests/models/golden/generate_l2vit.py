"""Write l2vit.json: logits of the author's own L2ViT on the weights and images of `rule.py`.

    PYTHON tests/models/golden/generate_l2vit.py --official CHECKOUT

CHECKOUT is ChuanyangZheng/L2ViT, PYTHON that of this package; all is computed in float64. Tried with torch
2.13.0 and timm 1.0.31.
"""

import argparse
import importlib
import json
import sys
import warnings
from pathlib import Path

import torch

from qna._core.third_party import import_vision

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import rule  # noqa: E402

SMALL = {"depths": [2, 1, 3, 2], "dims": [16, 32, 64, 128], "num_heads": [1, 2, 4, 8], "window_size": 5}
SMALL |= {"block_type": "mix_local_enhanced_vit", "conv_stem": True, "num_classes": 10}
OURS = {"dim": 16, "depths": [2, 1, 3, 2], "window_size": 5, "concentration_size": 7, "head_dim": 16}
# name of the case -> what theirs is, its arguments, model of ours, its arguments, sizes
CASES = {
    "l2vit": ("L2ViT", SMALL, "l2vit_nano_32", OURS, ((96, 70), (57, 128))),
    "l2vit_tiny": ("L2ViT_Tiny", {}, "l2vit_tiny", {}, ((224, 224), (112, 250))),
    "l2vit_small": ("L2ViT_Small", {}, "l2vit_small", {}, ((224, 112),)),
    "l2vit_base": ("L2ViT_Base", {}, "l2vit_base", {}, ((112, 224),)),
    "l2vit_base_384": ("L2ViT_Base_384", {}, "l2vit_base_384", {}, ((96, 192),)),
}
KEPT = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    parser.add_argument("cases", nargs="*", help="all unless some are named; others stay as they are")
    options = parser.parse_args()
    sys.path.insert(0, str(options.official / "classification" / "models"))
    import_vision("timm", extra="models", purpose="the author's code")
    warnings.simplefilter("ignore")  # of timm's old places
    path = HERE / "l2vit.json"
    golden = json.loads(path.read_text()) if path.exists() else {}
    for name in options.cases or CASES:
        golden[name] = run(*CASES[name])
        cases = ",\n".join(f"{json.dumps(n)}: {json.dumps(case)}" for n, case in golden.items())
        path.write_text(f"{{\n{cases}\n}}\n")


@torch.no_grad()
def run(theirs, their_arguments, ours, arguments, sizes):
    """The author's logits for one case, and how many denominators of the last attention are clamped."""
    module = importlib.import_module("l2vit")
    network = getattr(module, theirs)(**their_arguments).double().eval()
    state = network.state_dict()
    network.load_state_dict(
        {
            n: torch.from_numpy(rule.torch_tensor(n, tuple(t.shape))).double() if t.is_floating_point() else t
            for n, t in state.items()
        }
    )
    shares = []
    for part in network.modules():
        if isinstance(part, module.LinearAttention):
            part.qk_mul.register_forward_hook(lambda *call: shares.append((call[-1] < 100).double().mean()))
    outputs = []
    for size in sizes:
        shares.clear()
        logits = network(torch.from_numpy(rule.images(*size)).double())
        clamped = [round(share.item(), 3) for share in shares]
        print(f"{theirs} {size}: deviation {logits.std():.3f}, clamped {clamped}")  # noqa: T201 - progress
        outputs.append({"size": size, "deviation": logits.std().item(), "logits": logits[:, :KEPT].tolist()})
    classes = {"num_classes": 10} if theirs == "L2ViT" else {}
    return {
        "model": ours,
        "arguments": {**arguments, **classes},
        "shapes": {n: list(t.shape) for n, t in state.items()},
        "outputs": outputs,
    }


if __name__ == "__main__":
    main()
