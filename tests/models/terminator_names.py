"""What the author of Terminator calls what is a tensor of ours, for weights made by a rule."""

import re

import torch

# their order of the views before a bottleneck, by ours
OURS = ("fast", "out", "mixed", "weighed", "glu", "interaction", "local0", "local1", "local2", "local3")
_BEFORE = ("out", "local1")
_MIDDLE = ("fast", "mixed", "local0", "glu", "local2", "weighed", "local3")
_NETS = {
    "slow_net.": "slow_net_g.Kernel.",
    "channel_interaction.scores.slow_net.": "channel_mixer_hci.slow_net_gc.Kernel.",
    "interaction.scores.slow_net.": "hyper_interact.slow_net_gc_hi.Kernel.",
    "interaction.slow_net.": "hyper_interact.slow_net_gs_hi.Kernel.",
    "fast_kernel.gate.": "Fast_Kernel_rgu.",
    "fast_kernel.gated_gate.": "Fast_Kernel_rgu_2.",
    "mix.": "channel_mixer_mlp.",
    "bottleneck.": "bottleneck_layer.",
}
_LEAVES = (
    (r"local(\d)\.mix\.", lambda m: f"local_interact_conv_{int(m[1]) + 1}.channel_mixer."),
    (r"local(\d)\.slow_net\.", lambda m: f"slow_net_l{int(m[1]) + 1}.Kernel."),
    (r"wave(\d)\.", r"filters.\1.linear."),
    (r"layer(\d)\.", lambda m: f"linears.{int(m[1]) - 1}."),
    (r"context(\d)\.", lambda m: f"fast_linears_x.{int(m[1]) - 1}."),
    (r"Kernel\.out\.", "Kernel.output_linear."),
    (r"Kernel\.reduce\.", "Kernel.fast_reduce."),
    (r"Kernel\.fc\.", "Kernel.fast_fc1."),
    (r"(rgu(_2)?)\.key\.", r"\1.fast_linear_k."),
    (r"(rgu(_2)?)\.value\.", r"\1.fast_linear_v."),
    (r"(rgu(_2)?)\.query\.", r"\1.fast_linear_q."),
    (r"(rgu(_2)?)\.out\.", r"\1.fast_linear_y."),
)


def their_name(key):
    """Of our tensor `key`."""
    if key.startswith("head.fc."):
        return key.replace("head.fc.", "out_layer.")
    number, rest = re.fullmatch(r"stages\.(\d)\.0\.(.+)", key).groups()
    if rest == "bias":
        return f"blocks.{number}.bias"
    for ours, theirs in _NETS.items():
        if rest.startswith(ours):
            rest = theirs + rest.removeprefix(ours)
            break
    for ours, theirs in _LEAVES:
        rest = re.sub(ours, theirs, rest)
    shared = "bias_pk" if "slow_net_l" in rest else "bias_p"
    return f"blocks.{number}.fast_multi_branch.{rest.replace('shared_bias', shared)}"


def fitted(model, theirs, earlier):
    """Our state dict from their tensors by name; `earlier` maps are read by each block."""
    found = {}
    for key, tensor in model.state_dict().items():
        name = their_name(key)
        if name.endswith((".alpha", ".beta")):
            given = torch.stack([theirs[f"{name}s.{i}"] for i in range(len(tensor))])
        else:
            given = theirs[name]
        if name.endswith("bottleneck_layer.weight"):
            given = _reordered(given, earlier[int(key.split(".")[1])])
        found[key] = given.reshape(tensor.shape)
    return found


def _reordered(weight, earlier):
    order = [*_BEFORE, *["earlier0"][:earlier], *_MIDDLE, *["earlier1"][: earlier - 1], "interaction"]
    parts = dict(zip(order, weight.chunk(len(order), 1), strict=True))
    return torch.cat([parts[name] for name in (*OURS, *(f"earlier{i}" for i in range(earlier)))], 1)


def published_parts(model):
    """How many earlier maps each block reads."""
    return [len(places) for places in model.stages.earlier]


def their_alphas(network):
    """The tensors that their code keeps in lists, by names as if they were parameters."""
    return {
        f"{name}.{kind}.{i}": tensor
        for name, module in network.named_modules()
        for kind in ("alphas", "betas")
        for i, tensor in enumerate(getattr(module, kind, ()))
    }
