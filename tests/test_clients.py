"""Other people's tools find every linear map of a network, and what they make of it is the same network."""

import copy

import pytest
import torch
from torch import nn

from qna._core.errors import MissingExtra

try:
    from qna.models.timm_entry import timm
except MissingExtra as missing:
    pytest.skip(str(missing), allow_module_level=True)

# int8 with one scale per row: each of the maps is off by half a step of 1 / 127 of its largest value, and the
# errors of a residual network's branches add like independent ones; a map at a wrong scale is off by 1
LOSS = 0.1


@pytest.fixture(params=[False, True], ids=["plain", "fused"])
def network(request):
    torch.manual_seed(0)
    network = timm.create_model("qna_vit_nano_16", num_classes=10).eval()
    return network.fuse() if request.param else network


@pytest.fixture
def x():
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def linear_maps(network):
    return [name for name, module in network.named_modules() if type(module) is nn.Linear]


def loss(network, expected, x):
    return ((network(x) - expected).abs().max() / expected.abs().max()).item()


def test_no_linear_map_is_of_a_type_of_its_own(network):
    assert len(linear_maps(network)) == sum(isinstance(m, nn.Linear) for m in network.modules()) == 27


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_torch_quantises_every_linear_map(network, x):
    expected, names = network(x), linear_maps(network)
    network = torch.ao.quantization.quantize_dynamic(network, {nn.Linear})
    kind = torch.ao.nn.quantized.dynamic.Linear  # pyright: ignore[reportAttributeAccessIssue]
    assert [name for name, module in network.named_modules() if isinstance(module, kind)] == names
    assert 0 < loss(network, expected, x) < LOSS


@torch.no_grad()
@pytest.mark.parametrize("config", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_torchao_quantises_every_linear_map(network, x, config):
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    expected, names = network(x), linear_maps(network)
    torchao.quantize_(network, getattr(torchao, config)())
    quantised = dict(network.named_modules())
    assert all(type(quantised[name].weight) not in (torch.Tensor, nn.Parameter) for name in names)
    assert 0 < loss(network, expected, x) < LOSS


def test_lora_trains_and_merges(network, x):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    config = peft.LoraConfig(r=2, target_modules=linear_maps(network), init_lora_weights=False)
    adapted = peft.get_peft_model(copy.deepcopy(network), config)
    adapted(x).square().sum().backward()
    lora = [p for name, p in adapted.named_parameters() if "lora_" in name]
    assert len(lora) == 2 * 27
    assert all(p.grad is not None and p.grad.any() for p in lora)
    with torch.no_grad():
        torch.testing.assert_close(adapted.eval()(x), adapted.merge_and_unload()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [16, 32])
def test_a_counter_of_modules_sees_each_map_once(size):
    network = timm.create_model("qna_vit_nano_16", num_classes=10).eval()
    seen = []
    hook = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    network(torch.zeros(1, 3, size, size))
    hook.remove()
    called = [module for module in seen if type(module) is nn.Linear]
    assert len(called) == len(set(map(id, called))) == len(linear_maps(network))


# the published sizes have four stages, which is what smp takes by default
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("qna_vit_nano_16", {"encoder_depth": 3, "decoder_channels": (16, 8, 4)}),
        pytest.param("qna_vit_tiny", {}, marks=pytest.mark.slow),
    ],
)
def test_a_decoder_reads_every_stage(name, arguments):
    smp = pytest.importorskip("segmentation_models_pytorch", reason="it is in the extra 'dense'")
    torch.manual_seed(0)
    model = smp.Unet(f"tu-{name}", encoder_weights=None, classes=3, **arguments)
    y = model(torch.randn(2, 3, 64, 96))
    assert y.shape == (2, 3, 64, 96)
    y.square().sum().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
