"""The static kernel: what it computes as trained, and that its deployed form is the same."""

import pytest
import torch

from qna.mixers import DilatedReparam2d
from qna.mixers.contmix.dilated_reparam import BRANCHES


def build(kernel_size):
    torch.manual_seed(0)
    mixer = DilatedReparam2d(3, kernel_size=kernel_size)
    with torch.no_grad():
        for name, tensor in mixer.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn_like(tensor)
                tensor.add_(0.5 * (noise.abs() if name.endswith("running_var") else noise))
    return mixer.double().eval()


@torch.no_grad()
@pytest.mark.parametrize("kernel_size", BRANCHES)
def test_the_deployed_form_is_the_trained_one(kernel_size):
    mixer, x = build(kernel_size), torch.randn(2, 6, 21, 3, dtype=torch.float64)
    expected = mixer(x)
    assert mixer.fuse() is mixer
    assert mixer.deployed
    assert [n for n, _ in mixer.named_parameters()] == ["large.weight", "large.bias"]
    torch.testing.assert_close(mixer(x), expected, rtol=1e-11, atol=1e-12)
    twin = DilatedReparam2d(3, kernel_size=kernel_size, deploy=True).double()
    twin.load_state_dict(mixer.state_dict())
    assert torch.equal(twin(x), mixer(x))
    assert torch.equal(mixer.fuse()(x), twin(x))


@pytest.mark.parametrize(
    ("kernel_size", "taps_and_dilations"),
    [
        (17, "5:1 7:1 9:2 3:4 3:5 3:7"),
        (15, "5:1 7:1 7:2 3:3 3:5 3:7"),
        (13, "5:1 7:1 7:2 3:3 3:4 3:5"),
        (7, "5:1 3:1 3:2 3:3"),
    ],
)
def test_small_kernels_of_the_published_networks(kernel_size, taps_and_dilations):
    """A wrong dilation changes no shape, and merges as well as the right one."""
    mixer = DilatedReparam2d(2, kernel_size=kernel_size)
    small = [m for m in mixer.children() if isinstance(m, torch.nn.Conv2d) and m is not mixer.large]
    found = [f"{m.kernel_size[0]}:{m.dilation[0]}" for m in small]
    assert found == taps_and_dilations.split()


@torch.no_grad()
@pytest.mark.parametrize("kernel_size", BRANCHES)
def test_small_kernels_lie_within_the_large_one(kernel_size):
    mixer = build(kernel_size)
    assert all(r * (k - 1) + 1 <= kernel_size and k % 2 for k, r in BRANCHES[kernel_size])
    x = torch.randn(1, 9, 10, 3, dtype=torch.float64)
    image, total = x.movedim(-1, 1), 0
    for name in ("large", *mixer.names):
        norm = mixer.get_submodule(f"{name}_norm")
        y = mixer.get_submodule(name)(image).movedim(1, -1)
        y = (y - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        total = total + y
    torch.testing.assert_close(mixer(x), total, rtol=1e-12, atol=1e-12)


def test_a_frozen_or_half_kernel_stays_so():
    mixer = DilatedReparam2d(3).to(torch.bfloat16).eval().requires_grad_(False).fuse()
    assert {p.dtype for p in mixer.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in mixer.parameters())
    assert not any(m.training for m in mixer.modules())


def test_multiply_adds_of_both_forms():
    mixer = DilatedReparam2d(3, kernel_size=7)
    assert mixer.macs((2, 4, 5, 3)) == 120 * (49 + 25 + 9 + 9 + 9)
    assert mixer.fuse().macs((2, 4, 5, 3)) == 120 * 49
