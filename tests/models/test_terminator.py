"""Terminator: the author's logits, sizes, batches, stored kernels, the slow loss and its optimiser."""

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.with_losses import WithLosses
from qna.analysis.cost import total_macs
from qna.models import TERMINATOR, Kar3, create
from qna.models.terminator.blocks import GroupStandardization
from tests.models.golden import rule
from tests.models.terminator_names import fitted, published_parts

GOLDEN = json.loads((Path(__file__).parent / "golden" / "terminator.json").read_text())
SMALL = {
    name: tuple(value) if isinstance(value, list) else value for name, value in GOLDEN["arguments"].items()
}


def small(seed=0, **arguments):
    """A small network, every tensor far from where it starts, in float64."""
    torch.manual_seed(seed)
    network = create("terminator_cifar10", **SMALL, **arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.double()


def images(batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 8, 8, dtype=torch.float64, generator=generator)


@pytest.fixture(scope="module")
def golden():
    """The network with the weights by which the author's logits were made."""
    network = create("terminator_cifar10", **SMALL).double().eval()
    theirs = {n: torch.from_numpy(rule.torch_tensor(n, tuple(s))) for n, s in GOLDEN["shapes"].items()}
    network.load_state_dict(fitted(network, theirs, published_parts(network)))
    return network


@torch.no_grad()
def test_logits_of_the_authors_network(golden):
    logits = golden(torch.from_numpy(rule.images(8, 8)).double())
    expected = torch.tensor(GOLDEN["logits"], dtype=torch.float64)
    assert (logits - expected).abs().max() < 1e-9 * GOLDEN["deviation"]
    assert golden.slow_loss().item() == pytest.approx(GOLDEN["slow_loss"], rel=1e-12)


def test_sizes_and_what_the_authors_count_is_made_of():
    """Theirs: 1,336,855 and 1,362,865; the weights in lists are not counted there, and 20 biases are."""
    for name, theirs in {"terminator_cifar10": 1_336_855, "terminator_cifar100": 1_362_865}.items():
        network = create(name, device="meta")
        count = sum(p.numel() for p in network.parameters())
        listed = sum(p.numel() for n, p in network.named_parameters() if n.endswith((".alpha", ".beta")))
        assert count == TERMINATOR[name].parameters == theirs + listed - 20
        assert listed == 5 * 4 * 2 * 2 * 32
        assert network.num_classes == int(name.removeprefix("terminator_cifar"))


def test_the_published_network_reads_earlier_maps_the_later_first():
    """In the order in which its bottlenecks have their weights."""
    variant = TERMINATOR["terminator_cifar10"]
    assert variant.earlier == ((), (), (0,), (1,), (2, 1))
    assert variant.dims == (12, 36, 72, 144, 288)
    assert (variant.kernel_sizes, variant.layers) == ((3, 9, 5, 7), (3, 2, 2, 2, 2))


def test_first_weights():
    """Of variance 1 / inputs; 2 / inputs before what is activated, and of the classifier."""
    torch.manual_seed(0)
    network = create("terminator_cifar10")
    block = network.stages[3][0]
    for layer, gain in (
        (block.bottleneck, 2),
        (block.mix, 2),
        (block.local0.mix, 2),
        (block.fast_kernel.gate.out, 1),
        (network.get_classifier(), 2),
    ):
        inputs = layer.weight.shape[1]
        # of 2,880 weights at least: 4 deviations of the estimate
        assert layer.weight.std().item() == pytest.approx((gain / inputs) ** 0.5, rel=0.06)
        assert not layer.bias.any()


def test_multiply_adds_count_every_product():
    """Of one block by hand, and nothing of slow nets for a second image but what follows from it."""
    network = create("terminator_cifar10", **SMALL)
    (block,) = network.stages[0]
    n, c = 64, 3
    one, two = (block.macs((batch, 8, 8, c)) for batch in (1, 2))
    views = n * c * (c + 8 * c + 3 * 8 + 10 * 12)
    local = sum(n * c * (k * k + c) + k * k * c * 8 for k in (3, 9, 5, 7))
    assert two - one == views + local
    assert (
        total_macs(network, (1, 3, 8, 8))
        == sum(
            stage[0].macs((1, 8, 8, dim))
            for stage, dim in zip(network.stages, (3, *SMALL["dims"]), strict=False)
        )
        + 10 * SMALL["dims"][-1]
    )


# batches


@torch.no_grad()
def test_an_answer_depends_on_the_batch_as_published_and_not_with_both_options():
    x = images(3)
    for batch_context in (True, False):
        for running_stats in (True, False):
            network = small(batch_context=batch_context, running_stats=running_stats)
            network.train()(images(4, seed=2))  # statistics that are not where they start
            network.eval()
            apart = (network(x)[1:2] - network(x[1:2])).abs().max().item()
            assert (apart > 1e-4) == (batch_context or not running_stats)
            if not batch_context and running_stats:
                assert apart < 1e-11


@torch.no_grad()
def test_groups_have_mean_zero_over_the_batch_or_the_image():
    x = 3 + 2 * torch.randn(4, 24, 5, 6, dtype=torch.float64)
    y = GroupStandardization(24, running_stats=False)(x)
    for group, part in enumerate(y.split(2, 1)):
        axes = (2, 3) if group % 2 else (0, 2, 3)
        zero = torch.zeros((), dtype=torch.float64).expand(part.mean(axes).shape)
        torch.testing.assert_close(part.mean(axes), zero, rtol=0, atol=1e-13)
        # the variance plus 1e-5 is divided by
        spread = x.split(2, 1)[group].var(axes, unbiased=False)
        torch.testing.assert_close(
            part.var(axes, unbiased=False), spread / (spread + 1e-5), rtol=1e-12, atol=0
        )
        if not group % 2:
            assert part.mean((2, 3)).abs().max() > 1e-3


def test_the_map_of_every_block_has_no_offset_before_its_activation():
    network, found = small().eval(), []
    for stage in network.stages:
        stage[0].norm.register_forward_hook(lambda *call: found.append(call[-1]))
    network(images(4))
    assert len(found) == 5
    for y in found:
        assert y.mean((0, 2, 3)).abs().max() < 1e-12


def test_checkpoints_enter_a_batch_into_running_statistics_once():
    found = []
    for checkpointed in (False, True):
        network = small(batch_context=False, running_stats=True, drop_path_rate=0.0).train()
        network.set_grad_checkpointing(checkpointed)
        network(images()).square().sum().backward()
        gradients = {n: p.grad for n, p in network.named_parameters()}
        found.append({**gradients, **dict(network.named_buffers())})
    for name, plain in found[0].items():
        assert torch.equal(plain, found[1][name]), name
    assert len(network.state_dict()) > len(gradients)


@torch.no_grad()
def test_the_first_stages_alone():
    network = small().eval()
    x, expected = images().permute(0, 2, 3, 1), network.forward_intermediates(images(), output_fmt="NHWC")[1]
    for count in (1, 3, 5):
        assert torch.equal(network.stages[:count](x), expected[count - 1])
    assert torch.equal(network.stages[1:2](expected[0]), expected[1])
    assert network.stages[-1] is network.stages[4]
    with pytest.raises(InvalidInput, match="reads 1 maps of earlier blocks beside its own, got 0"):
        network.stages[2:](expected[1])


# hyper-kernels


@torch.no_grad()
@pytest.mark.parametrize("batch_context", [True, False])
def test_stored_hyper_kernels_change_nothing(batch_context):
    network = small(batch_context=batch_context).eval()
    x, logits = images(), network(images())
    assert network.fuse() is network
    assert torch.equal(network(x), logits)
    assert not [n for n, _ in network.named_parameters() if ".wave" in n]
    assert torch.equal(network.fuse()(x), logits)


@torch.no_grad()
def test_stored_hyper_kernels_in_sixteen_bits():
    network = small().float().eval()
    expected = network(images().float())
    fused = network.fuse()
    for dtype, error in ((torch.bfloat16, 0.2), (torch.float16, 0.03)):
        y = fused.to(dtype)(images().to(dtype))
        assert y.isfinite().all()
        # some twenty layers, each rounding to 8 or 11 bits
        assert (y.float() - expected).abs().max() < error * expected.abs().max()
        fused = fused.float()


def test_training_sees_every_image_through_kernels_computed_anew():
    network = small().train()
    before = network(images())
    with torch.no_grad():
        network.stages[0][0].slow_net.out.weight.mul_(2)
    assert not torch.allclose(network(images()), before)


# the slow loss


def test_the_slow_loss_is_returned_and_not_kept():
    network = small(slow_loss=0.5).train()
    first, second = (network(images()) for _ in range(2))
    assert isinstance(first, WithLosses)
    assert first.output.shape == (2, 10)
    assert first.losses.keys() == {"slow"}
    assert torch.equal(first.losses["slow"], second.losses["slow"])
    kernels = [stage[0].slow_net() for stage in network.stages]
    by_hand = torch.zeros((), dtype=torch.float64)
    for shallow, deep in combinations(kernels, 2):
        tiled = torch.tile(shallow, (1, deep.shape[1] // shallow.shape[1], 1, 1))
        by_hand = by_hand + (tiled - deep).square().mean()
    torch.testing.assert_close(first.losses["slow"], 0.5 * by_hand, rtol=1e-12, atol=0)
    assert isinstance(network.eval()(images()), torch.Tensor)
    assert isinstance(small().train()(images()), torch.Tensor)


def test_the_slow_loss_of_one_block_is_a_tensor_of_nothing():
    network = small(slow_loss=0.5)
    network.prune_intermediate_layers([0])
    network.reset_classifier(3, "avg")
    found = network.train()(images())
    assert found.losses["slow"].item() == 0
    (found.output.sum() + found.losses["slow"]).backward()


# the optimiser


def test_kar3_on_a_scalar_by_hand():
    """Gradients 2, -1, -1: means (0.5) 0, 1, 0, (0.95) 0, 0.1, 0.045; steps of signs 1, 1, 0 at rate 0.1."""
    weight = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    optimizer = Kar3([weight], lr=0.1)
    at = []
    for gradient in (2.0, -1.0, -1.0):
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        at.append(weight.item())
    # -(1 + 0 + 0), -(-1 + 1 + 1), -(-1 + 0 + 1)
    assert at == pytest.approx([0.9, 0.8, 0.8], abs=1e-12)
    state = optimizer.state[weight]
    assert state["fast_mean"].item() == pytest.approx(-0.5, abs=1e-12)
    assert state["slow_mean"].item() == pytest.approx(0.045 * 0.95 - 0.05, abs=1e-12)


def test_kar3_takes_a_closure_skips_what_has_no_gradient_and_refuses():
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = Kar3(weights, lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = weights[0].sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert torch.equal(weights[0], torch.full((2,), 0.5))
    assert torch.equal(weights[1], torch.ones(2))
    nan = float("nan")
    for wrong in ({"lr": -1.0}, {"lr": nan}, {"betas": (0.5, 1.0)}, {"betas": (nan, 0.5)}, {"betas": (0.5,)}):
        with pytest.raises(InvalidInput, match=r"Kar3: lr must be at least 0 and finite, and betas two num"):
            Kar3(weights, **wrong)


# what it takes


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"img_size": (32, 48)}, r"H = W, got img_size=\(32, 48\)"),
        ({"dims": (12, 30, 36, 48, 60)}, "dims must be multiples of 12"),
        ({"kernel_sizes": (3, 4, 5, 7)}, "kernel_sizes must be 4 odd numbers"),
        ({"layers": (1, 2)}, "as many blocks, got 5, 2 and 5"),
        ({"earlier": ((), (), (1,), (), ())}, r"earlier\[2\] must name blocks before 1, got \(1,\)"),
        ({"earlier": 5}, "earlier must tell of every block which maps it reads, got 5"),
        ({"earlier": ((), (), ("0",), (), ())}, r"earlier\[2\] must name blocks before 1, got \('0',\)"),
        ({"earlier": ((), (), 0, (), ())}, r"earlier\[2\] must name blocks before 1, got 0"),
        ({"batch_context": "False"}, "batch_context must be True or False, got 'False'"),
        ({"running_stats": 1}, "running_stats must be True or False, got 1"),
        ({"slow_loss": -1.0}, "slow_loss must be at least 0 and finite, got -1.0"),
        ({"slow_loss": float("nan")}, "slow_loss must be at least 0 and finite, got nan"),
    ],
)
def test_what_is_refused(arguments, told):
    with pytest.raises(InvalidInput, match=told):
        create("terminator_cifar10", **arguments)


