"""Networks of volumes: equal to the authors' where those can be built, each switch, any size, windows."""

import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput, UnknownName
from qna._core.with_losses import WithLosses
from qna.models import create
from qna.models.agunet.network import AGUNet, Enlarge3d, halving
from qna.models.agunet.variants import AGUNetVariant
from qna.models.volumes import VOLUME_NETWORKS, SlidingWindows, create_volume_network

SWITCHES = {
    "none": {},
    "gate": {"gate": "concatenated"},
    "added gate": {"gate": "added"},
    "dual": {"dual": True},
    "guided": {"guided": True},
    "multi-scale": {"multi_scale": True},
    "supervised": {"deep_supervision": True},
    "joined norm": {"joined_norm": True},
    "all": {
        "gate": "concatenated",
        **dict.fromkeys(("dual", "guided", "multi_scale", "deep_supervision", "joined_norm"), True),
    },
}


def by_rule(shape, phase):
    return torch.sin(1.7 * torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + phase).view(shape)


def made_by_rule(channels=(4, 6, 8), in_chans=1, num_classes=2, **switches):
    """A network in evaluation mode with a value by a rule in every tensor, averages and gammas among them."""
    net = AGUNet(AGUNetVariant(channels, **switches), in_chans=in_chans, num_classes=num_classes)
    net = net.double().eval()
    with torch.no_grad():
        for phase, (name, tensor) in enumerate(net.state_dict().items()):
            if tensor.is_floating_point():
                values = by_rule(tensor.shape, phase)
                if name.endswith("running_var"):
                    values = values.abs() + 0.5
                elif tensor.ndim > 1:
                    values = values * (3 / tensor[0].numel()) ** 0.5
                tensor.copy_(values)
    return net


# of the authors' networks in float64 with these values, run by TensorFlow 2.21: a voxel's softmax
GOLDEN = {
    "agunet": [[0.614478485853894, 0.38552151414610597]],
    "agunet, multi-scale, supervised": [
        [0.15844764974635983, 0.8415523502536401],
        [0.18300782849120306, 0.816992171508797],
    ],
    "daunet": [[0.698969609810966, 0.301030390189034]],
    "dagunet, multi-scale": [[0.6916895162407682, 0.3083104837592318]],
}
MADE = {
    "agunet": {"gate": "concatenated"},
    "agunet, multi-scale, supervised": {
        "gate": "concatenated",
        "multi_scale": True,
        "deep_supervision": True,
    },
    "daunet": {"dual": True, "joined_norm": True},
    "dagunet, multi-scale": {"dual": True, "joined_norm": True, "guided": True, "multi_scale": True},
}


@pytest.mark.parametrize("name", GOLDEN)
@torch.no_grad()
def test_golden_outputs_of_the_authors(name):
    net, x = made_by_rule(**MADE[name]), by_rule((2, 1, 16, 16, 16), 0.3)
    maps = [net(x)]
    if net.variant.deep_supervision:
        # heads of all levels speak in training alone; norms keep to their averages here
        net.training = True
        told = net(x)
        maps = [told.output, *(s.output for s in told.supervised.values())]
    for logits, values in zip(maps, GOLDEN[name], strict=True):
        found = logits.softmax(1)[1, :, -1, -2, -3]
        torch.testing.assert_close(found, torch.tensor(values, dtype=torch.float64), rtol=1e-9, atol=0)


def test_gates_are_in_the_order_in_which_the_authors_join():
    """The gated skip lies in front of the enlarged map; the authors' AGUNet has them the other way round."""
    net = made_by_rule(gate="concatenated")
    ascent, given = net.ascents[0], []
    ascent.block.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    skips = []
    ascent.gate.register_forward_hook(lambda _m, _a, out: skips.append(out))
    net(by_rule((1, 1, 8, 8, 8), 0.3))
    assert torch.equal(given[0][:, :6], skips[0])


@pytest.mark.parametrize("name", VOLUME_NETWORKS)
def test_counts(name):
    with torch.device("meta"):
        net = create_volume_network(name)
    counted = sum(p.numel() for p in net.parameters())
    assert counted == VOLUME_NETWORKS[name].variants[name].parameters
    assert create(name, gate="added").variant.gate == "added"


