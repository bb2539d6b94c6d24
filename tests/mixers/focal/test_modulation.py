"""Focal modulation: equal to timm's, golden outputs by a rule, and the limits where it becomes simple."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from qna._core.errors import InvalidInput
from qna._core.third_party import import_vision
from qna.mixers import FocalModulation2d
from qna.models import BlockSpec, QnAViT


def by_rule(shape, phase):
    """Values that no two places share, from a formula."""
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(1.7 * n + phase).view(shape)


def mixer_by_rule(dim=6, **options):
    mixer = FocalModulation2d(dim, **options).double()
    with torch.no_grad():
        for phase, parameter in enumerate(mixer.parameters()):
            parameter.copy_(by_rule(parameter.shape, phase) * (2 if parameter.ndim < 4 else 1))
    return mixer


def timms(mixer):
    """timm's module, maps (B, C, H, W), with the same weights."""
    module = import_vision("timm.models.focalnet", extra="models", purpose="a comparison")
    kernels, normed = mixer.kernel_sizes, not isinstance(mixer.norm, torch.nn.Identity)
    theirs = module.FocalModulation(
        mixer.dim,
        kernels[0] if kernels else 3,
        len(kernels),
        use_post_norm=normed,
        normalize_modulator=mixer.normalize_modulator,
    ).double()
    if normed:
        theirs.norm.eps = mixer.norm.eps  # the authors' 1e-5; timm's is 1e-6
    query, gates = mixer.query_gates, len(kernels) + 1
    state = {
        "f.weight": torch.cat([query.weight[:-gates], mixer.context.weight, query.weight[-gates:]]),
        "f.bias": torch.cat([query.bias[:-gates], mixer.context.bias, query.bias[-gates:]]),
        "h.weight": mixer.modulator.weight,
        "h.bias": mixer.modulator.bias,
        "proj.weight": mixer.out.weight,
        "proj.bias": mixer.out.bias,
        **{f"focal_layers.{i}.0.weight": conv.weight for i, conv in enumerate(mixer.levels)},
        **{f"norm.{name}": parameter for name, parameter in mixer.norm.named_parameters()},
    }
    theirs.load_state_dict(
        {n: t[:, :, None, None] if t.ndim == 2 else t for n, t in state.items()}  # linears as 1x1 convs
    )
    return theirs


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_sizes": (3, 5)},
        {"kernel_sizes": (5, 7, 9), "normalize_modulator": True},
        {"kernel_sizes": (3,), "norm": True},
        {"kernel_sizes": ()},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(8, 8), (5, 11)])
@torch.no_grad()
def test_equals_timms(options, size):
    mixer = mixer_by_rule(**options)
    x = by_rule((2, *size, 6), 0.5)
    expected = timms(mixer)(x.movedim(-1, 1)).movedim(1, -1)
    assert expected.std() > 0.1
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-13 * expected.abs().max().item())


# whether modulator and product are normalised -> two positions
GOLDEN = {
    False: [
        [-23.006454008367896, -21.09019210747557, -9.845253221210791, 4.632567385777495],
        [-23.921988275323653, -22.212963407749925, -10.881988055645712, 3.9526693596199376],
    ],
    True: [
        [-2.490163687802898, -4.434572729300584, -5.752640385234086, -9.42393003971763],
        [-2.541708152982749, -4.461612948343551, -5.748113317203163, -9.389018177505209],
    ],
}


@pytest.mark.parametrize("norm", [False, True])
@torch.no_grad()
def test_golden_outputs(norm):
    mixer = mixer_by_rule(4, kernel_sizes=(3, 5), normalize_modulator=norm, norm=norm)
    y = mixer(by_rule((2, 3, 4, 4), 0.5))
    expected = torch.tensor(GOLDEN[norm], dtype=torch.float64)
    torch.testing.assert_close(y[:, 1, 2], expected, rtol=1e-9, atol=0)


@torch.no_grad()
def test_without_levels_the_context_is_the_same_everywhere():
    mixer = mixer_by_rule(kernel_sizes=())
    x = by_rule((2, 4, 5, 6), 0.1)
    whole = F.gelu(mixer.context(x).mean((1, 2), keepdim=True))
    query, gate = mixer.query_gates(x)[..., :6], mixer.query_gates(x)[..., 6:]
    torch.testing.assert_close(mixer(x), mixer.out(query * mixer.modulator(whole * gate)))


def without_the_whole(mixer):
    """The mixer with the gate of the whole map closed."""
    with torch.no_grad():
        mixer.query_gates.weight[-1] = 0
        mixer.query_gates.bias[-1] = 0
    return mixer


