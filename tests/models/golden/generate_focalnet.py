"""Write focalnet.json: logits of the authors' own FocalNet on the weights and images of `rule.py`.

    PYTHON tests/models/golden/generate_focalnet.py --official CHECKOUT/classification

CHECKOUT is microsoft/FocalNet, PYTHON that of this package; all is computed in float64. Tried with torch
2.13.0 and timm 1.0.31. With `--compare NAME ...` nothing is written: our models of these names are held to
the authors', both at the sizes of `FULL`.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

import qna.models
from qna._core.third_party import import_vision
from qna.models.focalnet.authors import from_authors

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import rule  # noqa: E402

LARGE = {"use_conv_embed": True, "use_postln": True, "use_layerscale": True}
OURS_LARGE = {"overlapping": True, "post_norm": True, "layer_scale": 1e-4}
# name of the case -> arguments of theirs, model of ours, its arguments, sizes
CASES = {
    "patches": (
        {"embed_dim": 16, "depths": [2, 1, 1], "focal_levels": [3, 2, 0], "focal_windows": [3, 9, 3]},
        "qna_focalnet_nano_16",
        {"dim": 16, "depths": [2, 1, 1], "focal_levels": [3, 2, 0], "focal_windows": [3, 9, 3],
         "patch_size": 4},
        ((48, 48), (32, 96)),
    ),
    "overlapping": (
        {**LARGE, "embed_dim": 16, "depths": [1, 2], "focal_levels": [4, 2], "focal_windows": [3, 5],
         "use_postln_in_modulation": True, "normalize_modulator": True},
        "qna_focalnet_nano_16",
        {**OURS_LARGE, "dim": 16, "depths": [1, 2], "focal_levels": [4, 2], "focal_windows": [3, 5],
         "norm_in_modulation": True, "normalize_modulator": True, "patch_size": 4},
        # the last of maps of odd sizes, the first of an image that the stem's stride does not divide
        ((40, 40), (47, 92)),
    ),
    "isotropic": (
        {"use_postln": True, "use_layerscale": True, "embed_dim": 16, "depths": [3], "patch_size": 8,
         "focal_levels": [3], "focal_windows": [3]},
        "qna_focalnet_nano_16",
        {"post_norm": True, "layer_scale": 1e-4, "dim": 16, "depths": [3], "focal_levels": 3,
         "patch_size": 8},
        ((48, 48), (32, 96)),
    ),
    "focalnet_tiny_srf": ({"embed_dim": 96, "depths": [2, 2, 6, 2]}, "qna_focalnet_tiny_srf", {},
                          ((224, 224), (160, 96))),
}  # fmt: skip
KEPT = 10
FULL = ((224, 224), (160, 288))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    parser.add_argument("--compare", nargs="+", metavar="NAME")
    options = parser.parse_args()
    sys.path.insert(0, str(options.official))
    import_vision("timm", extra="models", purpose="the authors' code")
    import focalnet

    if options.compare:
        for name in options.compare:
            compare(focalnet.FocalNet, name)
        return
    golden = {name: run(focalnet.FocalNet, *case) for name, case in CASES.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in golden.items())
    (HERE / "focalnet.json").write_text(f"{{\n{lines}\n}}\n")


def filled(network):
    """In float64, with weights by the rule."""
    network = network.double().eval()
    for name, tensor in network.state_dict().items():
        tensor.copy_(torch.from_numpy(rule.torch_tensor(name, tuple(tensor.shape))))
    return network


@torch.no_grad()
def run(network, their_arguments, ours, arguments, sizes):
    """The authors' logits for one case."""
    classes = {"num_classes": 7} if arguments else {}
    theirs = filled(network(**their_arguments, **classes))
    outputs = []
    for size in sizes:
        logits = theirs(torch.from_numpy(rule.images(*size)).double())
        print(f"{ours} {size}: deviation {logits.std():.3f}")  # noqa: T201 - progress
        kept = logits[:, :KEPT]
        outputs.append({"size": size, "deviation": logits.std().item(), "logits": kept.tolist()})
    return {
        "model": ours,
        "arguments": {**arguments, **classes},
        "shapes": {n: list(t.shape) for n, t in theirs.state_dict().items()},
        "outputs": outputs,
    }


@torch.no_grad()
def compare(network, name):
    """One of our models beside the authors' by their configuration file, CHECKOUT/configs."""
    import yaml

    module = Path(sys.modules["focalnet"].__file__)
    path = module.parents[1] / "configs" / f"{name.removeprefix('qna_')}.yaml"
    said = yaml.safe_load(path.read_text())["MODEL"]["FOCAL"]
    arguments = {key.lower(): value for key, value in said.items()}
    # what their entry functions add
    arguments.setdefault("depths", [2, 2, 18, 2])
    if name.endswith("_iso"):
        arguments["patch_size"] = 16
    if name.endswith("base_iso"):
        arguments |= {"use_layerscale": True, "use_postln": True}
    theirs = filled(network(**arguments))
    ours = qna.models.create(name, device="meta", dtype=torch.float64).eval()
    ours.load_state_dict(from_authors(theirs.state_dict(), name), assign=True)
    for size in FULL:
        x = torch.from_numpy(rule.images(*size)).double()
        expected = theirs(x)
        error = (ours(x) - expected).abs().max() / expected.std()
        print(f"{name} {size}: {error:.1e} of a deviation of {expected.std():.3f}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
