"""The map to the values is a linear map to the tools that look for one."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from qna._core.errors import InvalidInput
from qna.mixers import QnA2d
from qna.parts.plain import is_plain


@pytest.fixture
def mixer():
    torch.manual_seed(0)
    layer = QnA2d(8, num_heads=2, kernel_size=3, bias=True).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


@pytest.fixture
def x():
    return torch.randn(2, 5, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_hook_sees_the_values_and_changes_nothing(mixer, x):
    plain, seen = mixer(x), []
    handle = mixer.project.value.register_forward_hook(lambda module, inputs, output: seen.append(output))
    close(mixer(x), plain)
    close(seen[0].unflatten(-1, (4, 2)), mixer.project(x).split().value.transpose(-1, -2))
    handle.remove()
    assert torch.equal(mixer(x), plain)  # one product again


def test_a_hook_that_changes_the_values_is_obeyed(mixer, x):
    mixer.project.value.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    close(mixer(x), mixer.out.bias.expand(2, 5, 7, 8))


def test_pruning_holds_in_training_and_after_loading(mixer, x):
    before = mixer.state_dict()
    prune.l1_unstructured(mixer.project.value, "weight", amount=0.5)
    for _ in range(2):  # the mask is applied anew in each step
        mixer(x).square().sum().backward()
    gradient = mixer.project.value.weight_orig.grad
    assert torch.equal(gradient == 0, mixer.project.value.weight_mask == 0)
    mask = mixer.project.value.weight_mask.clone()
    with torch.no_grad():
        mixer.project.value.weight_orig.normal_()
        pruned = mixer(x)
        expected = QnA2d(8, num_heads=2, kernel_size=3, bias=True).double()
        weight = mixer.project.value.weight_orig * mask
        expected.load_state_dict({**before, "project.value.weight": weight})
        close(pruned, expected(x))
    prune.remove(mixer.project.value, "weight")
    assert torch.equal(mixer(x), expected(x))


@pytest.mark.parametrize("normed", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrizations_train(mixer, x, normed):
    normed(mixer.project.value)
    for _ in range(2):
        mixer(x).square().sum().backward()
    assert all(p.grad is not None for p in mixer.parameters())


class Adapter(nn.Module):
    """A low-rank change of a linear map, as adapters put it in the map's place."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False, dtype=torch.float64)
        self.up = nn.Linear(2, base.out_features, bias=False, dtype=torch.float64)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def test_an_adapter_trains_and_merges(mixer, x):
    base = mixer.project.value
    mixer.project.value = Adapter(base)
    adapted = mixer(x)
    adapted.square().sum().backward()
    assert mixer.project.value.down.weight.grad.any()
    with torch.no_grad():
        base.weight += mixer.project.value.up.weight @ mixer.project.value.down.weight
        mixer.project.value = base
        close(mixer(x), adapted)


def test_fuse_refuses_what_it_cannot_fold(mixer):
    with torch.no_grad():
        mixer.project.value.register_forward_hook(lambda *_: None)
        with pytest.raises(
            InvalidInput, match=r"hooks, masks or adapters are on this Linear: merge or remove"
        ):
            mixer.fuse()
        mixer.project.value = Adapter(mixer.project.value)
        with pytest.raises(InvalidInput, match="are on this Adapter: merge or remove them first"):
            mixer.fuse()


def test_what_is_plain(mixer):
    value = mixer.project.value
    assert is_plain(value, nn.Linear)
    assert type(value) is nn.Linear  # what other tools know by its type
    assert not is_plain(nn.Bilinear(8, 8, 8), nn.Linear)
    value.forward = value.forward
    assert not is_plain(value, nn.Linear)
    del value.forward
    handle = value.register_full_backward_hook(lambda *_: None)
    assert not is_plain(value, nn.Linear)
    handle.remove()
    handle = nn.modules.module.register_module_forward_pre_hook(lambda *_: None)  # on all modules
    assert not is_plain(value, nn.Linear)
    handle.remove()
    assert is_plain(value, nn.Linear)


def test_the_names_of_the_state_dict_stay(mixer):
    names = {"query", "key", "value.weight", "value.bias", "position.table", "query_weight.table"}
    assert {n.removeprefix("project.") for n in mixer.state_dict() if n.startswith("project.")} == names


def test_what_was_fused_with_buffers_loads():
    torch.manual_seed(0)
    layer, x = QnA2d(8, num_heads=2, kernel_size=3, bias=True).fuse(), torch.randn(1, 4, 5, 8)
    state = {name.replace("project.packed.", "project."): t for name, t in layer.state_dict().items()}
    assert "project.weight" in state
    other = QnA2d(8, num_heads=2, kernel_size=3, bias=True).fuse()
    other.load_state_dict(state)
    assert torch.equal(other(x), layer(x))