@torch.no_grad()
def test_the_levels_move_with_the_map():
    mixer = without_the_whole(mixer_by_rule(kernel_sizes=(3, 5)))
    x = by_rule((1, 12, 13, 6), 0.1)
    y, moved = mixer(x), mixer(x.roll((1, 2), (1, 2)))
    # 3 positions of reach, where neither the border nor what came round it is seen
    torch.testing.assert_close(moved[:, 4:-3, 5:-3], y[:, 3:-4, 3:-5], rtol=1e-10, atol=1e-10)
    assert (moved - y.roll((1, 2), (1, 2))).abs().max() > 1e-2


def test_levels_follow_one_another():
    """Windows of 3 and 5 in a row reach 1 + 2 + 4 positions."""
    mixer = without_the_whole(mixer_by_rule(kernel_sizes=(3, 5)))
    x = by_rule((1, 11, 11, 6), 0.1).requires_grad_()
    (grad,) = torch.autograd.grad(mixer(x)[0, 5, 5].sum(), x)
    seen = grad[0].abs().sum(-1) > 0
    assert seen.sum() == 49
    assert seen[2:9, 2:9].all()


@torch.no_grad()
def test_of_a_constant_map_the_interior_is_constant():
    mixer = mixer_by_rule(kernel_sizes=(3, 5))
    y = mixer(by_rule((1, 1, 1, 6), 0.1).expand(1, 9, 10, 6))
    torch.testing.assert_close(y[:, 3:-3, 3:-3], y[:, 4:5, 4:5].expand(1, 3, 4, 6), rtol=1e-12, atol=1e-12)
    assert (y[:, 0, 0] - y[:, 4, 4]).abs().max() > 1e-2  # borders see zeros


def test_gradients():
    mixer = mixer_by_rule(3, kernel_sizes=(3,), normalize_modulator=True, norm=True)
    x = by_rule((2, 3, 2, 3), 0.1).requires_grad_()
    names, weights = zip(*mixer.named_parameters(), strict=True)

    def call(x, *values):
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x, *weights), fast_mode=True)


def test_multiply_adds_are_those_of_the_flop_counter():
    mixer, size = FocalModulation2d(8, kernel_sizes=(3, 5, 7)), (2, 6, 9, 8)
    with FlopCounterMode(display=False) as counter:
        mixer(torch.randn(size))
    assert counter.get_total_flops() == 2 * mixer.macs(size)


class Held(TorchDispatchMode):
    """Elements of all storages that are alive at once, at most; those of `known` tensors not counted."""

    def __init__(self, *known):
        super().__init__()
        self.seen = {t.untyped_storage()._cdata for t in known}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if not isinstance(tensor, torch.Tensor):  # a dtype, for one
                continue
            storage = tensor.untyped_storage()
            if storage._cdata not in self.seen:
                self.seen.add(storage._cdata)
                elements = storage.nbytes() // tensor.element_size()
                self.now += elements
                weakref.finalize(storage, self._free, storage._cdata, elements)
        self.peak = max(self.peak, self.now)
        return out

    def _free(self, key, elements):
        self.seen.discard(key)
        self.now -= elements


@pytest.mark.parametrize("kernel_sizes", [(), (3,), (3, 5), (3, 5, 7)])
@torch.no_grad()
def test_held_is_what_lives_at_the_worst_moment(kernel_sizes):
    mixer = FocalModulation2d(8, kernel_sizes=kernel_sizes, normalize_modulator=True).double()
    x = torch.randn(2, 12, 15, 8, dtype=torch.float64)
    with Held(x, *mixer.parameters()) as held:
        mixer(x)
    # the mean over each map is small beside the maps
    assert mixer.held(x.shape) <= held.peak <= mixer.held(x.shape) + 4 * 2 * 8


def test_no_map_is_copied():
    mixer, x = FocalModulation2d(16, kernel_sizes=(3, 5)), torch.randn(2, 20, 21, 16)
    with torch.no_grad(), torch.profiler.profile(record_shapes=True) as profile:
        mixer(x)
    copied = [e for e in profile.events() if e.name == "aten::copy_" and e.input_shapes[0][:1] == [2]]
    assert not copied


@torch.no_grad()
def test_it_is_any_backbones_mixer():
    block = BlockSpec("FocalModulation2d", {"kernel_sizes": (3, 5)})
    network = QnAViT([[block], [block]], dim=8, pool_heads=1, num_classes=3, img_size=32)
    assert network(torch.randn(2, 3, 33, 30)).shape == (2, 3)


@pytest.mark.parametrize("kernel_sizes", [(3, 4), (0,), (-3,), (3.0,), 3])
def test_kernel_sizes_are_checked(kernel_sizes):
    with pytest.raises(InvalidInput, match="kernel_sizes must be odd and positive"):
        FocalModulation2d(8, kernel_sizes=kernel_sizes)