def test_gates_have_the_published_counts():
    for n in (16, 64):
        plain, gated = (
            sum(p.numel() for p in AGUNet(AGUNetVariant((n, 8), gate=g)).parameters())
            for g in ("none", "concatenated")
        )
        assert gated - plain == n * n + 4 * n + 3


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
@pytest.mark.parametrize("space", [(8, 8, 8), (1, 9, 5), (5, 4, 3), (2, 13, 6), (1, 1, 1)])
@pytest.mark.parametrize("in_chans", [1, 4])
@torch.no_grad()
def test_any_size_and_batch_independence(switches, space, in_chans):
    net = made_by_rule(in_chans=in_chans, num_classes=3, **switches)
    x = by_rule((3, in_chans, *space), 0.3)
    y = net(x)
    assert y.shape == (3, 3, *space)
    alone = torch.cat([net(one[None]) for one in x])
    torch.testing.assert_close(y, alone, rtol=0, atol=1e-11)


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_every_parameter_gets_a_gradient(switches):
    net = made_by_rule(attention_dropout=0.0, **switches).train()
    x = by_rule((2, 1, 8, 12, 5), 0.3).requires_grad_()
    y = net(x)
    maps = [y.output, *(s.output for s in y.supervised.values())] if isinstance(y, WithLosses) else [y]
    sum((m * by_rule(m.shape, 1)).sum() for m in maps).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert x.grad.any()


def test_switches_change_what_they_say_alone():
    """Each switch adds parameters of its own, and with all off there is the plain U-Net."""
    names = {key: set(dict(made_by_rule(**s).named_parameters())) for key, s in SWITCHES.items()}
    own = {
        "gate": ".gate.",
        "dual": "dual.",
        "guided": ".guide.",
        "multi-scale": ".pyramid.",
        "supervised": "heads.1.",
    }
    for key, part in own.items():
        assert {n for n in names[key] - names["none"] if part not in n} == set()
        assert names[key] > names["none"]
    assert names["joined norm"] == names["none"]


@torch.no_grad()
def test_an_open_gate_is_the_plain_skip():
    gated, plain = made_by_rule(gate="concatenated"), made_by_rule()
    plain.load_state_dict({n: t for n, t in gated.state_dict().items() if ".gate." not in n})
    x = by_rule((1, 1, 8, 9, 10), 0.3)
    assert (gated(x) - plain(x)).abs().max() > 1e-3
    for ascent in gated.ascents:
        ascent.gate.psi[1].bias.fill_(1000)
    torch.testing.assert_close(gated(x), plain(x), rtol=0, atol=1e-12)


@torch.no_grad()
def test_attention_at_the_bottleneck_sees_the_whole_volume():
    plain, dual = made_by_rule(channels=(4, 8)), made_by_rule(channels=(4, 8), dual=True)
    x = by_rule((1, 1, 40, 8, 8), 0.3)
    other = x.clone()
    other[:, :, :4] += 1
    far = {key: (net(x) - net(other))[:, :, 36:].abs().max() for key, net in (("p", plain), ("d", dual))}
    assert far["p"] == 0
    # some 1e-8 of an answer that differs nowhere else is far above rounding, 1e-16
    assert far["d"] > 1e-9


def test_deep_supervision_gives_the_levels_in_training_alone():
    net = made_by_rule(channels=(4, 6, 8, 8), deep_supervision=True).train()
    x = by_rule((2, 1, 16, 9, 4), 0.3)
    told = net(x)
    assert told.output.shape == (2, 2, 16, 9, 4)
    shapes = {name: tuple(s.output.shape[2:]) for name, s in told.supervised.items()}
    assert shapes == {"level1": (8, 5, 4), "level2": (4, 3, 4)}
    assert all(s.weight == 1 for s in told.supervised.values())
    assert net.eval()(x).shape == (2, 2, 16, 9, 4)


def test_short_axes_are_not_halved():
    assert halving((1, 4, 5)) == (1, 1, 2)
    seen = []
    net = made_by_rule(channels=(4, 4, 4, 4))
    net.bottleneck.register_forward_hook(lambda _m, _a, y: seen.append(tuple(y.shape[2:])))
    net(by_rule((1, 1, 3, 16, 9), 0.3))
    # 9 -> 5 -> 3, and 16 -> 8 -> 4
    assert seen == [(3, 4, 3)]


