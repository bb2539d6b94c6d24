"""The two operators against loops over their definition, and what their slow nets make."""

import math

import pytest
import torch
import torch.nn.functional as F

from qna._core.errors import InvalidInput
from qna.mixers import HyperZZWGlobal2d, HyperZZWLocal2d
from qna.mixers.hyperzzw.slow_net import ContextSlowNet, SlowNet


def filled(module, seed=0):
    """Every tensor random, in float64; frequencies such that sines go through some turns."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module.eval()


def a_map(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def standardized(values):
    return (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()


# slow nets


def coordinates(size):
    steps = [[-1 + 2 * i / (n - 1) if n > 1 else -1 for i in range(n)] for n in size]
    if len(size) == 1:
        return [(a,) for a in steps[0]]
    return [(a, b) for a in steps[0] for b in steps[1]]


@torch.no_grad()
@pytest.mark.parametrize("size", [(5,), (3, 4), (1, 2)])
def test_a_slow_net_position_by_position(size):
    net = filled(SlowNet(size, 3, hidden=4, layers=2))
    kernel = net()
    assert kernel.shape == (1, 3, *size)
    for place, at in enumerate(coordinates(size)):
        c = torch.tensor(at, dtype=torch.float64)
        sines = [torch.sin(w.weight @ c + w.bias) for w in (net.wave0, net.wave1, net.wave2)]
        z = sines[0]
        for sine, layer in ((sines[1], net.layer1), (sines[2], net.layer2)):
            z = sine * (layer.weight @ z + layer.bias) + net.shared_bias[place]
        expected = net.out.weight @ z + net.out.bias
        torch.testing.assert_close(kernel.flatten(2)[0, :, place], expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("batch_context", [True, False])
def test_a_context_dependent_kernel_from_its_equations(batch_context):
    net = filled(ContextSlowNet(3, 2, hidden=4, layers=2, batch_context=batch_context))
    image = a_map(3, 2, 7, 5)
    kernels = net(image)
    assert kernels.shape == (1 if batch_context else 3, 2, 3, 3)
    reduced = torch.stack(
        [
            torch.stack(
                [net.reduce.weight @ p + net.reduce.bias for p in F.adaptive_avg_pool2d(i, 3).flatten(1).T]
            )
            for i in image
        ]
    )
    contexts = reduced.mean(0)[None] if batch_context else reduced
    for kernel, context in zip(kernels, contexts, strict=True):
        g = F.gelu(context @ net.fc.weight.T + net.fc.bias)
        c = torch.tensor(coordinates((3, 3)), dtype=torch.float64)
        sines = [torch.sin(c @ w.weight.T + w.bias) for w in (net.wave0, net.wave1, net.wave2)]
        z = sines[0]
        for i in (1, 2):
            layer, scale = net.get_submodule(f"layer{i}"), net.get_submodule(f"context{i}")
            z = sines[i] * (z @ layer.weight.T + layer.bias) + net.shared_bias
            norm = z.square().sum(0).sqrt()
            z = net.alpha[i - 1] * z + net.beta[i - 1] * z / norm
            z = z * (g @ scale.weight.T + scale.bias)
        expected = (z @ net.out.weight.T + net.out.bias).T
        torch.testing.assert_close(kernel.flatten(1), expected, rtol=1e-11, atol=1e-11)


def test_no_gradient_passes_the_first_term_of_the_renormalisation():
    """With beta 0 nothing before it is trained, with beta 1 and alpha 0 everything is."""
    for alpha, beta, trained in ((1.0, 0.0, False), (0.0, 1.0, True)):
        net = filled(ContextSlowNet(3, 2, hidden=4, layers=1, batch_context=True))
        with torch.no_grad():
            net.alpha.fill_(alpha)
            net.beta.fill_(beta)
        (net(a_map(2, 2, 4, 4)) * a_map(1, 2, 3, 3, seed=3)).sum().backward()
        assert bool(net.layer1.weight.grad.abs().max() > 1e-12) == trained
        assert net.beta.grad.any()
        assert net.context1.weight.grad.any()


def test_how_slow_nets_begin():
    torch.manual_seed(0)
    net = SlowNet((8, 8), 4, hidden=4000, layers=1)
    for wave, shape in ((net.wave0, 6.0), (net.wave1, 3.0)):
        # uniform up to 1 / sqrt(2), times 2 pi 2000 times a gamma variable of this mean
        found = wave.weight.abs().mean().item() / (2 * math.pi * 2000)
        assert found == pytest.approx(shape / 2 / math.sqrt(2), rel=0.05)
        assert not wave.bias.any()
    assert (net.layer1.bias == 1).all()
    assert net.layer1.weight.std().item() == pytest.approx(4000**-0.5, rel=0.02)
    # the first call of the author's code divides by the root of the positions
    assert net.out.weight.std().item() == pytest.approx(4000**-0.5 / 8, rel=0.05)
    local = ContextSlowNet(3, 4, hidden=8, layers=2, batch_context=True)
    assert (local.alpha == 1).all()
    assert (local.beta == 0.1).all()


@torch.no_grad()
def test_stored_kernels_are_the_computed_ones_bit_for_bit():
    """At the frequencies that nets begin with, in fp32; and they load into a net that begins with them."""
    torch.manual_seed(0)
    for mixer, size in ((HyperZZWGlobal2d(6, map_size=9), 9), (HyperZZWLocal2d(6, kernel_size=5), 9)):
        x = torch.randn(2, size, size, 6)
        expected = mixer(x)
        assert mixer.fuse() is mixer
        assert torch.equal(mixer(x), expected)
        arguments = {"map_size": 9} if isinstance(mixer, HyperZZWGlobal2d) else {"kernel_size": 5}
        twin = type(mixer)(6, **arguments, deploy=True)
        twin.load_state_dict(mixer.state_dict())
        assert torch.equal(twin(x), expected)
        assert torch.equal(mixer.fuse()(x), expected)


@torch.no_grad()
def test_no_image_changes_the_global_hyper_kernel():
    mixer = filled(HyperZZWGlobal2d(3, map_size=4, hidden=5))
    found = []
    mixer.slow_net.register_forward_hook(lambda *call: found.append(call[-1]))
    mixer(a_map(2, 4, 4, 3, seed=1))
    mixer(a_map(5, 4, 4, 3, seed=2))
    assert torch.equal(*found)


# the operators


@torch.no_grad()
def test_the_product_of_matrices_by_einsum_and_loops():
    mixer, x = filled(HyperZZWGlobal2d(3, map_size=5, hidden=4)), a_map(2, 5, 5, 3)
    weights = x * mixer.slow_net()[0].permute(1, 2, 0)

    def gates(unit, m):
        def linear(layer, m):
            return torch.einsum("oi,bhwi->bhwo", layer.weight[..., 0, 0], m) + layer.bias

        product = linear(unit.key, m) * linear(unit.query, linear(unit.value, m))
        for image in product:
            for c in range(3):
                image[..., c] = standardized(image[..., c])
        return linear(unit.out, F.gelu(product) + unit.shared_bias[0, 0, :, :, None])

    fast = gates(mixer.fast_kernel.gate, x) + gates(mixer.fast_kernel.gated_gate, weights)
    for image in fast:
        for c in range(3):
            image[..., c] = standardized(image[..., c])
    expected = torch.einsum("bhkc,bkwc->bhwc", weights, fast)
    torch.testing.assert_close(mixer(x), expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_the_elementwise_form_on_maps_that_are_no_squares():
    mixer, x = filled(HyperZZWGlobal2d(3, map_size=(4, 7), hidden=4, form="elementwise")), a_map(2, 4, 7, 3)
    expected = torch.einsum("bhwc,chw,bhwc->bhwc", x, mixer.slow_net()[0], x)
    torch.testing.assert_close(mixer(x), expected, rtol=1e-12, atol=0)
    assert mixer.macs(x.shape) == 2 * x.numel() + mixer.slow_net.own_macs()


@torch.no_grad()
@pytest.mark.parametrize("batch_context", [True, False])
def test_the_local_operator_tap_by_tap(batch_context):
    mixer = filled(HyperZZWLocal2d(2, kernel_size=3, hidden=4, batch_context=batch_context))
    x, other = a_map(2, 4, 5, 2), a_map(2, 4, 5, 2, seed=9)
    for context in (None, other):
        kernels = mixer.slow_net((x if context is None else context).permute(0, 3, 1, 2)).expand(
            2, -1, -1, -1
        )
        y = torch.zeros_like(x)
        for b in range(2):
            for i in range(4):
                for j in range(5):
                    for p in range(3):
                        for q in range(3):
                            if 0 <= i + p - 1 < 4 and 0 <= j + q - 1 < 5:
                                y[b, i, j] += x[b, i + p - 1, j + q - 1] * kernels[b, :, p, q]
        y = y @ mixer.mix.weight[..., 0, 0].T + mixer.mix.bias
        for c in range(2):
            y[..., c] = standardized(y[..., c])
        expected = F.gelu(y) + mixer.bias
        torch.testing.assert_close(mixer(x, context), expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_images_of_a_batch_meet_unless_both_options_part_them():
    x = a_map(3, 4, 5, 2)
    for batch_context in (True, False):
        for running_stats in (True, False):
            options = {"batch_context": batch_context, "running_stats": running_stats}
            mixer = filled(HyperZZWLocal2d(2, kernel_size=3, hidden=4, **options))
            mixer.train()(a_map(4, 4, 5, 2, seed=5))
            mixer.eval()
            apart = (mixer(x)[:1] - mixer(x[:1])).abs().max().item()
            assert (apart > 1e-3) == (batch_context or not running_stats)
            if not batch_context and running_stats:
                assert apart < 1e-12


def test_gradients_of_what_no_stop_hides():
    """The operators' own products; the renormalisation stops gradients and is asked elsewhere."""
    mixer = filled(HyperZZWGlobal2d(2, map_size=3, hidden=3))
    names, tensors = zip(*mixer.named_parameters(), strict=True)
    tensors = [t.detach().requires_grad_() for t in tensors]
    x = a_map(2, 3, 3, 2).requires_grad_()

    def run(x, *values):
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *tensors))
    local = filled(HyperZZWLocal2d(2, kernel_size=3, hidden=3))
    kernels = a_map(1, 2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, k: local.norm(local.mix(local._convolved(x.movedim(-1, 1), k))), (x, kernels)
    )


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (
            lambda: HyperZZWGlobal2d(4, map_size=(3, 4)),
            r"needs maps with H = W, got map_size=\(3, 4\); form='elementwise'",
        ),
        (lambda: HyperZZWGlobal2d(4, form="matmull"), "matmul"),
        (lambda: HyperZZWGlobal2d(4, map_size=0), "map_size must be an integer of at least 1"),
        (lambda: HyperZZWGlobal2d(4, hidden=0), "hidden must be an integer of at least 1"),
        (lambda: HyperZZWLocal2d(4, kernel_size=4), "kernel_size must be odd, got 4"),
        (lambda: HyperZZWLocal2d(4, layers=0), "layers must be an integer of at least 1"),
    ],
)
def test_what_is_refused(build, told):
    with pytest.raises(InvalidInput, match=told):
        build()


def test_contexts_of_other_channels_or_images_are_named():
    x, mixer = torch.randn(2, 3, 4, 6), HyperZZWLocal2d(6, kernel_size=3)
    with pytest.raises(InvalidInput, match=r"context: input must be .*C = 6, got \(2, 3, 4, 5\)"):
        mixer(x, x[..., :5])
    # a mean over images is of any number
    assert mixer(x, x[:1, :2]).shape == x.shape
    with pytest.raises(InvalidInput, match="a context for each of 2 images, got 1"):
        HyperZZWLocal2d(6, kernel_size=3, batch_context=False)(x, x[:1])


def test_an_empty_batch_with_kernels_of_each_image():
    mixer = HyperZZWLocal2d(6, kernel_size=3, batch_context=False, running_stats=True)
    mixer(torch.randn(0, 4, 5, 6)).sum().backward()
    assert not any(p.grad.any() for p in mixer.parameters())
    assert all(b.isfinite().all() for b in mixer.buffers())


def test_a_map_of_another_size_is_named():
    with pytest.raises(
        InvalidInput, match="its hyper-kernel is 6 x 6, got a map of 6 x 7; build it for that"
    ):
        HyperZZWGlobal2d(4, map_size=6)(torch.randn(1, 6, 7, 4))
