"""Write minimal.json: logits of a re-implementation of the minimal transformer, by `rule.py`.

    PYTHON -m tests.models.golden.generate_minimal --official CHECKOUT

CHECKOUT is Abdennacer-Badaoui/Reducing_the_Transformer_Architecture_to_a_Minimum, PYTHON that of this
package; all is computed in float64. Tried with torch 2.13.0.
"""

import argparse
import importlib
import json
import math
import sys
from pathlib import Path

import torch

from tests.models.golden import rule
from tests.models.minimal_names import CASES, CLASSES, MODIFICATIONS, SIZES, SMALL

HERE = Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(options.official / "src"))
    # some of their tensors are made in the dtype that is the default
    torch.set_default_dtype(torch.float64)
    golden = {name: [run(*case, size) for size in SIZES] for name, case in CASES.items()}
    cases = ",\n".join(f"{json.dumps(n)}: {json.dumps(case)}" for n, case in golden.items())
    (HERE / "minimal.json").write_text(f"{{\n{cases}\n}}\n")


@torch.no_grad()
def run(heads, mlp, qk, value, size):
    """Their logits for one case and size."""
    network = (
        importlib.import_module("modules")
        .ReducedTransformer(
            embed_dim=SMALL["dim"],
            num_heads=heads,
            num_layers=SMALL["depth"],
            n_classes=CLASSES,
            patch_size=SMALL["patch_size"],
            num_patches=math.prod(n // SMALL["patch_size"] for n in size),
            dropout=0.1,
            in_channels=3,
            include_mlp=mlp,
            modification=MODIFICATIONS[qk, value],
        )
        .eval()
    )
    state = {n: rule.torch_tensor(n, tuple(t.shape)) for n, t in network.state_dict().items()}
    network.load_state_dict({n: torch.from_numpy(t).double() for n, t in state.items()})
    logits = network(torch.from_numpy(rule.images(*size)).double())
    return {"deviation": logits.std().item(), "logits": logits.tolist()}


if __name__ == "__main__":
    main()