@torch.no_grad()
def test_the_pyramid_holds_means_of_what_is_there():
    net, seen = made_by_rule(channels=(4, 4, 4, 4), in_chans=2, multi_scale=True), []
    for descent in net.descents[1:]:
        descent.pyramid.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = by_rule((1, 2, 4, 9, 6), 0.3)
    net(x)
    first = torch.stack([x[:, :, :, 0:2].mean(3), x[:, :, :, 2:4].mean(3), x[:, :, :, 4:6].mean(3)], 3)
    first = torch.cat([first, x[:, :, :, 6:8].mean(3, keepdim=True), x[:, :, :, 8:]], 3)
    first = torch.stack([first[..., 2 * i : 2 * i + 2].mean(-1) for i in range(3)], -1)
    torch.testing.assert_close(seen[0], first)
    assert seen[1].shape == (1, 2, 4, 3, 3)
    torch.testing.assert_close(seen[1][:, :, :, 2], first[:, :, :, 4])


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 4), (8, 1, 2)])
@torch.no_grad()
def test_enlarging_is_a_loop_over_taps(factors):
    layer = Enlarge3d(2, 3).double()
    layer.weight.copy_(by_rule(layer.weight.shape, 0.4))
    layer.bias.copy_(by_rule((3,), 0.9))
    x = by_rule((1, 2, 2, 3, 2), 0.1)
    whole = [f * n for f, n in zip(factors, x.shape[2:], strict=True)]
    expected = layer.bias.view(1, 3, 1, 1, 1).expand(1, 3, *whole).clone()
    # where a factor is 1 the middle tap lies on its voxel, else the first one
    first = [1 if f == 1 else 0 for f in factors]
    for place in torch.cartesian_prod(*(torch.arange(n) for n in x.shape[2:])).tolist():
        for tap in torch.cartesian_prod(*[torch.arange(3)] * 3).tolist():
            at = [f * p + t - o for f, p, t, o in zip(factors, place, tap, first, strict=True)]
            if all(0 <= a < n for a, n in zip(at, whole, strict=True)):
                part = layer.weight[(slice(None), slice(None), *tap)].T @ x[(0, slice(None), *place)]
                expected[(0, slice(None), *at)] += part
    torch.testing.assert_close(layer(x, factors, whole), expected)
    cut = [n - 1 if f > 1 else n for f, n in zip(factors, whole, strict=True)]
    inside = tuple(slice(n) for n in cut)
    torch.testing.assert_close(layer(x, factors, cut), expected[(slice(None), slice(None), *inside)])


def test_recomputing_changes_nothing():
    grads = []
    for again in (False, True):
        net = made_by_rule(attention_dropout=0.0, **SWITCHES["all"]).train()
        net.set_grad_checkpointing(again)
        net(by_rule((2, 1, 8, 8, 8), 0.3)).output.square().sum().backward()
        grads.append([p.grad for p in net.parameters()] + list(net.buffers()))
    for one, other in zip(*grads, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_it_is_saved_and_compiles():
    net, x = made_by_rule(**SWITCHES["all"]), by_rule((1, 1, 8, 8, 8), 0.3)
    twin = AGUNet(net.variant).double().eval()
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(x), net(x))
    torch.testing.assert_close(torch.compile(net, backend="aot_eager", fullgraph=True)(x), net(x))


class Place(nn.Module):
    """Answers with the voxel itself, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape[2:]))
        return torch.cat([x, -x], 1)


@pytest.mark.parametrize(
    ("space", "window"), [((9, 7, 12), (4, 4, 4)), ((3, 20, 5), (8, 8, 8)), ((1, 1, 9), (4, 4, 4))]
)
@pytest.mark.parametrize("overlap", [0, 0.25, 0.6])
def test_windows_give_every_voxel_its_own_answer(space, window, overlap):
    inner = Place()
    sliding, told = SlidingWindows(inner, window, overlap).eval(), []
    sliding.told = told.append
    x = by_rule((1, 1, *space), 0.3).float()
    y = sliding(x)
    torch.testing.assert_close(y, torch.cat([x, -x], 1))
    assert len(told) == sliding.windows(space) == len(inner.seen) > 1
    assert set(inner.seen) == {tuple(min(w, n) for w, n in zip(window, space, strict=True))}


def test_volumes_that_fit_and_patches_go_through_at_once():
    inner = Place()
    sliding = SlidingWindows(inner, (4, 4, 4))
    x = torch.randn(2, 1, 4, 3, 2)
    assert torch.equal(sliding.eval()(x), inner(x))
    assert sliding.windows((4, 3, 2)) == 1
    large = torch.randn(1, 1, 9, 9, 9)
    sliding.train()(large)
    assert inner.seen[-1] == (9, 9, 9)


def test_what_is_refused():
    with pytest.raises(
        UnknownName, match="unknown network of volumes 'agunet_nan'; did you mean 'agunet_nano'"
    ):
        create_volume_network("agunet_nan")
    with pytest.raises(UnknownName, match="unknown argument of agunet_nano 'gates'; did you mean 'gate'"):
        create("agunet_nano", gates="added")
    with pytest.raises(UnknownName, match="unknown gate 'add'; did you mean 'added'"):
        create_volume_network("unet3d_nano", gate="add")
    with pytest.raises(InvalidInput, match=r"channels must be those of two levels or more, .*, got \(8,\)"):
        create_volume_network("unet3d_nano", channels=(8,))
    with pytest.raises(InvalidInput, match="dual must be True or False, got 'yes'"):
        create_volume_network("unet3d_nano", dual="yes")
    with pytest.raises(
        InvalidInput, match=r"a volume must be \(B, C, D, H, W\) with C = 1 and no axis empty"
    ):
        create_volume_network("unet3d_nano")(torch.zeros(1, 2, 4, 4, 4))
    with pytest.raises(InvalidInput, match=r"overlap must be in \[0, 1\), got 1"):
        SlidingWindows(nn.Identity(), (4, 4, 4), 1)
