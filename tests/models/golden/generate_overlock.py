"""Write overlock.json: logits of the authors' own OverLoCK on the weights and images of `rule.py`.

    PYTHON tests/models/golden/generate_overlock.py --official CHECKOUT/models

CHECKOUT is LMMMEng/OverLoCK, PYTHON that of this package, with einops; all is computed in float64. What
their file imports beside is replaced here: natten's product of weights and values by a dense one, timm 0.6's
modules by those of timm now. Tried with torch 2.13.0 and timm 1.0.31. With `--compare NAME ...` nothing is
written: our models of these names, in both forms, are held to the authors' at the sizes of `FULL`.
"""

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType

import torch

import qna.models
from qna._core.third_party import import_vision
from qna.models.overlock.authors import from_authors

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import rule  # noqa: E402

SMALL = {
    "embed_dim": [8, 8, 16, 16], "depth": [1, 1, 1, 1], "sub_depth": [2, 2], "kernel_size": [7, 5, 7, 5],
    "mlp_ratio": [2, 2, 2, 2], "sub_mlp_ratio": [2, 2], "sub_num_heads": [2, 1], "smk_size": 3,
    "projection": 24,
}  # fmt: skip
OURS_SMALL = {
    "dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "focus_depths": [2, 2], "kernel_sizes": [7, 5, 7, 5],
    "mlp_ratio": 2, "focus_mlp_ratio": 2, "num_heads": [2, 1], "small_kernel_size": 3,
    "projection": 24,
}  # fmt: skip
# name of the case -> arguments of theirs, model of ours, its arguments, sizes
CASES = {
    # maps that both kernels fit, and smaller ones of odd sizes
    "small": (SMALL, "overlock_nano_32", OURS_SMALL, ((112, 128), (47, 90))),
    "deployed": ({**SMALL, "deploy": True}, "overlock_nano_32", {**OURS_SMALL, "deploy": True}, ((64, 48),)),
}
KEPT = 7
FULL = ((224, 224), (160, 288))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    parser.add_argument("--compare", nargs="+", metavar="NAME")
    options = parser.parse_args()
    stand_ins()
    sys.path.insert(0, str(options.official))
    import overlock

    if options.compare:
        for name in options.compare:
            compare(overlock, name)
        return
    golden = {name: run(overlock.OverLoCK, *case) for name, case in CASES.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in golden.items())
    (HERE / "overlock.json").write_text(f"{{\n{lines}\n}}\n")


def stand_ins():
    """What the authors' file imports, of other versions or none."""
    timm = import_vision("timm", extra="models", purpose="the authors' code")
    modules = {
        "natten": {},
        "natten.functional": {"na2d_av": dense_av},
        "mmengine": {},
        "mmengine.runner": {"load_checkpoint": None},
        "timm.models.layers": {"DropPath": timm.layers.DropPath, "to_2tuple": timm.layers.to_2tuple},
        "timm.models.registry": {"register_model": lambda function: function},
    }
    for name, members in modules.items():
        sys.modules[name] = module = ModuleType(name)
        vars(module).update(members)


def dense_av(weights, value, kernel_size):
    """(B, heads, H, W, taps) and (B, heads, H, W, channels) -> as value; windows move inwards at borders."""
    matrix = weights.new_zeros(*weights.shape[:4], *weights.shape[2:4])
    height, width = weights.shape[2:4]
    for i in range(height):
        for j in range(width):
            top, left = (
                min(max(at - kernel_size // 2, 0), n - kernel_size) for at, n in ((i, height), (j, width))
            )
            window = weights[:, :, i, j].unflatten(-1, (kernel_size, kernel_size))
            matrix[:, :, i, j, top : top + kernel_size, left : left + kernel_size] = window
    return torch.einsum("bgijyx,bgyxc->bgijc", matrix, value)


def filled(network):
    """In float64, with weights by the rule."""
    network = network.double().eval()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(rule.torch_tensor(name, tuple(tensor.shape))))
    return network


@torch.no_grad()
def run(network, their_arguments, ours, arguments, sizes):
    """The authors' logits for one case."""
    theirs = filled(network(**their_arguments, num_classes=7))
    outputs = []
    for size in sizes:
        logits = theirs(torch.from_numpy(rule.images(*size)).double())
        print(f"{ours} {size}: deviation {logits.std():.3f}")  # noqa: T201 - progress
        kept = logits[:, :KEPT]
        outputs.append({"size": size, "deviation": logits.std().item(), "logits": kept.tolist()})
    return {
        "model": ours,
        "arguments": {**arguments, "num_classes": 7},
        "shapes": {n: list(t.shape) for n, t in theirs.state_dict().items()},
        "outputs": outputs,
    }


def of(name, weights, deploy):
    """Our model."""
    ours = qna.models.create(name, device="meta", dtype=torch.float64, deploy=deploy).eval()
    ours.load_state_dict({n: t.clone() for n, t in weights.items()}, assign=True)
    return ours


@torch.no_grad()
def compare(module, name):
    """One of our models beside the authors', in both forms, and merged from the trained one."""
    for deploy in (False, True):
        theirs = filled(getattr(module, name)(deploy=deploy))
        weights = from_authors(theirs.state_dict(), name, {"deploy": deploy})
        ours = of(name, weights, deploy)
        for size in FULL:
            x = torch.from_numpy(rule.images(*size)).double()
            expected = theirs(x)
            told = [f"{(ours(x) - expected).abs().max() / expected.std():.1e}"]
            if not deploy and size == FULL[0]:
                ours.reparameterize()
                told.append(f"merged {(ours(x) - expected).abs().max() / expected.std():.1e}")
                ours = of(name, weights, deploy)
            print(f"{name} deploy={deploy} {size}: {told} of a deviation of {expected.std():.3f}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
