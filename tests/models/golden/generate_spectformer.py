"""Writes spectformer.json: logits of the authors' networks (badripatro/SpectFormers at b6cf487), in float64.

    python generate_spectformer.py FOLDER

FOLDER is a clone. Two packages that its files import and do not use, one of them gone from numpy, are
stood in for, and their casts to float32 before transforms are left out. They take images of 224 x 224 alone.
"""

import importlib
import json
import sys
import types
from functools import partial
from pathlib import Path

import torch
from rule import images, torch_tensor

for name, used in (("numpy.lib.arraypad", ("pad",)), ("pytorch_wavelets", ("DWTForward", "DWTInverse"))):
    sys.modules[name] = types.ModuleType(name)
    for attribute in used:
        setattr(sys.modules[name], attribute, None)
_to = torch.Tensor.to
torch.Tensor.to = lambda x, *a, **named: x if a == (torch.float32,) else _to(x, *a, **named)


def authors(folder):
    """The module `spectformer` in a folder."""
    sys.modules.pop("spectformer", None)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("spectformer")
    finally:
        sys.path.pop(0)


def case(network, model, arguments):
    network = network.double().eval()
    state = network.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(torch_tensor(name, tuple(tensor.shape))))
    with torch.no_grad():
        logits = network(torch.from_numpy(images(224, 224)).double())
    # counters of batch norm are not asked for
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    outputs = [{"size": [224, 224], "deviation": logits.std().item(), "logits": logits.tolist()}]
    return {"model": model, "arguments": arguments, "shapes": shapes, "outputs": outputs}


if __name__ == "__main__":
    root = Path(sys.argv[1])
    rows = authors(root / "vanilla_architecture")
    stages = authors(root / "hierarchical_architecture")
    row = {"dim": 96, "depth": 6, "num_heads": 6, "num_classes": 7}
    stage = {
        "stem_dim": 8,
        "dims": [64, 128, 32, 48],
        "num_heads": [2, 2, 4, 3],
        "depths": [1, 2, 1, 2],
        "mlp_ratios": [1, 1, 2, 4],
        "num_classes": 7,
    }
    theirs = dict(stage, stem_hidden_dim=stage["stem_dim"], embed_dims=stage["dims"])
    theirs = {k: v for k, v in theirs.items() if k not in ("stem_dim", "dims")}
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    found = {
        "row": case(rows.SpectFormer(embed_dim=96, depth=6, num_classes=7), "spectformer_xs", row),
        "stages": case(
            stages.SpectFormer(**theirs, norm_layer=norm, token_label=False), "spectformer_h_s", stage
        ),
        "with_second_head": case(
            stages.SpectFormer(**theirs, norm_layer=norm), "spectformer_h_s", dict(stage, aux_weight=0.5)
        ),
    }
    Path(__file__).with_name("spectformer.json").write_text(json.dumps(found) + "\n")
