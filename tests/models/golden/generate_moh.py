"""Write moh.json: what the authors' own MoH code computes on the weights and images of `rule.py`.

    PYTHON tests/models/golden/generate_moh.py --official CHECKOUT

CHECKOUT is SkyworkAI/MoH at 2cefd57, PYTHON that of this package; all is in float64. Tried with torch 2.13.0
and timm 1.0.31. Networks are run as `generate_transnext.py` runs TransNeXt, whose notes hold here as well.
"vit" is the attention of their diffusion models, "norm" that of their language model with all positions 0,
where its rotation turns nothing; what it takes in float32 is taken in float64.
"""

import argparse
import ast
import json
import sys
import types
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import generate_transnext as transnext  # noqa: E402
import rule  # noqa: E402

# heads of four stages: 2, 4, 8, 16
SMALL = {**transnext.SMALL, "pool_ratios": (4, 2, 2, 1), "num_classes": 10}
# shared alone, routed beside one and beside several, routed alone
COUNTS = {"shared_heads": (2, 1, 3, 0), "routed_heads": (0, 2, 4, 5)}
CASES = {
    "moh": ("moh_vit_small_80", {**SMALL, **COUNTS}, ((64, 64), (96, 160))),
    "moh_vit_small_80": ("moh_vit_small_80", {}, ((224, 224), (96, 160))),
    "moh_vit_small_75": ("moh_vit_small_75", {}, ((96, 160),)),
    "moh_vit_base_75": ("moh_vit_base_75", {}, ((96, 160),)),
    "moh_vit_base_50": ("moh_vit_base_50", {}, ((96, 160),)),
}
# of an attention alone: channels, heads, shared, routed
ATTENTION = {
    "vit": (24, 6, 2, 3),
    "vit-routed": (24, 6, 0, 2),
    "vit-shared": (24, 6, 6, 0),
    "norm": (32, 8, 4, 2),
}
TOKENS = 40, 9
KEPT = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    parser.add_argument("cases", nargs="*", help="all unless some are named; others stay as they are")
    options = parser.parse_args()
    path = HERE / "moh.json"
    golden = json.loads(path.read_text()) if path.exists() else {}
    chosen = options.cases or [*CASES, *ATTENTION]
    network = transnext.theirs(options.official / "MoH-ViT" / "transnext.py")
    listed = sys.modules["attention"].Attention.LOAD_BALANCING_LOSSES
    for name in chosen:
        if name in CASES:
            golden[name] = run(network, listed, *CASES[name])
        else:
            found = theirs_of_language if name == "norm" else theirs_of_diffusion
            golden[name] = attention(found(options.official), *ATTENTION[name])
        path.write_text(json.dumps(golden, indent=1) + "\n")


def classes_of(file, wanted, given):
    """What a file of theirs defines under the names `wanted`, with the names `given` around it."""
    tree = ast.parse(file.read_text().replace("torch.float32", "torch.float64"))
    kept = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name in wanted]
    for node in kept:
        node.decorator_list = []
    exec(compile(ast.Module(kept, []), str(file), "exec"), given)
    return given


def theirs_of_diffusion(official):
    """(dim, heads, shared, routed) -> their attention of tokens."""
    from typing import Final

    given = {"torch": torch, "nn": nn, "F": nn.functional, "Final": Final, "use_fused_attn": lambda: True}
    found = classes_of(official / "MoH-DiT" / "models.py", {"MoHAttention"}, given)["MoHAttention"]
    return lambda dim, heads, shared, routed: found(
        dim, heads, qkv_bias=True, shared_head=shared, routed_head=routed
    )


def theirs_of_language(official):
    """(dim, heads, shared, routed) -> that of their language model, whose counts follow from the heads."""
    import math
    import typing

    given = {"torch": torch, "nn": nn, "F": nn.functional, "math": math, **vars(typing)}
    given |= {"Cache": object, "LlamaConfig": object, "logger": None}
    wanted = {"LlamaAttention", "LlamaRotaryEmbedding", "rotate_half", "apply_rotary_pos_emb", "repeat_kv"}
    file = official / "MoH-LLaMA3" / "Inference_code" / "modeling_llama.py"
    found = classes_of(file, wanted, given)["LlamaAttention"]

    def build(dim, heads, shared, routed):
        config = types.SimpleNamespace(
            attention_dropout=0.0,
            hidden_size=dim,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=64,
            rope_theta=10000.0,
            rope_scaling=None,
            attention_bias=True,
            pretraining_tp=1,
        )
        model = found(config, layer_idx=0)
        assert (model.shared_head, model.routed_head) == (shared, routed)
        run = model.forward
        # at position 0 nothing is rotated
        model.forward = lambda x: run(x, position_ids=torch.zeros(x.shape[:2], dtype=torch.long))[0]
        return model

    return build


@torch.no_grad()
def attention(build, *sizes):
    """What an attention makes of tokens, in evaluation, and what its router loses in training."""
    model = build(*sizes)
    shapes = transnext.fill(model)
    losses = getattr(type(model), "LOAD_BALANCING_LOSSES", [])
    outputs = []
    for tokens in TOKENS:
        x = torch.from_numpy(rule.images(tokens, sizes[0])[:, 0]).double()
        y = model.eval()(x)
        told = {"tokens": tokens, "deviation": y.std().item(), "last": y[:, -1].tolist()}
        losses.clear()
        model.train()(x)
        outputs.append({**told, "balance": losses[0].item()} if losses else told)
    return {"sizes": sizes, "shapes": shapes, "outputs": outputs}


@torch.no_grad()
def run(network, listed, ours, arguments, sizes):
    """The authors' logits for one case, and their balance loss in training."""
    from qna.models import MOH_VIT

    variant, others = MOH_VIT[ours].varied(arguments)
    pretrain = transnext.Size((variant.pretrain_size,) * 2)
    classes, outputs = others.get("num_classes", 1000), []
    theirs = transnext.arguments_of(variant, classes)
    theirs |= {"shared_head": variant.shared_heads, "routed_head": variant.routed_heads}
    for size in sizes:
        model = network(img_size=transnext.Size(size), pretrain_size=pretrain, **theirs).eval()
        shapes = transnext.fill(model)
        images = torch.from_numpy(rule.images(*size)).double()
        logits = model(images)
        listed.clear()
        model.train()(images)
        balance = sum(listed) / len(listed)
        print(f"{ours} {size}: deviation {logits.std():.3f}, balance {balance:.4f}")  # noqa: T201 - progress
        kept = logits[:, :KEPT].tolist()
        deviation = logits.std().item()
        outputs.append({"size": size, "deviation": deviation, "logits": kept, "balance": balance.item()})
    golden = {"model": ours, "arguments": arguments, "outputs": outputs}
    # of the larger ones they would fill pages, and a wrong name shows: other values are drawn for it
    return {**golden, "shapes": shapes} if arguments else golden


if __name__ == "__main__":
    main()
