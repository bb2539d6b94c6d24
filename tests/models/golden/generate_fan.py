"""Write fan.json: logits, losses and counts of the authors' own FAN and TAP-FAN on the weights of `rule.py`.

    PYTHON tests/models/golden/generate_fan.py --official CHECKOUT [--compare]

CHECKOUT is guoyongcs/TAPADL at 6e4dbff (MIT), PYTHON that of this package with einops. All is computed in
float64. Tried with torch 2.13.0 and timm 1.0.31, whose registry is stood in for. Their TAP takes tokens for
those of a square; that their number is one of rows and columns is told to it here. With --compare nothing is
written: our models of the names in FULL, at their published sizes, are held to theirs.
"""

import argparse
import importlib
import json
import sys
import tempfile
import types
import warnings
from itertools import cycle
from pathlib import Path

import torch

import qna.models  # first, for what it does for torchvision

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import rule  # noqa: E402

SMALL = {"dim": 32, "depth": 2, "num_heads": 4}
CONVS = {"conv_dims": [16, 24], "conv_depths": [1, 2]}
THEIRS = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 10}
# name of the case -> module of theirs, its arguments, the convolutions' sizes, model of ours, its arguments
CASES = {
    "fan": ("fan", THEIRS, None, "fan_tiny", SMALL),
    "tap_fan": ("tap_fan", {**THEIRS, "num_scales": 4}, None, "tap_fan_tiny", SMALL),
    "hybrid": ("fan", THEIRS, CONVS, "fan_tiny_hybrid", {**SMALL, **CONVS}),
    "tap_hybrid": (
        "tap_fan",
        {**THEIRS, "num_scales": 3},
        CONVS,
        "tap_fan_base_hybrid",
        {**SMALL, **CONVS, "scales": 3},
    ),
}
# of the loss; at 2, that of their training, weights this even leave nothing
THRESHOLD = 1
SIZES = ((64, 64), (48, 80))
FULL = {
    "fan_tiny": "fan_tiny_12_p16_224",
    "fan_base_hybrid": "fan_base_16_p4_hybrid",
    "tap_fan_tiny": "tap_fan_tiny_12_p16_224",
    "tap_fan_base_hybrid": "tap_fan_base_16_p4_hybrid",
}
FULL_SIZES = ((224, 224), (160, 256))
COUNTED = {
    "tiny": "tiny_12_p16_224",
    "small": "small_12_p16_224",
    "base": "base_18_p16_224",
    "large": "large_24_p16_224",
    "tiny_hybrid": "tiny_8_p4_hybrid",
    "small_hybrid": "small_12_p4_hybrid",
    "base_hybrid": "base_16_p4_hybrid",
    "large_hybrid": "large_16_p4_hybrid",
}


def authors(checkout):
    """Their modules `fan`, `tap_fan` and `convnext_utils`, and the loss out of `main`."""
    helpers = types.ModuleType("timm.models.helpers")
    timm_helpers = importlib.import_module("timm.models._manipulate")
    helpers.named_apply = timm_helpers.named_apply
    helpers.build_model_with_cfg = lambda kind, variant, pretrained, **arguments: kind(
        **{k: v for k, v in arguments.items() if not k.startswith(("pretrained", "feature", "default"))}
    )
    registry = types.ModuleType("timm.models.registry")
    registry.register_model = lambda function: function
    sys.modules |= {"timm.models.helpers": helpers, "timm.models.registry": registry}
    swin = types.ModuleType("models.swin_utils")
    swin._create_fan_swin_transformer = None
    folder = checkout / "TAPADL_FAN"
    package = types.ModuleType("models")
    package.__path__ = [str(folder / "models")]
    sys.modules |= {"models": package, "models.swin_utils": swin}
    found = {n: importlib.import_module(f"models.{n}") for n in ("fan", "tap_fan", "convnext_utils")}
    for name in ("fan", "tap_fan"):
        # casts to float32 of places
        found[name].PositionalEncodingFourier.forward.__globals__["torch"] = _Doubled()
    source = (folder / "main.py").read_text()
    begin = source.index("def AttentionDiversificationLoss")
    scope = {"torch": torch, "F": torch.nn.functional}
    exec(source[begin : source.index("if __name__", begin)], scope)
    return found, scope["AttentionDiversificationLoss"]


