"""Write sparsifiner.json: what the authors' own Sparsifiner computes on the weights and images of `rule.py`.

    PYTHON tests/adapters/golden/generate_sparsifiner.py --official CHECKOUT

CHECKOUT is lim142857/Sparsifiner (MIT; it is run, and nothing of it is kept here but what it computes),
PYTHON that of this package; all is computed in float64. Tried with torch 2.13.0 and timm 1.0.31.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace as Values

import torch
import torch.nn.functional as F

import qna.models  # noqa: F401 - first, for what it does for torchvision

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "models" / "golden"))
import rule  # noqa: E402

DIM, HEADS, PATCH, CLASSES = 24, 3, 8, 7
# name -> pixels, depth, arguments of ours
CASES = {
    "plain": ((32, 48), 3, {"keep_rate": 0.25, "reduce_tokens": 6, "coefficients": 3}),
    "square": ((64, 64), 2, {"keep_rate": 0.4, "reduce_tokens": 4, "basis_threshold": 0.3}),
    "shared": ((40, 32), 2, {"keep_rate": 0.3, "reduce_tokens": 3, "shared_basis": True, "coefficients": 4}),
    "pruned": (
        (48, 64),
        4,
        {
            "keep_rate": 0.3,
            "reduce_tokens": 5,
            "basis_threshold": 0.2,
            "token_keep_rate": 0.6,
            "token_layers": [1, 2],
        },
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    official = parser.parse_args().official
    sys.path.insert(0, str(official / "src"))
    warnings.simplefilter("ignore")  # of timm's old places
    # imports a part of torch that is gone, and nothing of it is needed here
    sys.modules["utils"] = Values(batch_index_select=None)  # type: ignore[assignment]
    cases = ",\n".join(f"{json.dumps(n)}: {json.dumps(run(*case))}" for n, case in CASES.items())
    (HERE / "sparsifiner.json").write_text(f"{{\n{cases}\n}}\n")


def configuration(ours):
    """Theirs, as far as it is read."""
    spar = Values(
        BASIS_THRESHOLD=ours.get("basis_threshold", 0.02),
        BASIS_COEF=Values(USE_TOPK=True, TOPK=ours.get("coefficients", 8), THRESHOLD=0.05),
        ATTN_SCORE=Values(USE_TOPK=True, THRESHOLD=1e-4),
        PRUNE_ATTN_MATRIX_ROW=False,
        OUT_BASIS_SPARSITY=False,
        OUT_BASIS_COEF_SPARSITY=False,
        OUT_ATTN_MASK_SPARSITY=False,
        SLOW_FAST_PATH=False,
    )
    loss = Values(
        USE_CLS=True,
        CLS=Values(WEIGHT=1.0),
        USE_CLS_DISTILL=True,
        CLS_DISTILL=Values(WEIGHT=0.5),
        USE_TOKEN_DISTILL=True,
        TOKEN_DISTILL=Values(WEIGHT=0.5, CRITERION="MSE"),
        USE_ATTN_RECON=False,
        ATTN_RECON=Values(WEIGHT=0.01, CRITERION="MSE"),
        USE_ATTN_SELF_DISTILL=False,
        USE_MAX_BUDGET=False,
        USE_LEAST_K=False,
        USE_RATIO_LOSS=False,
    )
    return Values(SPAR=spar, LOSS=loss, VIT=Values(TOP_K=0, AS_TEACHER=True, RETURN_ATTN=True))


def run(pixels, depth, ours):
    """Logits, masks, losses and gradients of one case."""
    from losses import NewLoss
    from models.sparsifiner import Sparsifiner
    from models.vit import VisionTransformerTeacher

    layers, rate = ours.get("token_layers", []), ours.get("token_keep_rate", 1.0)
    cfg = configuration(ours)
    shape = {
        "img_size": pixels, "patch_size": PATCH, "embed_dim": DIM, "depth": depth, "num_heads": HEADS,
        "mlp_ratio": 2, "qkv_bias": True, "num_classes": CLASSES, "cfg": cfg,
    }  # fmt: skip
    network = Sparsifiner(
        attn_keep_rate_list=[ours["keep_rate"]] * depth,
        # theirs are counted from the first layer that prunes as well
        token_keep_rate_list=[rate ** sum(at <= i for at in layers) for i in range(depth)],
        token_pruning_loc_indicator=[i in layers for i in range(depth)],
        reduce_n_factor=ours["reduce_tokens"],
        reduce_c_factor=2,
        share_inout_proj=ours.get("shared_basis", False),
        **shape,
    ).double()
    teacher = VisionTransformerTeacher(**shape).double().eval()
    for module in (network, teacher):
        drawn = {
            n: torch.from_numpy(rule.torch_tensor(n, tuple(t.shape))) for n, t in module.state_dict().items()
        }
        if ours.get("shared_basis"):
            drawn = {
                n: drawn[n.replace("proj_back_n", "proj_n")] if n.endswith("proj_back_n") else t
                for n, t in drawn.items()
            }
        module.load_state_dict(drawn)
    x = torch.from_numpy(rule.images(*pixels)).double()
    labels = torch.tensor([2, 5])
    judge = NewLoss(teacher, F.cross_entropy)

    with torch.no_grad():
        evaluated = network.eval()(x)
    chosen = [mask[..., 1:, :].sum((0, 1, 2)).int().tolist() for mask in evaluated["attn_mask_list"]]

    network.train()
    tuned, gradients = {}, {}
    # their masking in place has no derivative
    with torch.set_grad_enabled(not layers):
        output = network(x)
        loss, parts = judge(x, output, labels, cfg)
    tuned = {name: part.item() for name, part in parts.items()}
    if not layers:
        loss.backward()
        gradients = told(network)
        network.zero_grad(set_to_none=True)
    cfg.LOSS.USE_ATTN_RECON, cfg.LOSS.USE_CLS_DISTILL, cfg.LOSS.USE_TOKEN_DISTILL = True, False, False
    cfg.LOSS.CLS.WEIGHT = 0.0
    fitted, parts = judge(x, network(x), labels, cfg)
    fitted.backward()
    return {
        "pixels": pixels,
        "depth": depth,
        "arguments": ours,
        "tensors": len(network.state_dict()),
        "block": {n: list(t.shape) for n, t in network.blocks[1].state_dict().items()},
        "logits": evaluated["x"].tolist(),
        "deviation": evaluated["x"].std().item(),
        # how often each key is seen, layer by layer
        "seen": chosen,
        "tuned": {"logits": output["x"].tolist(), "losses": tuned, "gradients": gradients},
        "fitted": {"loss": parts["attn_recon_loss"].item(), "gradients": told(network, "mask_predictor")},
    }


def told(network, part=""):
    """Sums of the absolute gradients of one block."""
    named = network.blocks[1].named_parameters()
    return {n: p.grad.abs().sum().item() for n, p in named if p.grad is not None and part in n}


if __name__ == "__main__":
    main()
