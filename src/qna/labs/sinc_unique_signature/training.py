"""Training every contender on the same graphs in the same order, and judging it on others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from qna._core.seeds import derive_seed, seeded
from qna.labs.row import Figure
from qna.labs.sinc_unique_signature.config import SincUniqueSignatureConfig
from qna.labs.sinc_unique_signature.graphs import Graphs
from qna.labs.sinc_unique_signature.networks import CONTENDERS, NodeClassifier, network
from qna.labs.warmed_cosine import set_rate

ACCURACY, POSITIVE, PARAMETERS = "none balanced-accuracy", "none positive", "none parameters"
# of the steps, before the rate is whole
WARM_UP = 20
# graphs at once where there is no gradient
JUDGED = 100


def judge_all(config: SincUniqueSignatureConfig, values: int, edges: float, seed: int) -> list[Figure]:
    """Balanced accuracy of every contender, and what part of the nodes is positive."""
    data = config.data(values, edges)
    # other graphs for every seed, so that seeds tell how much those matter too
    trained_on = data.draw(config.graphs, derive_seed(seed, "trained on", values, round(1000 * edges)))
    judged_on = data.draw(config.judged, derive_seed(seed, "judged on", values, round(1000 * edges)))
    case, about = case_of(values, edges, seed), {"values": values, "edges": edges, "graphs": config.judged}
    positive = 100 * judged_on.labels[judged_on.mask].mean().item()
    figures = []
    for name in CONTENDERS:
        model = train(config, trained_on, name, seed)
        count = sum(parameter.numel() for parameter in model.parameters())
        accuracy = 100 * balanced_accuracy(*answers(model, judged_on))
        figures += [
            Figure(case, name, "none", "balanced-accuracy", "%", accuracy, extra=about),
            Figure(case, name, "none", "parameters", "", count),
            Figure(case, name, "none", "positive", "%", positive),
        ]
    return figures


def case_of(values: int, edges: float, seed: int) -> str:
    """The case of a task and a seed; `task_of` reads the task back."""
    return f"values{values}-edges{edges:g}-seed{seed}"


def task_of(case: str) -> tuple[int, float]:
    """Number of values and probability of an edge."""
    values, edges = case.rpartition("-seed")[0].removeprefix("values").split("-edges")
    return int(values), float(edges)


def train(config: SincUniqueSignatureConfig, data: Graphs, name: str, seed: int) -> NodeClassifier:
    """A contender that has seen `steps` batches; all contenders of a seed see the same ones."""
    with seeded(derive_seed(seed, "network")):
        model = network(name, config.hidden)
    order = torch.Generator().manual_seed(derive_seed(seed, "order"))
    optimizer = torch.optim.AdamW(model.parameters(), config.rate, weight_decay=0.0)
    for step in range(config.steps):
        set_rate(optimizer, config.rate, step, config.steps, warm=config.steps // WARM_UP)
        graphs = data.take(torch.randint(len(data.labels), (config.batch,), generator=order))
        logits = model(graphs)
        loss = binary_cross_entropy_with_logits(logits[graphs.mask], graphs.labels[graphs.mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def answers(model: NodeClassifier, data: Graphs) -> tuple[Tensor, Tensor]:
    """Logits and labels of all nodes."""
    pairs = []
    for which in torch.arange(len(data.labels)).split(JUDGED):
        graphs = data.take(which)
        pairs.append((model(graphs)[graphs.mask], graphs.labels[graphs.mask]))
    logits, labels = zip(*pairs, strict=True)
    return torch.cat(logits), torch.cat(labels)


def balanced_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Mean of the parts of the nodes of either label that are told right; of one label where there is one."""
    right = (logits > 0) == (labels > 0)
    of_labels = [right[labels == label] for label in (0, 1)]
    shares = [found.double().mean().item() for found in of_labels if len(found)]
    return sum(shares) / len(shares)
