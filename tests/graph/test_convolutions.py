"""SINC-GCN and SIR-GCN: loops over the equation, values of the authors' code, and the limits of the paper."""

import itertools
import subprocess
import sys

import pytest
import torch

import qna.graph
from qna._core.errors import InvalidInput, UnknownName
from qna.graph import DenseSINCConv, DenseSIRConv

AGGREGATORS = ("sum", "mean", "sym", "max")
KINDS = [
    (aggregator, context, first)
    for aggregator, context in itertools.product(AGGREGATORS, (*AGGREGATORS, None))
    for first in ((False, True) if context else (False,))
]


@pytest.fixture(params=["edges", "mask"])
def form(request):
    """Layers on lists of edges, and on masks of pairs."""
    if request.param == "edges":
        request.getfixturevalue("geometric")
    return request.param


def layer_of(form, context, *sizes, **arguments):
    """A layer of weights by a rule, none of them zero."""
    name = f"{'Dense' if form == 'mask' else ''}{'SIR' if context is None else 'SINC'}Conv"
    layer = getattr(qna.graph, name)(*sizes, **({"context": context} if context else {}), **arguments)
    return by_rule_(layer.double())


def by_rule(shape, phase):
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(1.7 * n + phase).view(shape)


def by_rule_(layer):
    with torch.no_grad():
        for phase, parameter in enumerate(layer.parameters()):
            parameter.copy_(by_rule(parameter.shape, phase))
    return layer


def apply(form, layer, x, edges):
    """What a layer gives, told the edges (source, target) in its own way."""
    return layer(x, edges) if form == "edges" else layer(x[None], mask_of(edges, len(x)))[0]


def mask_of(edges, nodes):
    counts = torch.zeros(nodes, nodes, dtype=torch.float64)
    return counts.index_put_((edges[1], edges[0]), torch.ones(edges.shape[1]).double(), accumulate=True)


def some_edges(nodes, probability=0.4, seed=0):
    """Directed edges, the first of them twice, and nodes that nobody or nothing leads to."""
    generator = torch.Generator().manual_seed(seed)
    there = torch.rand(nodes, nodes, generator=generator) < probability
    there.fill_diagonal_(False)
    there[2], there[:, 1] = False, False
    there[4], there[:, 4] = False, False
    edges = there.T.nonzero().T
    return torch.cat([edges, edges[:, :1]], 1)


def loop(formula, x, edges):
    """The equation, node by node and edge by edge; returns what isolated nodes get as well."""
    sources = [[int(v) for v, u in edges.T if u == node] for node in range(len(x))]
    received = [max(1, len(of)) for of in sources]
    sent = [max(1, int((edges[0] == node).sum())) for node in range(len(x))]

    def aggregate(how, terms, u):
        if not terms:
            return 0.0
        if how == "max":
            return torch.stack(terms).max(0).values
        if how == "sym":
            terms = [t / (sent[v] * received[u]) ** 0.5 for t, v in zip(terms, sources[u], strict=True)]
        return sum(terms) / (received[u] if how == "mean" else 1)

    w_q, w_k, w_r = (linear.weight for linear in (formula.query, formula.key, formula.relation))
    rows = []
    for u, of_u in enumerate(sources):
        inner = w_q @ x[u] + formula.query.bias
        if formula.context is not None:
            w_n = formula.neighborhood.weight
            if formula.project_first:
                inner = inner + aggregate(formula.context, [w_n @ x[w] for w in of_u], u)
            else:
                features = aggregate(formula.context, [x[w] for w in of_u], u)
                inner = inner + w_n @ (features + torch.zeros_like(x[u]))
        terms = [w_r @ torch.relu(inner + w_k @ x[v]) for v in of_u]
        heard = aggregate(formula.aggregator, terms, u) + torch.zeros_like(formula.relation.bias)
        outer = formula.relation.bias if of_u or formula.aggregator != "max" else 0.0
        rows.append(heard + outer)
    return torch.stack(rows)


