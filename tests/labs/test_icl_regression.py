"""In-context regression: prompts, closed forms by hand and against each other, attention as its equation."""

import math

import pytest
import torch
from torch.nn.functional import mse_loss

from qna._core.errors import InvalidInput, UnknownName
from qna.labs.icl_regression import InContextAttention, Regression
from qna.labs.icl_regression import closed_forms as forms
from qna.labs.icl_regression.config import IclRegressionConfig
from qna.labs.icl_regression.training import pattern, train
from qna.labs.icl_regression.verdict import made_up, verdict

D, L, S2 = 5, 40, 0.1
DATA = Regression(D, S2)


@pytest.fixture(scope="module")
def prompts():
    return DATA.draw(8000, L, seed=3)


def filled(width=4, heads=3, outputs=2, **arguments):
    network = InContextAttention(width, heads, outputs, **arguments).double()
    for number, parameter in enumerate(network.parameters()):
        with torch.no_grad():
            parameter.copy_(
                torch.linspace(-1, 1.3, parameter.numel(), dtype=torch.float64).cos().reshape(parameter.shape)
                + 0.1 * number
            )
    return network


@pytest.mark.parametrize("kind", ["softmax", "mean", "sum"])
def test_attention_is_its_equation(kind):
    network, (batch, length, width) = filled(kind=kind, examples=7), (2, 5, 4)
    tokens = torch.randn(batch, length, width, dtype=torch.float64)
    query = torch.randn(batch, width, dtype=torch.float64)
    q, k, v, o = (getattr(network, f"{name}_proj").weight for name in "qkvo")
    expected = torch.zeros(batch, 2, dtype=torch.float64)
    for b in range(batch):
        for h in range(3):
            rows = slice(h * width, (h + 1) * width)
            scores = [(k[rows] @ z) @ (q[rows] @ query[b]) / math.sqrt(width) for z in tokens[b]]
            if kind == "softmax":
                total = sum(s.exp() for s in scores)
                shares = [s.exp() / total for s in scores]
            else:
                shares = [s / (length if kind == "mean" else 7) for s in scores]
            pooled = sum(share * (v[rows] @ z) for share, z in zip(shares, tokens[b], strict=True))
            expected[b] += o[:, rows] @ pooled
    torch.testing.assert_close(network(tokens, query), expected, rtol=1e-12, atol=1e-12)


def test_attention_equals_the_authors(golden_answers):
    """Values of their module, filled as `filled` does; see `golden_answers`."""
    network = filled()
    tokens = torch.linspace(-2, 2, 2 * 3 * 4, dtype=torch.float64).sin().reshape(2, 3, 4)
    query = torch.linspace(1, -1, 8, dtype=torch.float64).reshape(2, 4)
    torch.testing.assert_close(network(tokens, query), golden_answers, rtol=1e-9, atol=1e-9)


@pytest.fixture
def golden_answers():
    # printed by MultiHeadAttention(4, 3, n_out=2) of XintianPan/ICL_linear at 87ed34f, in float64
    return torch.tensor(GOLDEN, dtype=torch.float64)


GOLDEN = [[-18.244115522309855, -16.0577034750808], [18.082399817521885, 16.096803829790797]]


def test_gradients():
    network = filled()
    tokens = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    query = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, (tokens, query))


def test_published_figures_on_prompts(prompts):
    """8,000 prompts: 0.238 for the debiased step, 0.402 for the best single head, 0.114 for ridge
    regression."""
    tokens, query, answer = prompts
    rate = forms.best_rate(D, L, S2)
    omega, mu = forms.best_single_head(D, L, S2)
    found = {
        "step": forms.one_step(tokens, query, rate),
        "single": forms.heads_of(tokens, query, omega, mu),
        "ridge": forms.ridge(tokens, query, S2),
    }
    losses = {name: mse_loss(value, answer).item() for name, value in found.items()}
    # standard errors over the prompts are about 2 %
    assert losses == pytest.approx({"step": 0.238, "single": 0.402, "ridge": 0.114}, rel=0.06)


def test_two_heads_become_the_debiased_step(prompts):
    tokens, query = (value.double() for value in prompts[:2])
    rate = forms.best_rate(D, L, S2)
    step = forms.one_step(tokens, query, rate)
    gaps = []
    for gamma in (0.02, 0.01):
        omega = torch.tensor([gamma, -gamma], dtype=torch.float64)
        heads = forms.heads_of(tokens, query, omega, rate / (2 * omega))
        gaps.append((heads - step).abs().max().item())
    # the gap shrinks with the square of gamma
    assert gaps[1] == pytest.approx(gaps[0] / 4, rel=0.02)
    assert gaps[1] < 0.02


def test_the_step_by_hand():
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]])
    query = torch.tensor([[2.0, 0.0]])
    # mean of x is 2: (0.5 / 2) * (2 * -1 + 5 * 1) * 2
    assert forms.one_step(tokens, query, 0.5).item() == pytest.approx(1.5)
    assert forms.one_step(tokens, query, 0.5, debiased=False).item() == pytest.approx(0.25 * (2 + 15) * 2)
    whitened = forms.one_step(tokens, query, 0.5, whitened_by=torch.tensor([[4.0]]))
    assert whitened.item() == pytest.approx(1.5 / 4)


