"""Write nat.json: logits of the authors' own NAT and DiNAT on the weights and images of `rule.py`.

    PYTHON tests/models/golden/generate_nat.py --official CHECKOUT/classification

CHECKOUT is SHI-Labs/Neighborhood-Attention-Transformer, PYTHON that of this package; all is computed in
float64. Tried with torch 2.13.0 and timm 1.0.31. NATTEN's module, which needs a build of its own, is replaced
by a plain one, by the definition: every query sees the k positions of its residue modulo the dilation that
lie about it, or at the border the nearest k; a map that has fewer is filled up with zeros behind its end.
"""

import argparse
import json
import sys
import types
from pathlib import Path

import torch
from torch import nn

from qna._core.third_party import import_vision

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import rule  # noqa: E402


class StandIn(nn.Module):
    """Neighbourhood attention with the parameters of NATTEN's NeighborhoodAttention2D."""

    def __init__(self, dim, *, num_heads, kernel_size, dilation, qkv_bias, qk_scale, **others):
        super().__init__()
        assert not any(v for v in others.values() if not isinstance(v, bool)), others
        self.heads, self.kernel, self.dilation = num_heads, kernel_size, dilation or 1
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.rpb = nn.Parameter(torch.zeros(num_heads, *[2 * kernel_size - 1] * 2))
        self.proj = nn.Linear(dim, dim)

    def keys(self, size):
        """Per query of an axis the keys that it sees, and the rows of the table."""
        found, rows = [], []
        for i in range(size):
            group = list(range(i % self.dilation, size, self.dilation))
            place = group.index(i)
            start = min(max(place - self.kernel // 2, 0), len(group) - self.kernel)
            found.append(group[start : start + self.kernel])
            rows.append([start + t - place + self.kernel - 1 for t in range(self.kernel)])
        return torch.tensor(found), torch.tensor(rows)

    def forward(self, x):
        height, width = x.shape[1:3]
        span = self.kernel * self.dilation
        x = nn.functional.pad(x, (0, 0, 0, max(0, span - width), 0, max(0, span - height)))
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(3)
        (down, row), (across, column) = self.keys(x.shape[1]), self.keys(x.shape[2])
        at = (slice(None), down[:, None, :, None], across[None, :, None, :])
        scores = torch.einsum("bijhd,bijklhd->bijhkl", q * self.scale, k[at])
        bias = self.rpb[:, row[:, None, :, None], column[None, :, None, :]]
        shares = (
            (scores + bias.permute(1, 2, 0, 3, 4)).flatten(-2).softmax(-1).unflatten(-1, scores.shape[-2:])
        )
        out = torch.einsum("bijhkl,bijklhd->bijhd", shares, v[at]).flatten(-2)
        return self.proj(out[:, :height, :width])


SMALL = {"embed_dim": 32, "mlp_ratio": 2, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "kernel_size": 3}
OURS = {"dim": 32, "mlp_ratio": 2, "depths": [2, 2, 2], "head_dim": 16, "kernel_size": 3, "patch_size": 4}
DILATED = {"dilations": [[1, 3], [1, 2], [1, 1]]}
SIZES = ((64, 64), (37, 90))
# name of the case -> what theirs is, its arguments, model of ours, its arguments, sizes
CASES = {
    "nat": ("nat.NAT", {**SMALL, "layer_scale": 1e-5}, "nat_nano_16",
            {**OURS, "dilations": [1, 1, 1], "layer_scale": 1e-5}, SIZES),
    "dinat": ("dinat.DiNAT", {**SMALL, **DILATED}, "nat_nano_16", {**OURS, "dilations": [3, 2, 1]}, SIZES),
    "dinat_s": ("dinats.DiNAT_s", {**SMALL, **DILATED}, "dinat_s_nano_16",
                {**OURS, "dilations": [3, 2, 1]}, SIZES),
    "nat_mini": ("nat.nat_mini", {}, "nat_mini", {}, ((96, 160), (128, 128))),
    "nat_small": ("nat.nat_small", {}, "nat_small", {}, ((75, 100), (96, 96))),
    "dinat_mini": ("dinat.dinat_mini", {}, "dinat_mini", {}, ((90, 230), (224, 224))),
    "dinat_s_tiny": ("dinats.dinat_s_tiny", {}, "dinat_s_tiny", {}, ((90, 130), (160, 160))),
}  # fmt: skip
KEPT = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    parser.add_argument("cases", nargs="*", help="all unless some are named; others stay as they are")
    options = parser.parse_args()
    sys.path.insert(0, str(options.official))
    import_vision("timm", extra="models", purpose="the authors' code")
    # as NATTEN from 0.17 on, whose argument for the table has another name
    sys.modules["natten"] = types.SimpleNamespace(NeighborhoodAttention2D=StandIn, context=None)
    path = HERE / "nat.json"
    golden = json.loads(path.read_text()) if path.exists() else {}
    for name in options.cases or CASES:
        golden[name] = run(*CASES[name])
        path.write_text(json.dumps(golden, indent=1) + "\n")


@torch.no_grad()
def run(theirs, their_arguments, ours, arguments, sizes):
    """The authors' logits for one case."""
    module, _, name = theirs.partition(".")
    classes = {"num_classes": 10} if their_arguments else {}
    network = getattr(__import__(module), name)(**their_arguments, **classes).double().eval()
    state = network.state_dict()
    network.load_state_dict(
        {n: torch.from_numpy(rule.torch_tensor(n, tuple(t.shape))).double() for n, t in state.items()}
    )
    outputs = []
    for size in sizes:
        logits = network(torch.from_numpy(rule.images(*size)).double())
        print(f"{theirs} {size}: deviation {logits.std():.3f}")  # noqa: T201 - progress
        kept = logits[:, :KEPT]
        outputs.append({"size": size, "deviation": logits.std().item(), "logits": kept.tolist()})
    return {
        "model": ours,
        "arguments": {**arguments, **classes},
        "shapes": {n: list(t.shape) for n, t in state.items()},
        "outputs": outputs,
    }


if __name__ == "__main__":
    main()
