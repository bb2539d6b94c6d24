"""Write transnext.json: logits of the authors' own TransNeXt on the weights and images of `rule.py`.

    PYTHON tests/models/golden/generate_transnext.py --official CHECKOUT

CHECKOUT is DaiShiResearch/TransNeXt at c8a9974, PYTHON that of this package; all is in float64. Tried
with torch 2.13.0 and timm 1.0.31. Attention is the authors' plain form, without their CUDA extension. Tables
that they make in float32 (distances, logarithms of numbers of keys) are made in float64. Their network is
built anew for each size of image; one that is no square is told as a pair that is divided as a number is.
Of sizes that are no multiples of 32 their code for dense tasks gives maps, where it extrapolates distances.
"""

import argparse
import json
import sys
import types
from functools import partial
from pathlib import Path

import torch
from torch import nn

from qna._core.third_party import import_vision

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import rule  # noqa: E402

# four stages, as their network must have
SMALL = {"dim": 16, "head_dim": 8, "depths": (1, 2, 1, 1), "mlp_ratios": (4, 3, 2, 2), "pretrain_size": 64}
# case: model of ours, its arguments, sizes of images
CASES = {
    "transnext": ("transnext_micro", {**SMALL, "pool_ratios": (4, 2, 2, 1), "num_classes": 10},
                  ((64, 64), (96, 160))),
    "aaaa": ("transnext_micro_aaaa", {**SMALL, "pool_ratios": (8, 4, 2, 2), "num_classes": 10},
             ((128, 64), (192, 128))),
    "transnext_micro": ("transnext_micro", {}, ((224, 224), (160, 288))),
    "transnext_tiny": ("transnext_tiny", {}, ((224, 224), (288, 160))),
    "transnext_small": ("transnext_small", {}, ((96, 160),)),
    "transnext_base": ("transnext_base", {}, ((96, 160),)),
    "transnext_micro_aaaa": ("transnext_micro_aaaa", {}, ((256, 256), (128, 192))),
}  # fmt: skip
KEPT = 20
DENSE = ((75, 100), (33, 250))


class Size(tuple):
    """Height and width, divided together."""

    def __floordiv__(self, n):
        return Size(side // n for side in self)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    parser.add_argument("cases", nargs="*", help="all unless some are named; others stay as they are")
    options = parser.parse_args()
    network = theirs(options.official / "classification" / "transnext.py")
    dense = theirs(options.official / "segmentation" / "upernet" / "transnext_native.py")
    path = HERE / "transnext.json"
    golden = json.loads(path.read_text()) if path.exists() else {}
    for name in options.cases or [*CASES, "dense"]:
        golden[name] = run_dense(dense) if name == "dense" else run(network, *CASES[name])
        path.write_text(json.dumps(golden, indent=1) + "\n")


def theirs(file):
    """Their class of networks, with tables in float64."""
    timm = import_vision("timm", extra="models", purpose="the authors' code")
    # modules that newer versions of timm and setuptools lack
    sys.modules["timm.models.layers"] = timm.layers
    sys.modules["timm.models.registry"] = types.SimpleNamespace(register_model=lambda f: f)

    def missing(name):
        raise LookupError(name)

    sys.modules["pkg_resources"] = types.SimpleNamespace(
        get_distribution=missing, DistributionNotFound=LookupError
    )
    # of which the code for dense tasks uses a decorator, and what reads files
    names = {"BACKBONES": types.SimpleNamespace(register_module=lambda: lambda cls: cls)}
    names |= {"get_root_logger": None, "load_checkpoint": None}
    for module in ("mmseg", "mmseg.models", "mmseg.models.builder", "mmseg.utils", "mmcv", "mmcv.runner"):
        sys.modules[module] = types.SimpleNamespace(**names)
    sys.path.insert(0, str(file.parent))
    torch.set_default_dtype(torch.float64)
    found = {"__name__": "transnext"}
    exec(file.read_text().replace("torch.float32", "torch.float64"), found)
    return found["TransNeXt"]


def arguments_of(variant, classes):
    """Of their classes, for one of our variants."""
    dims = [variant.dim * 2**i for i in range(4)]
    return {
        # a stage that attends the whole map ignores it
        "window_size": [variant.kernel_size] * 4,
        "patch_size": 4,
        "num_classes": classes,
        "embed_dims": dims,
        "num_heads": [dim // variant.head_dim for dim in dims],
        "mlp_ratios": variant.mlp_ratios,
        "qkv_bias": True,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
        "depths": variant.depths,
        "sr_ratios": variant.pool_ratios,
    }


def fill(model):
    """Give every tensor its values by the rule; return their shapes."""
    state = model.state_dict()
    model.load_state_dict(
        {n: torch.from_numpy(rule.torch_tensor(n, tuple(t.shape))).double() for n, t in state.items()}
    )
    return {n: list(t.shape) for n, t in state.items()}


@torch.no_grad()
def run_dense(network):
    """Maps of all stages, normalised, of the small network at sizes that are no multiples of anything."""
    from qna.models import TRANSNEXT

    ours, arguments, _ = CASES["transnext"]
    variant, _ = TRANSNEXT[ours].varied(arguments)
    size = variant.pretrain_size
    model = network(
        img_size=size, pretrain_size=size, is_extrapolation=True, **arguments_of(variant, 0)
    ).eval()
    fill(model)
    outputs = []
    for size in DENSE:
        maps = model(torch.from_numpy(rule.images(*size)).double())
        print(f"maps {size}: {[tuple(m.shape) for m in maps]}")  # noqa: T201 - progress
        told = []
        for m in maps:
            last = m[1, -1].flatten()[-KEPT:]
            told.append({"shape": list(m.shape), "deviation": m.std().item(), "last": last.tolist()})
        outputs.append({"size": size, "maps": told})
    return {
        "model": ours,
        "arguments": {n: v for n, v in arguments.items() if n != "num_classes"},
        "outputs": outputs,
    }


@torch.no_grad()
def run(network, ours, arguments, sizes):
    """The authors' logits for one case."""
    from qna.models import TRANSNEXT

    variant, others = TRANSNEXT[ours].varied(arguments)
    pretrain, classes = Size((variant.pretrain_size,) * 2), others.get("num_classes", 1000)
    outputs = []
    for size in sizes:
        model = network(img_size=Size(size), pretrain_size=pretrain, **arguments_of(variant, classes)).eval()
        shapes = fill(model)
        logits = model(torch.from_numpy(rule.images(*size)).double())
        print(f"{ours} {size}: deviation {logits.std():.3f}")  # noqa: T201 - progress
        kept = logits[:, :KEPT]
        outputs.append({"size": size, "deviation": logits.std().item(), "logits": kept.tolist()})
    golden = {"model": ours, "arguments": arguments, "outputs": outputs}
    # of the larger ones they would fill pages, and a wrong name shows: other values are drawn for it
    return {**golden, "shapes": shapes} if arguments else golden


if __name__ == "__main__":
    main()