class _Doubled:
    """torch, whose float32 is float64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def built(modules, kind, arguments, convolutions):
    backbone = None
    if convolutions is not None:
        sizes = {"depths": convolutions["conv_depths"], "dims": convolutions["conv_dims"]}
        backbone = modules["convnext_utils"].ConvNeXt(**sizes, use_head=False)
    depth = arguments["depth"]
    return modules[kind].FAN(
        **arguments, backbone=backbone, sr_ratio=[1] * depth, eta=1.0, tokens_norm=True, patch_size=16
    )


@torch.no_grad()
def draw(network):
    """Fill all that the network has, and tell the shapes."""
    network.double().eval()
    state = network.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(rule.torch_tensor(name, tuple(tensor.shape))))
    return {name: list(tensor.shape) for name, tensor in state.items()}


@torch.no_grad()
def run(modules, kind, network, size, loss):
    """Logits, and of TAP the loss of its attention."""
    images = torch.from_numpy(rule.images(*size)).double()
    if kind == "fan":
        return network(images), None
    grid = cycle((size[0] // 16, size[1] // 16))
    modules["tap_fan"].int = lambda number: next(grid)
    try:
        logits, attention = network(images, return_attn=True)
    finally:
        del modules["tap_fan"].int
    return logits, loss(attention, THRESHOLD).item() * (len(attention) + 1e-6) / len(attention)


def golden(modules, loss):
    cases = {}
    for name, (kind, arguments, convolutions, model, ours) in CASES.items():
        network = built(modules, kind, arguments, convolutions)
        shapes = draw(network)
        outputs = []
        for size in SIZES:
            logits, diversity = run(modules, kind, network, size, loss)
            outputs.append(
                {
                    "size": size,
                    "deviation": logits.std().item(),
                    "diversity": diversity,
                    "logits": logits.tolist(),
                }
            )
        cases[name] = {"model": model, "arguments": ours, "shapes": shapes, "outputs": outputs}
    counts = {}
    for ours, theirs in COUNTED.items():
        for prefix, module in (("", "fan"), ("tap_", "tap_fan")):
            network = getattr(modules[module], f"{prefix}fan_{theirs}")(num_scales=4)
            counts[f"{prefix}fan_{ours}"] = sum(p.numel() for p in network.parameters())
    return {"cases": cases, "counts": counts}


def compare(modules, loss):
    from qna._core.with_losses import WithLosses
    from qna.models.convert import convert

    for name, theirs in FULL.items():
        kind = "tap_fan" if name.startswith("tap") else "fan"
        network = getattr(modules[kind], theirs)(num_scales=4)
        draw(network)
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "theirs.pth", Path(folder) / "ours.safetensors"
            torch.save(network.state_dict(), source)
            convert(source, target, name)
            own = (
                qna.models.create(name, checkpoint_path=str(target), diversity=1.0, threshold=THRESHOLD)
                .double()
                .eval()
            )
        for size in FULL_SIZES:
            logits, diversity = run(modules, kind, network, size, loss)
            images = torch.from_numpy(rule.images(*size)).double()
            with torch.no_grad():
                worst = (own(images) - logits).abs().max() / logits.std()
                own.train()
                for module in own.modules():
                    module.training = not isinstance(module, torch.nn.BatchNorm2d)
                found = own(images)
                own.eval()
            assert isinstance(found, WithLosses)
            lost = found.losses["attention_diversification"].item()
            told = "" if diversity is None else f", loss {lost:.6f} off by {abs(lost - diversity):.1e}"
            print(f"{name} {size}: {worst:.1e} of the spread {logits.std():.3f}{told}")  # noqa: T201


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    parser.add_argument("--compare", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of timm's old places
    modules, loss = authors(options.official)
    if options.compare:
        compare(modules, loss)
    else:
        path = HERE / "fan.json"
        path.write_text(json.dumps(golden(modules, loss)) + "\n")


if __name__ == "__main__":
    main()
