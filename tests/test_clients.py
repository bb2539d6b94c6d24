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

# of the three sizes, the last two take longer
NAMES = [
    "qna_vit_nano_16",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("qna_vit_micro_32", "qna_vit_tiny")),
]
# steps of 8 bits with a sign, and of the 7 bits without that torch takes for inputs, lest sums overflow
STEPS = 127


@pytest.fixture(params=[False, True], ids=["plain", "fused"])
def network(request):
    return create("qna_vit_nano_16", request.param)


def create(name, fused):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=10).eval()
    return network.fuse() if fused else network


@pytest.fixture
def x():
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def linear_maps(network):
    return [name for name, module in network.named_modules() if type(module) is nn.Linear]


def assert_rounded(network, quantised, x, dequantised, *, per_row, step_of):
    """Weights are within half a step of the network's, and outputs of each map within what rounding of its
    inputs explains.

    Args:
        network: as it was.
        quantised: its copy.
        x: images.
        dequantised: quantised layer -> weight (C', C).
        per_row: whether each row of weights has its own scale.
        step_of: input of a map -> the distance of what it is rounded to, (..., 1) or a number.
    """
    own, calls = dict(network.named_modules()), {}
    names = linear_maps(network)
    for name, module in quantised.named_modules():
        if name in names:
            module.register_forward_hook(lambda m, i, o, name=name: calls.update({name: (m, i[0], o)}))
    assert not torch.equal(quantised(x), network(x))
    assert set(calls) == set(names)
    for name, (module, given, output) in calls.items():
        weight, rounded = own[name].weight, dequantised(module)
        step = (weight.abs().amax(1, keepdim=True) if per_row else weight.abs().max()) / STEPS
        assert ((rounded - weight).abs() <= step / 2 * (1 + 1e-5)).all(), name
        expected = nn.functional.linear(given, rounded, own[name].bias)
        # each input is off by half a step, and sums of fp32 by rounding
        most = step_of(given) / 2 * rounded.abs().sum(1) + 1e-5 * expected.abs().max()
        assert ((output - expected).abs() <= most).all(), name


def test_no_linear_map_is_of_a_type_of_its_own(network):
    assert len(linear_maps(network)) == sum(isinstance(m, nn.Linear) for m in network.modules()) == 27


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("name", NAMES)
def test_torch_quantises_every_linear_map(name, fused, x):
    network = create(name, fused)
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(network), {nn.Linear})
    kind = torch.ao.nn.quantized.dynamic.Linear  # pyright: ignore[reportAttributeAccessIssue]
    found = [name for name, module in quantised.named_modules() if isinstance(module, kind)]
    assert found == linear_maps(network)
    assert_rounded(
        network,
        quantised,
        x,
        lambda layer: layer.weight().dequantize(),
        per_row=False,
        step_of=lambda given: (given.max().clamp(min=0) - given.min().clamp(max=0)) / STEPS,
    )


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("config", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_torchao_quantises_every_linear_map(name, fused, x, config):
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    network = create(name, fused)
    quantised = copy.deepcopy(network)
    torchao.quantize_(quantised, getattr(torchao, config)())
    dynamic = config.startswith("Int8Dynamic")
    assert_rounded(
        network,
        quantised,
        x,
        lambda layer: layer.weight.dequantize(),
        per_row=True,
        step_of=lambda given: given.abs().amax(-1, keepdim=True) / STEPS if dynamic else torch.zeros(()),
    )


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
