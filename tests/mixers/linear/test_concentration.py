"""Local concentration: by its definition, as nothing, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck

from qna._core.errors import InvalidInput
from qna.mixers import LocalConcentration2d


def made(dim=3, kernel_size=3):
    torch.manual_seed(0)
    module = LocalConcentration2d(dim, kernel_size=kernel_size).double().eval()
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn_like(tensor).abs() + 0.5 if "var" in name else torch.randn_like(tensor))
    return module


@torch.no_grad()
@pytest.mark.parametrize("kernel_size", [3, 7])
def test_by_its_definition(kernel_size):
    module, x = made(kernel_size=kernel_size), torch.randn(2, 4, 6, 3).double()
    margin = kernel_size // 2

    def windows(t, conv):
        y = torch.empty_like(t)
        filled = F.pad(t, (0, 0, margin, margin, margin, margin))
        for i in range(t.shape[1]):
            for j in range(t.shape[2]):
                window = filled[:, i : i + kernel_size, j : j + kernel_size]
                y[:, i, j] = (window * conv.weight[:, 0].permute(1, 2, 0)).sum((1, 2)) + conv.bias
        return y

    first = windows(x, module.conv1)
    active = first * 0.5 * (1 + torch.erf(first / 2**0.5))
    norm = module.norm
    normed = (active - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(module(x), windows(normed, module.conv2), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_filters_of_one_tap_keep_every_position_apart():
    module, x = made(), torch.randn(1, 4, 5, 3).double()
    for conv in (module.conv1, module.conv2):
        conv.weight.zero_()
        conv.weight[..., 1, 1] = 1
        nn.init.zeros_(conv.bias)
    norm = module.norm
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    expected = (F.gelu(x) - norm.running_mean) * scale + norm.bias
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)


def test_gradients():
    assert gradcheck(made(dim=2), (torch.randn(1, 3, 4, 2).double().requires_grad_(),))


def test_in_training_images_share_their_norm():
    module, x = made().train(), torch.randn(3, 4, 5, 3).double()
    assert not torch.allclose(module(x)[:1], module(x[:1]))


@pytest.mark.parametrize(
    ("kernel_size", "told"),
    [(4, "kernel_size must be odd, got 4"), (0, "kernel_size must be an integer of at least 1, got 0")],
)
def test_sizes_that_are_none(kernel_size, told):
    with pytest.raises(InvalidInput, match=told):
        LocalConcentration2d(8, kernel_size=kernel_size)
