"""Write terminator.json: what the author's own Terminator makes of the weights and images of `rule.py`.

    PYTHON tests/models/golden/generate_terminator.py --official CHECKOUT [--compare]

CHECKOUT is hyperevolnet/Terminator as of 1 July 2024 (commit 67e773a, withdrawn since, to be found in forks).
It has no licence and is run as a black box; all is computed in float64. `--compare` runs the published size
beside ours, at the author's own initial weights with noise on every tensor, and writes nothing. Tensors that
the code moves to a GPU by hand stay where they are. Tried with torch 2.13.0.
"""

import argparse
import json
import sys
import types
from itertools import pairwise
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[2])]
import rule  # noqa: E402

from tests.models.terminator_names import fitted, published_parts, their_alphas  # noqa: E402

# of each slow net, by the author's names
NETS = ("kernel_g", "kernel_l", "kernel_gc", "kernel_gc_hi", "kernel_gs_hi")


def config(sizes):
    """The author's configuration of our sizes, as their code reads it."""
    ns = types.SimpleNamespace
    dims, hidden, size = sizes["dims"], sizes["hidden"], sizes["img_size"]
    factors = [b // a for a, b in pairwise([3, *dims])]
    layers = list(sizes["layers"])
    local, channel, interact = (sizes[f"{name}_hidden"] for name in ("local", "channel", "interact"))
    block = ns(
        type="SFNE",
        bottleneck_factors=factors,
        in_channel=[3, *dims[:-1]],
        num_branch=10,
        num_concat_pre=[0, 0, 1, 1, 2],
    )
    net = ns(
        no_hidden=3,
        final_no_hidden=dims[-1],
        no_blocks=5,
        dropout_type="Dropout2d",
        dropout=[0.0] * 5,
        block=block,
        data_dim=2,
    )
    kernels = {
        "kernel_g": ns(type="MAGNet_G", num_layers=-1, num_layers_list=layers, no_hidden=hidden, size=size),
        "kernel_l": ns(type="MAGNet_L", no_hidden=local, num_layers=2, size=-1, sizes=[3, 9, 5, 7]),
        "kernel_gc": ns(type="MAGNet_GC", num_layers=2, no_hidden=channel, size=-1),
        "kernel_gc_hi": ns(type="MAGNet_GC", num_layers=2, no_hidden=interact, size=-1),
        "kernel_gs_hi": ns(type="MAGNet_G", num_layers=2, no_hidden=hidden, size=size),
    }
    return net, [kernels[name] for name in NETS]


SMALL = {
    "dims": (12, 24, 24, 48, 48),
    "layers": (2, 1, 1, 1, 1),
    # the one size that their code does not take from its configuration
    "hidden": 64,
    "local_hidden": 8,
    "channel_hidden": 4,
    "interact_hidden": 4,
    "img_size": 8,
}
PUBLISHED = {
    "dims": (12, 36, 72, 144, 288),
    "layers": (3, 2, 2, 2, 2),
    "hidden": 64,
    "local_hidden": 32,
    "channel_hidden": 32,
    "interact_hidden": 16,
    "img_size": 32,
}


def theirs(sizes, classes):
    """The author's network in float64, without its first call's change of weights."""
    from models import Terminator_image

    net, kernels = config(sizes)
    # their code has two slow losses; this version calls the other, of sums over channels
    author = sys.modules["models.terminator"]
    author.cal_slow_loss_channel_sum = lambda found: author.cal_slow_loss(found, net.block.bottleneck_factors)
    network = Terminator_image(3, classes, net, *kernels)
    for module in network.modules():
        if hasattr(module, "initialized"):
            module.initialized[0] = True
    return network.double().eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    parser.add_argument("--compare", action="store_true")
    options = parser.parse_args()
    sys.path.insert(0, str(options.official))
    sys.modules["omegaconf"] = types.SimpleNamespace(OmegaConf=None)
    torch.Tensor.cuda = lambda self: self
    torch.set_default_dtype(torch.float64)
    if options.compare:
        compare()
        return
    network = theirs(SMALL, 10)
    state = network.state_dict()
    shapes = {n: list(t.shape) for n, t in network.named_parameters()}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(rule.torch_tensor(name, tuple(parameter.shape))))
        for name, tensor in their_alphas(network).items():
            tensor.data = torch.from_numpy(rule.torch_tensor(name, (len(tensor),))).double()
            shapes[name] = [len(tensor)]
        logits, slow = network(torch.from_numpy(rule.images(8, 8)).double(), train_mode=True)
    print(f"deviation {logits.std():.3f}, slow loss {slow:.3f}, {len(state)} tensors")  # noqa: T201
    golden = {
        "arguments": SMALL,
        "shapes": shapes,
        "deviation": logits.std().item(),
        "logits": logits.tolist(),
        "slow_loss": slow.item(),
    }
    (HERE / "terminator.json").write_text(f"{json.dumps(golden)}\n")


@torch.no_grad()
def compare():
    """The published size beside ours."""
    from qna.models import create

    for classes, batch in ((10, 2), (100, 3)):
        torch.manual_seed(classes)
        network = theirs(PUBLISHED, classes)
        counted = sum(p.numel() for p in network.parameters())
        found = {**dict(network.named_parameters()), **their_alphas(network)}
        for tensor in found.values():
            tensor.data = tensor.data + 0.1 * torch.randn_like(tensor)
        ours = create(f"terminator_cifar{classes}").double().eval()
        ours.load_state_dict(fitted(ours, {n: t.data for n, t in found.items()}, published_parts(ours)))
        x = torch.randn(batch, 3, 32, 32)
        expected, slow = network(x, train_mode=True)
        network.slow_neural_loss = 0
        error = (ours(x) - expected).abs().max() / expected.std()
        slow_error = (ours.slow_loss() - slow).abs() / slow
        told = (
            f"{classes} classes, batch {batch}: {counted} parameters of theirs, logits differ by {error:.1e} "
        )
        print(f"{told}of their spread, the slow loss by {slow_error:.1e}")  # noqa: T201


if __name__ == "__main__":
    main()