def test_closed_forms_agree():
    omega, mu = forms.best_single_head(D, L, S2)
    at_best = forms.approximate_loss(omega, mu, D, L, S2).item()
    assert at_best == pytest.approx(forms.one_head_loss(D, L, S2), rel=1e-12)
    assert forms.one_head_loss(D, L, S2) == pytest.approx(0.372, abs=5e-4)
    assert forms.two_head_loss(D, L, S2) == pytest.approx(0.221, abs=5e-4)
    for other in (omega * 1.1, omega * 0.9):
        assert forms.approximate_loss(other, forms.best_mu(other, D, L, S2), D, L, S2) > at_best
    pair = torch.tensor([1e-3, -1e-3], dtype=torch.float64)
    two = forms.approximate_loss(pair, forms.best_mu(pair, D, L, S2), D, L, S2).item()
    assert two == pytest.approx(forms.two_head_loss(D, L, S2), rel=1e-5)


def test_ridge_is_the_mean_of_what_may_have_been():
    """The posterior mean of Gaussian weights, by the normal equations in the answers' space."""
    tokens, query, _ = DATA.draw(3, 4, seed=0)
    x, y = tokens[..., :D].double(), tokens[..., D:].double()
    gram = x @ x.mT / D + S2 * torch.eye(4, dtype=torch.float64)
    expected = (query[:, None, :D].double() @ x.mT / D) @ torch.linalg.solve(gram, y)
    torch.testing.assert_close(forms.ridge(tokens, query, S2).double(), expected[:, 0], rtol=1e-5, atol=1e-5)


def test_prompts_are_what_they_say():
    data = Regression(4, 0.5, correlation=0.6, tasks=((0, 1), (1, 2, 3)))
    tokens, query, answer = data.draw(4000, 10, seed=0)
    assert tokens.shape == (4000, 10, 6)
    assert query.shape == (4000, 6)
    assert answer.shape == (4000, 2)
    assert not query[:, 4:].any()
    x, y = tokens[..., :4].flatten(0, 1), tokens[..., 4:]
    torch.testing.assert_close((x.T @ x / len(x)).double(), data.covariance, rtol=0, atol=0.03)
    # the first task hears nothing of the last covariates: regressing within a prompt needs two of them
    solved = torch.linalg.lstsq(tokens[..., :2].double(), y[..., :1].double()).solution
    left = y[..., :1] - tokens[..., :2].double() @ solved
    assert left.square().sum(1).mean().item() / (10 - 2) == pytest.approx(0.5, rel=0.05)
    assert torch.equal(data.draw(3, 2, 1)[0], data.draw(3, 2, 1)[0])


def test_one_head_of_the_pattern_is_told_apart():
    network = InContextAttention(3, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for head, sign in enumerate((1.0, -1.0)):
            rows = slice(3 * head, 3 * head + 2)
            network.q_proj.weight[rows, :2] = sign * torch.eye(2)
            network.k_proj.weight[rows, :2] = torch.eye(2)
            network.v_proj.weight[3 * head + 2, 2] = sign
            network.o_proj.weight[0, 3 * head + 2] = 1.0
    figures = {figure.metric: figure.p50 for figure in pattern(network, "case", "two", whole=True)}
    assert figures["heads-above-0"] == 1
    assert figures["ov-sum"] == 0
    assert figures["ov-off-answers"] == 0
    assert figures["kq-off-pattern"] == pytest.approx(0, abs=1e-3)
    assert figures["kq-1-0-0"] == pytest.approx(-1 / math.sqrt(3))
    assert figures["ov-1-0-2"] == -1
    with torch.no_grad():
        network.k_proj.weight[0, 1] = 1.0
        network.o_proj.weight[0, 5] = 0.5
    figures = {figure.metric: figure.p50 for figure in pattern(network, "case", "two", whole=False)}
    # what meets a query's answer, which is 0, does not count
    with torch.no_grad():
        network.q_proj.weight[:, 2] = 7.0
    figures = {figure.metric: figure.p50 for figure in pattern(network, "case", "two", whole=False)}
    # one of five entries of equal size is off the diagonal
    assert figures["kq-off-pattern"] == pytest.approx(100 * math.sqrt(1 / 5), rel=1e-3)
    assert figures["ov-sum"] == pytest.approx(100 * 0.5 / 1.5)


def test_training_learns_and_repeats():
    config = IclRegressionConfig(dim=2, task_sizes=(1, 1), steps=150, batch=128, noise=0.01)
    data = config.plain()
    first, again = (train(config, data, 2, "softmax", 0) for _ in range(2))
    assert torch.equal(first.q_proj.weight, again.q_proj.weight)
    tokens, query, answer = data.draw(2000, config.length, seed=9)
    assert mse_loss(first(tokens, query), answer) < 0.6 * answer.var()


def test_seeds_that_disagree_are_no_verdict():
    metrics = {case: dict(contenders) for case, contenders in made_up().items()}
    other = made_up(two=0.25)
    last = [case for case in metrics if "seed1" in case]
    metrics.update({case: other[case] for case in last})
    assert verdict(metrics).word == "direction only"


@pytest.mark.parametrize(
    "build",
    [
        lambda: InContextAttention(0, 1),
        lambda: InContextAttention(3, 1)(torch.zeros(2, 4, 3), torch.zeros(2, 4)),
        lambda: InContextAttention(3, 1)(torch.zeros(2, 0, 3), torch.zeros(2, 3)),
        lambda: Regression(0),
        lambda: Regression(2, 0.0),
        lambda: Regression(2, correlation=1.0),
        lambda: Regression(2, tasks=((2,),)),
        lambda: Regression(2, tasks=((0, 0),)),
        lambda: IclRegressionConfig(lengths=(20,)),
        lambda: IclRegressionConfig(task_sizes=(3, 6)),
    ],
)
def test_bad_input(build):
    with pytest.raises(InvalidInput):
        build()


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(UnknownName, match="softmax"):
        InContextAttention(3, 1, kind="softmx")
