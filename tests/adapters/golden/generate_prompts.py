"""Write prompts.json: what the authors' own TCPA, VPT and VFPT compute on weights and images of `rule.py`.

    PYTHON tests/adapters/golden/generate_prompts.py --tcpa CHECKOUT --vpt CHECKOUT --vfpt CHECKOUT

The rule is that of the models' golden files. The checkouts are zhoujiahuan1991/ICML2025-TCPA (no licence),
KMnP/vpt and runtsang/VFPT (both CC BY-NC); they are run, and nothing of them is kept here but what they
compute. PYTHON is that of this package; all is computed in float64. Tried with torch 2.13.0 and timm 1.0.31.

TCPA's code has the sizes of ViT-B/16 in it; cases of other sizes run it with those numbers replaced. Of its
files only the form with Fourier prompts is whole; "tcpa_plain" runs it with the transform taken out.
"""

import argparse
import importlib
import json
import re
import sys
import types
import warnings
from pathlib import Path

import timm
import torch
from torch import nn

import qna.models  # noqa: F401 - first, for what it does for torchvision

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "models" / "golden"))
import rule  # noqa: E402

WIDE = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
SQUARE = {"img_size": (40, 40), "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 4}
BASE = {"img_size": (224, 224), "patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}
CLASSES, KEPT = 10, 4
# name of the case -> sizes, adapter of ours, its arguments
POOLS = {"pool": [5, 6], "top": [2, 3], "length": [2, 1], "match_weight": 0.3, "dropout": 0.0}
CASES = {
    "tcpa_token": (WIDE, "tcpa", {**POOLS, "fourier": True}),
    "tcpa_plain": (SQUARE, "tcpa", POOLS),
    "tcpa_role": (SQUARE, "tcpa", {"form": "role", **POOLS, "fourier": True}),
    "tcpa_base": (BASE, "tcpa", {"fourier": True, "dropout": 0.0}),
    "vpt_deep": (WIDE, "vpt", {"tokens": 4}),
    "vpt_shallow": (SQUARE, "vpt", {"tokens": 3, "deep": False}),
    "vfpt_deep": (WIDE, "vfpt", {"tokens": 5, "part": 0.5}),
    "vfpt_whole": (SQUARE, "vfpt", {"tokens": 4, "part": 1.0, "over": "tokens"}),
    "vfpt_shallow": (SQUARE, "vfpt", {"tokens": 4, "part": 0.5, "over": "channels", "deep": False}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("tcpa", "vpt", "vfpt"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("cases", nargs="*", help="all unless some are named; others stay as they are")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    path = HERE / "prompts.json"
    golden = json.loads(path.read_text()) if path.exists() else {}
    for name in options.cases or CASES:
        sizes, adapter, arguments = CASES[name]
        checkout = getattr(options, adapter)
        make = theirs_of_tcpa if adapter == "tcpa" else theirs_of_vpt
        golden[name] = {"sizes": sizes, "adapter": adapter, "arguments": arguments}
        golden[name] |= run(*make(checkout, sizes, adapter, arguments, name), sizes, arguments)
        cases = ",\n".join(f"{json.dumps(n)}: {json.dumps(case)}" for n, case in golden.items())
        path.write_text(f"{{\n{cases}\n}}\n")
        print(name, "deviation", round(golden[name]["deviation"], 3))  # noqa: T201 - progress


def run(network, call, sizes, arguments):
    """Logits, the loss of matching, what was seen, and gradients, of a network of theirs."""
    network = network.double()
    nn.Module.eval(network)
    state = network.state_dict()
    network.load_state_dict(
        {n: torch.from_numpy(rule.torch_tensor(n, tuple(t.shape))).double() for n, t in state.items()}
    )
    logits, distance, seen = call(torch.from_numpy(rule.images(*sizes["img_size"])).double())
    direction = torch.from_numpy(rule.torch_tensor("direction", tuple(logits.shape))).double()
    goal = (logits * direction).sum()
    if distance is not None:
        goal = goal + arguments.get("match_weight", 0.01) * distance
    goal.backward()
    learned = {
        n: p.grad
        for n, p in network.named_parameters()
        if n.endswith(("prompts", "keys", "prompt_embeddings"))
    }
    return {
        "tensors": len(state),
        "deviation": logits.std().item(),
        "logits": logits[:, :KEPT].tolist(),
        "distance": None if distance is None else distance.item(),
        "seen": seen and seen[:KEPT],
        "gradients": {
            n: [g.norm().item(), *g.flatten()[:2].tolist()] for n, g in learned.items() if g is not None
        },
    }


def theirs_of_tcpa(checkout, sizes, adapter, arguments, name):
    """The authors' TCPA around timm's network, as they build it."""
    (height, width), patch = sizes["img_size"], sizes["patch_size"]
    tokens = height * width // patch**2
    device = types.ModuleType("train.utils")
    device.device = torch.device("cpu")
    helpers = types.ModuleType("models.utils")
    helpers.get_backbone = lambda args: timm.create_model(
        "vit_tiny_patch16_224", num_classes=CLASSES, **sizes
    )
    helpers.SimamModule = None
    for stub in ("train", "models", "utils", "utils.args"):
        sys.modules[stub] = types.ModuleType(stub)
    sys.modules |= {"train.utils": device, "models.utils": helpers}
    replaced = {
        r"num_layers=12": f"num_layers={sizes['depth']}",
        r"\b12\b": str(sizes["num_heads"]),
        r"\b197\b": str(tokens + 1),
        r"\b196\b": str(tokens),
        r"\b768\b": str(sizes["embed_dim"]),
    }
    for part in ("TCPA", "VFPT_TCPA"):
        text = (checkout / "models" / f"{part}.py").read_text()
        for old, new in replaced.items():
            text = re.sub(old, new, text)
        if name == "tcpa_plain":
            text = text.replace("torch.fft.fft(torch.fft.fft(prompt, dim=-1),dim=-2).real", "prompt")
        module = types.ModuleType(f"models.{part}")
        exec(compile(text.replace(".to('cuda')", ""), part, "exec"), module.__dict__)
        sys.modules[module.__name__] = module
    pool, top, length = (
        arguments.get(key, default)
        for key, default in (("pool", [18] * 2), ("top", [10] * 2), ("length", [1] * 2))
    )
    network = module.Model_VFPT_TCPA(
        types.SimpleNamespace(
            RDVP=True,
            TDVP=arguments.get("form", "token") == "token",
            ADVP=False,
            IPrompt=False,
            simam=False,
            random_prompt=False,
            prompt_dropout_dvp=0.0,
            pool_size_cls=pool[0],
            pool_size_image=pool[1],
            topk_cls=top[0],
            topk_image=top[1],
            len_prompts_cls=length[0],
            len_prompts_image=length[1],
        )
    )
    # theirs take no argument
    network.Pool.train = network.Pool.eval = network.train = network.eval = lambda mode=True: network
    seen, masked = [], network.Pool.get_mask

    def noting(**given):
        mask, distance = masked(**given)
        count = network.p_len
        seen.append(mask[:, 0, :, 1 : 1 + count].sum((0, 1)).int().tolist())
        return mask, distance

    network.Pool.get_mask = noting

    def call(images):
        logits, distance = network(images)
        return logits, distance, seen

    return network, call


def theirs_of_vpt(checkout, sizes, adapter, arguments, name):
    """The authors' VPT or VFPT with their own vision transformer."""

    class ConfigDict(types.SimpleNamespace):
        def __init__(self, values=None):
            super().__init__(**(values or {}))

        def get(self, key):
            return getattr(self, key, None)

        def __getitem__(self, key):
            return getattr(self, key)

    stubs = {"turtle": {"forward": None}, "ml_collections": {"ConfigDict": ConfigDict}}
    stubs["src.utils.logging"] = {"get_logger": lambda name: None}
    for other in [n for n in sys.modules if n == "src" or n.startswith("src.")]:
        del sys.modules[other]
    for stub, members in stubs.items():
        sys.modules[stub] = types.ModuleType(stub)
        vars(sys.modules[stub]).update(members)
    sys.path.insert(0, str(checkout))
    importlib.invalidate_caches()
    utils = importlib.import_module("src.utils")
    utils.logging = sys.modules["src.utils.logging"]
    part = "vit" if adapter == "vpt" else "vit_fourier"
    module = importlib.import_module(f"src.models.vit_prompt.{part}")
    sys.path.remove(str(checkout))
    module.CONFIGS["ours"] = ConfigDict(
        {
            "patches": ConfigDict({"size": (sizes["patch_size"],) * 2}),
            "hidden_size": sizes["embed_dim"],
            "transformer": ConfigDict(
                {
                    "mlp_dim": 4 * sizes["embed_dim"],
                    "num_heads": sizes["num_heads"],
                    "num_layers": sizes["depth"],
                    "attention_dropout_rate": 0.0,
                    "dropout_rate": 0.1,
                }
            ),
            "classifier": "token",
        }
    )
    backbone = importlib.import_module("src.models.vit_backbones.vit")
    backbone.CONFIGS["ours"] = module.CONFIGS["ours"]
    prompts = types.SimpleNamespace(
        LOCATION="prepend",
        INITIATION="random",
        NUM_DEEP_LAYERS=None,
        DEEP_SHARED=False,
        PROJECT=-1,
        DROPOUT=0.0,
        NUM_TOKENS=arguments["tokens"],
        DEEP=arguments.get("deep", True),
        VIT_POOL_TYPE="original",
        FOURIER_TYPE="fft",
        FOURIER_DIMENSION={"tokens": "sequence", "channels": "hidden"}.get(arguments.get("over"), "all"),
        FOURIER_PERCENTAGE=arguments.get("part"),
        FOURIER_ADDITION=False,
        FOURIER_ADDITION_NUM=0,
        FOURIER_FIRST_LAYER=True,
        FOURIER_HALF="all",
        FOURIER_LOCATION="prepend",
        MIXED=False,
        VIS=False,
    )
    kind = "PromptedVisionTransformer" + ("" if adapter == "vpt" else "_Fourier")
    network = getattr(module, kind)(prompts, "ours", sizes["img_size"], CLASSES)
    return network, lambda images: (network(images), None, None)


if __name__ == "__main__":
    main()
