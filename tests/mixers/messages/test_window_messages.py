"""Messages in windows: the graph of the windows, sums in pieces as sums tap by tap, and borders."""

import itertools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qna._core.errors import InvalidInput, UnknownName
from qna.graph import DenseSINCConv, DenseSIRConv
from qna.mixers import WindowMessages1d, WindowMessages2d, WindowMessages3d
from qna.mixers.messages import pair_sums
from qna.mixers.messages.windows import MapWindows

AGGREGATORS = ("sum", "mean", "sym", "max")
BY_AXES = {1: WindowMessages1d, 2: WindowMessages2d, 3: WindowMessages3d}
MAPS = [((6,), (5,)), ((4, 5), (3, 5)), ((2, 3, 4), (3, 1, 3))]


def by_rule(shape, phase):
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(1.7 * n + phase).view(shape)


def by_rule_(layer):
    with torch.no_grad():
        for phase, parameter in enumerate(layer.parameters()):
            parameter.copy_(by_rule(parameter.shape, phase))
    return layer.double()


def window_graph(space, kernel, self_loops):
    """Which positions see which, by their places: (n, n)."""
    places = list(itertools.product(*map(range, space)))
    return torch.tensor(
        [
            [
                all(abs(a - b) <= k // 2 for a, b, k in zip(u, v, kernel, strict=True))
                and (self_loops or u != v)
                for v in places
            ]
            for u in places
        ]
    )


@pytest.mark.parametrize(("space", "kernel"), MAPS, ids=str)
@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("context", [*AGGREGATORS, None])
@pytest.mark.parametrize("aggregator", AGGREGATORS)
@torch.no_grad()
def test_a_map_is_the_graph_of_its_windows(space, kernel, self_loops, context, aggregator):
    """The layer on graphs, with the weights of this one, on all positions at once."""
    arguments = {"aggregator": aggregator, "project_first": context == "max"}
    mixer = BY_AXES[len(space)](
        3, kernel_size=kernel, hidden=4, context=context, self_loops=self_loops, **arguments
    )
    by_rule_(mixer)
    dense = (
        DenseSINCConv(3, 4, 3, context=context, **arguments)
        if context
        else DenseSIRConv(3, 4, 3, aggregator=aggregator)
    )
    dense.double().load_state_dict(mixer.state_dict())
    x = by_rule((2, *space, 3), 0.4)
    expected = dense(x.flatten(1, -2), window_graph(space, kernel, self_loops))
    torch.testing.assert_close(mixer(x).flatten(1, -2), expected, rtol=1e-12, atol=1e-12)


def sums(space, kernel, message, *, self_loops=True, weighed=False, batch=2):
    """Windows, and what their `meet` and its plain form are told."""
    windows = MapWindows(space, kernel, self_loops)
    query, key = (by_rule((batch, *space, 3), phase).requires_grad_() for phase in (0.1, 0.8))
    weight = windows.in_degrees(query.detach()).clamp(min=1).rsqrt() if weighed else None
    return windows, query, key, message, weight


@pytest.mark.parametrize("piece", [1, 40, 1 << 17])
@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("windows", [*MAPS, ((1, 2), (5, 3))], ids=str)
def test_sums_in_pieces_are_those_tap_by_tap(windows, weighed, self_loops, piece, monkeypatch):
    space, kernel = windows
    monkeypatch.setattr(pair_sums, "PIECE", piece)
    windows, query, key, message, weight = sums(
        space, kernel, nn.ReLU(), self_loops=self_loops, weighed=weighed
    )
    assert pair_sums.is_taken(query, key, message)
    y = windows.meet(query, key, message, "sum", weight)
    assert "PairSums" in str(y.grad_fn)
    expected = windows.sum_of_taps(query, key, message, weight)
    torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)
    arrived = by_rule(y.shape, 0.5)
    for ours, plain in zip(
        *(torch.autograd.grad(of, (query, key), arrived) for of in (y, expected)), strict=True
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("kind", "inplace"),
    [
        (kind, inplace)
        for kind in pair_sums.ACTIVATIONS
        for inplace in (False, True)
        if not inplace or hasattr(kind(), "inplace")
    ],
)
def test_every_activation(kind, inplace):
    message = kind(inplace=True) if inplace else kind()
    windows, query, key, _, _ = sums((3, 4), (3, 3), message)
    y, expected = (
        windows.meet(query, key, message, "sum", None),
        windows.sum_of_taps(query, key, kind(), None),
    )
    torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)
    for ours, plain in zip(
        *(torch.autograd.grad(of.sum(), (query, key)) for of in (y, expected)), strict=True
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def test_gradients_and_theirs():
    mixer = by_rule_(WindowMessages2d(2, aggregator="sym", context="mean", activation=nn.SiLU()))
    x = by_rule((1, 3, 2, 2), 0.2).requires_grad_()
    assert torch.autograd.gradcheck(mixer, (x,))
    assert torch.autograd.gradgradcheck(mixer, (x,))


def test_gradients_of_maxima():
    mixer = by_rule_(WindowMessages2d(2, aggregator="max", context="max", self_loops=False))
    assert torch.autograd.gradcheck(mixer, (by_rule((1, 3, 4, 2), 0.2).requires_grad_(),))


def saved_for_backward(mixer, x):
    """Elements of all tensors that a gradient waits for, each once."""
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes() // t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        mixer(x)
    return sum(kept.values())


def test_no_window_is_stored():
    x = torch.randn(1, 16, 16, 8, requires_grad=True)
    small, large = (saved_for_backward(WindowMessages2d(8, kernel_size=k), x) for k in (3, 9))
    assert small == large


@torch.no_grad()
def test_borders_count_what_is_there():
    """Of a constant map means are the same everywhere, and sums follow the number of neighbours."""
    x = by_rule((1, 1, 1, 4), 0.3).expand(1, 5, 6, 4)
    means = by_rule_(WindowMessages2d(4))(x)
    torch.testing.assert_close(means, means[:, :1, :1].expand_as(means), rtol=1e-12, atol=1e-12)
    summed = by_rule_(WindowMessages2d(4, aggregator="sum", context="mean"))
    heard = summed(x) - summed.formula.relation.bias
    torch.testing.assert_close(heard[0, 0, 0] / 4, heard[0, 2, 2] / 9, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(heard[0, 0, 2] / 6, heard[0, 2, 2] / 9, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@torch.no_grad()
def test_a_position_alone(aggregator):
    mixer = by_rule_(WindowMessages2d(4, aggregator=aggregator, context="max", self_loops=False))
    expected = torch.zeros(4).double() if aggregator == "max" else mixer.formula.relation.bias
    torch.testing.assert_close(mixer(by_rule((1, 1, 1, 4), 0.2))[0, 0, 0], expected, rtol=0, atol=0)


@torch.no_grad()
def test_inside_it_moves_with_the_map_and_knows_no_directions():
    mixer = by_rule_(WindowMessages2d(4, kernel_size=(3, 5), aggregator="sym", context="max"))
    x = by_rule((1, 9, 11, 4), 0.1)
    y, moved = mixer(x), mixer(x.roll((1, 1), (1, 2)))
    torch.testing.assert_close(moved[:, 3:-2, 5:-4], y[:, 2:-3, 4:-5], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mixer(x.flip(1, 2)), y.flip(1, 2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("aggregator", ["mean", "max"])
@pytest.mark.parametrize("context", ["mean", None])
@torch.no_grad()
def test_products_are_counted(aggregator, context):
    mixer = WindowMessages2d(8, hidden=6, aggregator=aggregator, context=context)
    with FlopCounterMode(display=False) as counter:
        mixer(torch.randn(2, 5, 7, 8))
    # what a border lacks is computed and left out where W_R is inside
    pairs = 9 * 35 if aggregator == "max" else MapWindows((5, 7), (3, 3), True).pairs()
    assert counter.get_total_flops() == 2 * 2 * mixer.formula.macs(35, pairs)
    assert mixer.macs((2, 5, 7, 8)) == 2 * mixer.formula.macs(35, 5 * 7 * 9 - 2 * (3 * 5 + 3 * 7) + 4)


@torch.no_grad()
def test_halves_are_summed_in_single_precision():
    windows = MapWindows((30, 30), (29, 29), True)
    query, key = torch.full((1, 30, 30, 1), 0.5), torch.full((1, 30, 30, 1), 0.5)
    y = windows.meet(query.bfloat16(), key.bfloat16(), nn.ReLU(), "sum", None)
    # of ones, of which bfloat16 counts no more than 256; near 841 its numbers are 4 apart
    assert abs(y[0, 14, 14].item() - 841) <= 2


@pytest.mark.parametrize(
    ("arguments", "kind", "told"),
    [
        ({"kernel_size": 4}, InvalidInput, r"kernel_size must be odd, got \(4, 4\)"),
        ({"kernel_size": (3, 3, 3)}, InvalidInput, "one for each of 2 axes"),
        ({"hidden": 0}, InvalidInput, "hidden must be an integer of at least 1"),
        ({"aggregator": "mena"}, UnknownName, "did you mean 'mean'"),
        ({"drop": -0.1}, InvalidInput, "drop must be at least 0"),
    ],
)
def test_bad_arguments(arguments, kind, told):
    with pytest.raises(kind, match=told):
        WindowMessages2d(8, **arguments)
