"""Unique signatures: labels by a loop, published shares and sizes, controls as torch-geometric has them."""

import warnings

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.labs.sinc_unique_signature import LAB, UniqueSignature, networks
from qna.labs.sinc_unique_signature.config import SincUniqueSignatureConfig
from qna.labs.sinc_unique_signature.graphs import Graphs
from qna.labs.sinc_unique_signature.networks import GAT, GCN, GIN, PNA, SINC, SIR, SIR_SUM, network
from qna.labs.sinc_unique_signature.training import answers, balanced_accuracy, train
from qna.labs.sinc_unique_signature.verdict import made_up, verdict


@pytest.fixture(scope="module")
def geometric():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return pytest.importorskip("torch_geometric", reason="qna[graph] brings it")


def test_labels_by_a_loop():
    data = UniqueSignature(0.4, 5, (3, 9)).draw(30, seed=1)
    for features, adjacency, mask, labels in zip(*data, strict=True):
        nodes = int(mask.sum())
        assert torch.equal(adjacency, adjacency.T)
        assert not adjacency.diagonal().any()
        assert not adjacency[nodes:].any()
        assert not labels[nodes:].any()
        for u in range(nodes):
            neighbours = [int(features[v]) for v in range(nodes) if adjacency[u, v]]
            assert labels[u] == float(sum(neighbours) in neighbours)
    assert data.features.unique().tolist() == [-2, -1, 0, 1, 2]
    assert {3, 9} <= set(data.mask.sum(1).tolist()) <= set(range(3, 10))


@pytest.mark.parametrize(("edges", "published"), [(0.3, 0.3710), (0.5, 0.2887), (0.7, 0.2461)])
def test_published_shares(edges, published):
    """Positive nodes at three values, as the authors print them of 5,000 graphs."""
    data = UniqueSignature(edges).draw(1500, seed=0)
    # nodes of a graph are not independent: by graph the share deviates by some 0.07
    found = torch.stack([labels[mask].mean() for labels, mask in zip(data.labels, data.mask, strict=True)])
    assert data.labels[data.mask].mean().item() == pytest.approx(
        published, abs=4 * found.std().item() / 1500**0.5
    )
    pairs = (data.mask[:, :, None] & data.mask[:, None]).sum() - data.mask.sum()
    assert (data.adjacency.sum() / pairs).item() == pytest.approx(edges, abs=1e-3)


def test_published_sizes():
    counts = {SINC: 352, SIR: 336, SIR_SUM: 336, GCN: 48, GIN: 320, PNA: 403, GAT: 64}
    assert {name: sum(p.numel() for p in network(name, 16).parameters()) for name in counts} == counts
    assert networks.CONTENDERS.keys() == counts.keys()


def a_batch(values=5):
    data = UniqueSignature(0.4, values, (6, 9)).draw(3, seed=2)
    # real numbers, or ties hide mistakes; one node alone
    features = torch.randn(data.features.shape, generator=torch.Generator().manual_seed(0)).double()
    adjacency = data.adjacency.clone()
    adjacency[0, 1], adjacency[0, :, 1] = False, False
    return Graphs(features * data.mask[..., None], adjacency, data.mask, data.labels.double())


def edges_of(graphs):
    """All nodes in a row, and their edges (source, target)."""
    width = graphs.mask.shape[1]
    graph, target, source = graphs.adjacency.nonzero().T
    places = graphs.mask.flatten().cumsum(0) - 1
    edges = torch.stack([places[graph * width + source], places[graph * width + target]])
    return graphs.features[graphs.mask], edges, graphs.mask.nonzero()[:, 0]


def filled(module):
    for phase, parameter in enumerate(module.parameters()):
        with torch.no_grad():
            n = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_(torch.sin(1.7 * n + phase).view(parameter.shape))
    return module.double()