@pytest.mark.parametrize(("nodes", "sizes"), [(6, (3, 5, 4)), (11, (4, 3, 2))], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
@torch.no_grad()
def test_a_loop_over_the_equation(form, kind, nodes, sizes):
    aggregator, context, first = kind
    arguments = {"project_first": first} if context else {}
    layer = layer_of(form, context, *sizes, aggregator=aggregator, **arguments)
    x, edges = 2 * by_rule((nodes, sizes[0]), 0.3), some_edges(nodes)
    expected = loop(layer.formula, x, edges)
    assert expected.std() > 0.1
    torch.testing.assert_close(apply(form, layer, x, edges), expected, rtol=0, atol=1e-13)


# (aggregator, context) -> nodes 0, 1, 3 and 4 of a graph of 5, the last one alone: printed by SINCConv and
# SIRConv of briangodwinlim/SINC-GCN at c12984e in float64, filled as `by_rule_` does
GOLDEN = {
    ("sum", "sum"): [
        *(-12.6378171968419, -14.805374463907397, -8.862938819391186, -7.364988248994124),
        *(2.8628555569969696, 0.7543690986763891, -0.9589242746631385, 0.4048499206165983),
    ],
    ("mean", "max"): [
        *(-1.9862200777770593, -1.511840190594305, -1.3690795717383382, 0.11567650451053291),
        *(2.8628555569969696, 0.7543690986763891, -0.9589242746631385, 0.4048499206165983),
    ],
    ("sym", "sym"): [
        *(-3.3570638345559085, -2.981204247366197, -3.790401105689409, -1.8570303475867942),
        *(1.7236117614535997, 0.9092999782908956, -0.9589242746631385, 0.4048499206165983),
    ],
    ("max", "mean"): [
        *(-1.1866189736778672, -0.4584302720645457, -0.590395511906576, 0.18442611042387413),
        *(2.8628555569969696, 0.7543690986763891, 0.0, 0.0),
    ],
    ("max", "max"): [
        *(-0.03220941855443182, -0.1494352266749227, 0.49217896494681723, 1.097584702998011),
        *(2.8628555569969696, 0.7543690986763891, 0.0, 0.0),
    ],
    ("sym", None): [
        *(0.14832443118288063, -1.1147922664101872, -3.87235210876724, -3.9469835584083666),
        *(2.650389239594193, 2.8775518243742555, -0.7568024953079282, -0.5506855425976376),
    ],
}


@pytest.mark.parametrize(("aggregator", "context"), GOLDEN, ids=str)
@torch.no_grad()
def test_the_authors_values(form, aggregator, context):
    layer = layer_of(form, context, 3, 4, 2, aggregator=aggregator)
    edges = torch.tensor([[0, 1, 2, 3, 3, 3, 1], [1, 0, 1, 1, 0, 0, 3]])
    y = apply(form, layer, 2 * by_rule((5, 3), 0.3), edges)[[0, 1, 3, 4]]
    expected = torch.tensor(GOLDEN[aggregator, context], dtype=torch.float64).view(4, 2)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@torch.no_grad()
def test_without_context_weights_it_is_sir(form, aggregator):
    sinc = layer_of(form, "mean", 3, 5, 4, aggregator=aggregator)
    sir = layer_of(form, None, 3, 5, 4, aggregator=aggregator)
    sinc.formula.neighborhood.weight.zero_()
    told = sir.load_state_dict(sinc.state_dict(), strict=False)
    assert told.unexpected_keys == ["formula.neighborhood.weight"]
    x, edges = by_rule((7, 3), 0.2), some_edges(7)
    torch.testing.assert_close(
        apply(form, sinc, x, edges), apply(form, sir, x, edges), rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize(("aggregator", "context", "first"), KINDS, ids=str)
@torch.no_grad()
def test_the_numbers_of_nodes_do_not_matter(form, aggregator, context, first):
    arguments = {"project_first": first} if context else {}
    layer = layer_of(form, context, 3, 5, 4, aggregator=aggregator, **arguments)
    x, edges, order = by_rule((8, 3), 0.2), some_edges(8), torch.tensor([3, 0, 7, 5, 1, 2, 6, 4])
    # node order[i] becomes node i
    moved = apply(form, layer, x[order], order.argsort()[edges])
    torch.testing.assert_close(moved, apply(form, layer, x, edges)[order], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("context", AGGREGATORS)
@torch.no_grad()
def test_in_a_complete_graph_all_have_the_same_neighbourhood(form, context):
    """With self loops; what a node is itself comes in by W_Q alone."""
    layer = layer_of(form, context, 3, 5, 4)
    x = by_rule((6, 3), 0.2)
    complete = torch.cartesian_prod(torch.arange(6), torch.arange(6)).T
    alone = complete[:, complete[0] != complete[1]]
    layer.formula.query.weight.zero_()
    y = apply(form, layer, x, complete)
    torch.testing.assert_close(y, y[:1].expand_as(y), rtol=1e-12, atol=1e-12)
    # none is added unasked: without them each lacks another one
    assert (apply(form, layer, x, alone).std(0) > 1e-2).all()


@torch.no_grad()
def test_means_do_not_count(form):
    x, edges = by_rule((7, 3), 0.2), some_edges(7)
    # all nodes once more, and an edge from every second self as well
    twice = torch.cat([edges, edges + torch.tensor([[7], [0]])], 1)
    counted = {}
    for how in ("mean", "sum"):
        layer = layer_of(form, how, 3, 5, 4, aggregator=how)
        y, doubled = apply(form, layer, x, edges), apply(form, layer, torch.cat([x, x]), twice)[:7]
        counted[how] = (y - doubled).abs().max()
    assert counted["mean"] < 1e-13
    assert counted["sum"] > 1


@pytest.mark.parametrize("context", AGGREGATORS)
@torch.no_grad()
def test_which_comes_first_matters_for_maxima_alone(form, context):
    last = layer_of(form, context, 3, 5, 4)
    first = layer_of(form, context, 3, 5, 4, project_first=True)
    x, edges = by_rule((9, 3), 0.2), some_edges(9)
    gap = (apply(form, last, x, edges) - apply(form, first, x, edges)).abs().max()
    assert (gap > 0.1) == (context == "max")
    assert (gap < 1e-13) == (context != "max")


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@torch.no_grad()
def test_nodes_without_neighbours(form, aggregator):
    layer = layer_of(form, "max", 3, 5, 4, aggregator=aggregator)
    nothing = torch.zeros(2, 0, dtype=torch.long)
    y = apply(form, layer, by_rule((3, 3), 0.2), nothing)
    expected = torch.zeros(4).double() if aggregator == "max" else layer.formula.relation.bias
    torch.testing.assert_close(y, expected.expand(3, 4), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("aggregator", "context"), [("sum", "mean"), ("sym", "max"), ("max", "sym"), ("mean", None)]
)
def test_gradients(form, aggregator, context):
    layer = layer_of(form, context, 2, 3, 2, aggregator=aggregator)
    x, edges = by_rule((6, 2), 0.2).requires_grad_(), some_edges(6, 0.6)
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(x, *weights):
        given = dict(zip(names, weights, strict=True))
        arguments = (x, edges) if form == "edges" else (x[None], mask_of(edges, 6))
        return torch.func.functional_call(layer, given, arguments)

    assert torch.autograd.gradcheck(run, (x, *values))


def test_dropout_of_each_term_by_itself(form):
    for context, terms in (("sum", 3), (None, 2)):
        layer = layer_of(form, context, 3, 64, 4, drop=0.5)
        masks = []
        layer.formula.drop.register_forward_hook(lambda *call, masks=masks: masks.append(call[2] != 0))
        x, edges = by_rule((6, 3), 0.2), some_edges(6)
        apply(form, layer, x, edges)
        assert len(masks) == terms
        nodes = [0, 3]
        assert all(0.2 < mask[..., nodes, :].double().mean() < 0.8 for mask in masks)
        assert not any(torch.equal(a, b) for a, b in itertools.combinations(masks, 2))
        layer.eval()
        assert torch.equal(apply(form, layer, x, edges), apply(form, layer, x, edges))


@torch.no_grad()
def test_biases_are_asked_for(form):
    layer = layer_of(form, "sum", 3, 5, 4, inner_bias=False, outer_bias=False)
    assert [name for name, _ in layer.named_parameters() if "bias" in name] == []
    zeros = apply(form, layer, torch.zeros(4, 3).double(), some_edges(5)[:, :3] % 4)
    assert not zeros.any()


def test_any_activation_and_new_weights(form):
    layer = layer_of(form, "mean", 3, 5, 4, activation=torch.nn.PReLU())
    before = apply(form, layer, by_rule((6, 3), 0.2), some_edges(6))
    before.sum().backward()
    assert layer.formula.activation.weight.grad.abs().min() > 0
    layer.reset_parameters()
    after = apply(form, layer, by_rule((6, 3), 0.2), some_edges(6))
    assert (after - before).abs().max() > 1e-2


@torch.no_grad()
def test_a_batch_is_its_graphs_and_places_that_fill_up_stay_zero():
    layer = layer_of("mask", "sum", 3, 5, 4, aggregator="sym")
    x, edges = by_rule((7, 3), 0.2), some_edges(7)
    small, few = by_rule((5, 3), 0.9), some_edges(5)
    both = torch.zeros(2, 7, 3).double()
    both[0], both[1, :5] = x, small
    adjacency = torch.zeros(2, 7, 7).double()
    adjacency[0], adjacency[1, :5, :5] = mask_of(edges, 7), mask_of(few, 5)
    mask = torch.arange(7) < torch.tensor([[7], [5]])
    y = layer(both, adjacency, mask)
    torch.testing.assert_close(y[0], apply("mask", layer, x, edges), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(y[1, :5], apply("mask", layer, small, few), rtol=1e-12, atol=1e-12)
    assert not y[1, 5:].any()
    # one matrix for all graphs
    torch.testing.assert_close(layer(both, adjacency[0])[0], y[0], rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_disjoint_graphs_do_not_meet(geometric):
    layer = layer_of("edges", "sum", 3, 5, 4, aggregator="sym")
    x, edges = by_rule((7, 3), 0.2), some_edges(7)
    y = layer(torch.cat([x, x + 1]), torch.cat([edges, edges + 7], 1))
    torch.testing.assert_close(y, torch.cat([layer(x, edges), layer(x + 1, edges)]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("aggregator", "context"), [("sym", "sym"), ("mean", "max"), ("max", "sum")])
@torch.no_grad()
def test_two_kinds_of_nodes(geometric, aggregator, context):
    """Sources and targets apart are the graph of both in which targets send nothing."""
    layer = layer_of("edges", context, 3, 5, 4, aggregator=aggregator)
    source, target = by_rule((5, 3), 0.2), by_rule((4, 3), 0.7)
    edges = torch.tensor([[0, 1, 4, 2, 0], [0, 0, 1, 3, 3]])
    joined = layer(torch.cat([source, target]), edges + torch.tensor([[0], [5]]))[5:]
    torch.testing.assert_close(layer((source, target), edges), joined, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_sparse_matrices_are_edges(geometric):
    layer = layer_of("edges", "sym", 3, 5, 4, aggregator="mean")
    x, edges = by_rule((8, 3), 0.2), some_edges(8)[:, :-1]
    matrix = mask_of(edges, 8).to_sparse_coo()
    torch.testing.assert_close(layer(x, matrix), layer(x, edges), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_both_steps_are_message_passing(geometric):
    """Whoever watches or changes messages in torch-geometric sees those of features and those of pairs."""
    layer = layer_of("edges", "sum", 3, 5, 4)
    x, edges, seen = by_rule((6, 3), 0.2), some_edges(6), []
    assert isinstance(layer, geometric.nn.MessagePassing)
    for part in (layer.pull, layer):
        part.register_message_forward_hook(lambda *call: seen.append(call[2].shape))
    y = layer(x, edges)
    assert seen == [(edges.shape[1], 3), (edges.shape[1], 5)]
    layer.register_message_forward_hook(lambda *call: call[2] * 0)
    assert not torch.equal(layer(x, edges), y)


WITHOUT = """
import sys, torch
sys.modules["torch_geometric"] = None
from qna.graph import DenseSINCConv
print(DenseSINCConv(2, 3, 4)(torch.ones(1, 5, 2), torch.ones(5, 5)).shape)
from qna.graph import SINCConv
"""


def test_without_torch_geometric_masks_work_and_edges_name_the_extra():
    run = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "torch.Size([1, 5, 4])"
    assert "MissingExtra: a layer on lists of edges needs the package 'torch_geometric'" in run.stderr
    assert "pip install 'qna[graph]'" in run.stderr


@pytest.mark.parametrize(
    ("told", "call"),
    [
        (r"x must be \(B, N, 3\), got \(5, 3\)", lambda c: c(torch.ones(5, 3), torch.ones(5, 5))),
        (r"x must be \(B, N, 3\), got \(1, 5, 2\)", lambda c: c(torch.ones(1, 5, 2), torch.ones(5, 5))),
        (
            r"adjacency must be \(2, 5, 5\) or \(5, 5\), got \(3, 5, 5\)",
            lambda c: c(torch.ones(2, 5, 3), torch.ones(3, 5, 5)),
        ),
        (
            r"mask must be \(1, 5\), got \(5,\)",
            lambda c: c(torch.ones(1, 5, 3), torch.ones(5, 5), torch.ones(5)),
        ),
    ],
)
def test_masks_that_do_not_fit(told, call):
    with pytest.raises(InvalidInput, match=told):
        call(DenseSINCConv(3, 4, 5))


def test_edges_that_do_not_fit(geometric):
    layer, x = qna.graph.SINCConv(3, 4, 5), torch.ones(5, 3)
    for edges in (torch.ones(3, 4, dtype=torch.long), torch.ones(4, dtype=torch.long), [[0], [1]]):
        with pytest.raises(InvalidInput, match=r"edge_index must be \(2, E\)"):
            layer(x, edges)
    with pytest.raises(InvalidInput, match=r"x must be \(N, 3\), got \(5, 2\)"):
        layer(x[:, :2], torch.zeros(2, 1, dtype=torch.long))


@pytest.mark.parametrize(
    ("build", "kind", "told"),
    [
        (lambda: DenseSINCConv(0, 1, 1), InvalidInput, "dim must be an integer of at least 1"),
        (lambda: DenseSINCConv(1, 1, 1, drop=1.0), InvalidInput, "drop must be at least 0 and below 1"),
        (lambda: DenseSINCConv(1, 1, 1, aggregator="median"), UnknownName, "unknown aggregator 'median'"),
        (lambda: DenseSINCConv(1, 1, 1, context="men"), UnknownName, "did you mean 'mean'"),
        (lambda: DenseSIRConv(1, 1, 1, project_first=True), InvalidInput, "context=None has no W_N"),
    ],
)
def test_layers_that_are_none(build, kind, told):
    with pytest.raises(kind, match=told):
        build()


def test_an_unknown_layer():
    with pytest.raises(AttributeError, match=r"module 'qna\.graph' has no attribute 'GCNConv'"):
        _ = qna.graph.GCNConv