def test_images_of_one_size():
    network = create("terminator_cifar10", **{**SMALL, "img_size": 16})
    assert network(torch.randn(1, 3, 16, 16)).shape == (1, 10)
    with pytest.raises(InvalidInput, match="its hyper-kernel is 16 x 16, got a map of 8 x 16; build it for"):
        network(torch.randn(1, 3, 8, 16))
    block = network.stages[2][0]
    with pytest.raises(InvalidInput, match="reads 1 maps of earlier blocks beside its own, got 0"):
        block(torch.randn(1, 16, 16, 24))


def test_channels_of_any_image():
    for channels in (1, 5, 13):
        network = create("terminator_cifar10", **SMALL, in_chans=channels, slow_loss=1.0).train()
        output = network(torch.randn(2, channels, 8, 8))
        assert output.losses["slow"].isfinite()


def test_dropout_of_channels_after_all_blocks_but_the_first():
    network = create("terminator_cifar10", **SMALL, drop_path_rate=0.25)
    assert [stage[0].drop.p for stage in network.stages] == [0.0, *[0.25] * 4]


def test_weight_decay_leaves_the_frequencies_alone():
    network = create("terminator_cifar10", **SMALL)
    exempt = network.no_weight_decay()
    assert exempt == {n for n, _ in network.named_parameters() if ".wave" in n}
    # two slow nets of maps, two of channels, four local ones, each with one sine more than layers
    assert len([n for n in exempt if n.startswith("stages.0.")]) == 2 * (3 + 3 * 3 + 4 * 3)