@pytest.mark.parametrize("name", [GCN, GIN, PNA])
@torch.no_grad()
def test_controls_are_those_of_torch_geometric(name, geometric):
    graphs, nn = a_batch(), geometric.nn
    x, edges, graph = edges_of(graphs)
    ours = filled(networks.CONTENDERS[name](1, 16)).eval()
    if name == GCN:
        theirs = nn.GCNConv(1, 16, add_self_loops=False).double()
        theirs.lin.weight.copy_(ours.linear.weight)
        theirs.bias.copy_(ours.bias)
        expected = theirs(x, edges)
    elif name == GIN:
        expected = nn.GINConv(ours.mlp)(x, edges)
    else:
        theirs = nn.PNAConv(
            1, 16, ["sum", "max", "std"], ["identity"], torch.ones(9, dtype=torch.long), act=None
        ).double()
        # there what hears comes first, and the deviation has a floor of its own
        theirs.pre_nns[0][0].weight.copy_(ours.message.weight.flip(1))
        theirs.pre_nns[0][0].bias.copy_(ours.message.bias)
        theirs.post_nns[0][0].load_state_dict(ours.update.state_dict())
        theirs.lin.weight.copy_(torch.eye(16))
        theirs.lin.bias.zero_()
        sizes = graphs.mask.sum(1).double()[graph][:, None]
        expected = ours.mixing(ours.norm(theirs(x, edges) / sizes.sqrt()))
    found = ours(graphs.features, graphs.adjacency, graphs.mask)[graphs.mask]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-2 if name == PNA else 1e-12)
    if name == PNA:
        # a node alone and one with a single neighbour deviate by that floor
        several = graphs.adjacency.sum(-1)[graphs.mask] > 1
        torch.testing.assert_close(found[several], expected[several], rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_graph_attention_by_a_loop():
    graphs = a_batch()
    layer = filled(networks.CONTENDERS[GAT](1, 4))
    y = layer(graphs.features, graphs.adjacency, graphs.mask)
    for g, u in graphs.mask.nonzero().tolist():
        values = layer.linear(graphs.features[g])
        near = graphs.adjacency[g, u].nonzero()[:, 0].tolist()
        scores = [layer.attention @ torch.nn.functional.leaky_relu(values[u] + values[v], 0.2) for v in near]
        shares = torch.stack(scores).softmax(0) if near else torch.zeros(0)
        expected = sum((s * values[v] for s, v in zip(shares, near, strict=True)), torch.zeros(4).double())
        torch.testing.assert_close(y[g, u], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", networks.CONTENDERS)
def test_what_fills_graphs_up_changes_nothing(name):
    graphs = a_batch()
    wider = Graphs(
        *(
            torch.nn.functional.pad(t, [0, 0] * (t.ndim == 3 and t.shape[-1] == 1) + [0, 4])
            for t in graphs[:1]
        ),
        torch.nn.functional.pad(graphs.adjacency, (0, 4, 0, 4)),
        torch.nn.functional.pad(graphs.mask, (0, 4)),
        torch.nn.functional.pad(graphs.labels, (0, 4)),
    )
    # in training, where a batch norm takes its means of the nodes
    model = filled(network(name, 16)).train()
    y = model(graphs)[graphs.mask]
    torch.testing.assert_close(model(wider)[wider.mask], y, rtol=1e-10, atol=1e-10)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_balanced_accuracy_by_hand():
    logits = torch.tensor([1.0, -1.0, -2.0, -3.0, 0.5])
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    assert balanced_accuracy(logits, labels) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert balanced_accuracy(logits[2:], labels[2:]) == pytest.approx(2 / 3)


def test_context_is_learned_and_training_repeats():
    config = SincUniqueSignatureConfig(fewest=10, most=20, graphs=400, judged=100, steps=250)
    data, other = (config.data(3, 0.5).draw(400, seed) for seed in (0, 1))
    ours, again = (train(config, data, SINC, 0) for _ in range(2))
    assert torch.equal(ours.classifier.weight, again.classifier.weight)
    sir = train(config, data, SIR, 0)
    found, pairs = (balanced_accuracy(*answers(model, other)) for model in (ours, sir))
    assert found > 0.95
    assert pairs < 0.75


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        (SINC, 98.9, "direction only"),
        (SIR, 51.5, "direction only"),
        (SIR_SUM, 99.9, "direction only"),
        (GIN, 99.89, "held"),
    ],
)
def test_one_seed_of_one_case_decides(name, value, word):
    metrics = made_up()
    case = next(iter(metrics))
    metrics[case][name] = {**metrics[case][name], "none balanced-accuracy": value}
    assert verdict(metrics).word == word


def test_the_fewest_values_decide():
    metrics = made_up()
    worse = {case.replace("values3", "values5"): found for case, found in made_up(sinc=60.0).items()}
    assert verdict({**worse, **metrics}).word == "held"
    assert "5 values: SINC-GCN 60.0/60.0" in verdict({**worse, **metrics}).figures


@pytest.mark.parametrize(
    "arguments",
    [
        {"values": ()},
        {"values": (3, 3)},
        {"values": (0,)},
        {"edges": (0.0,)},
        {"edges": (1.1,)},
        {"fewest": 8, "most": 7},
        {"steps": 0},
        {"rate": 0.0},
        {"minutes": 0.0},
    ],
    ids=str,
)
def test_bad_configurations(arguments):
    with pytest.raises(InvalidInput):
        SincUniqueSignatureConfig(**arguments)


def test_the_rule_names_whom_it_judges():
    assert all(name in LAB.rule for name in (SINC, SIR, SIR_SUM, GIN, PNA))
