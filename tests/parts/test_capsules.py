"""Capsules: their equations by loops, the three routings, and what selection promises."""

import math
import re
from pathlib import Path

import pytest
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.parts.capsule_routing import DynamicRouting, EMRouting, SelfAttentionRouting, squash
from qna.parts.capsules import CapsuleEncoder, Capsules, NoRouting, PrimaryCapsules
from qna.parts.contrastive import contrastive_loss

B, N, K, D = 2, 3, 4, 6
ROUTINGS = {
    "self-attention": lambda: SelfAttentionRouting(D, num_heads=2),
    "self-attention of gated poses": lambda: SelfAttentionRouting(D, gate="poses"),
    "dynamic": lambda: DynamicRouting(K, D),
    "em": lambda: EMRouting(K, D),
    "none": NoRouting,
}


def filled(module):
    """In float64 with values everywhere."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)
    return module


def drawn(seed=0):
    generator = torch.Generator().manual_seed(seed)
    poses = torch.randn(B, N, K, D, generator=generator, dtype=torch.float64)
    return Capsules(poses, torch.rand(B, N, K, generator=generator, dtype=torch.float64))


def test_primary_capsules_are_their_equation():
    primary, x = filled(PrimaryCapsules(5, K, D)), torch.randn(B, N, 5, dtype=torch.float64)
    poses, activations = primary(x)
    w, c = primary.pose, primary.activation
    for b in range(B):
        for n in range(N):
            for k in range(K):
                rows = slice(k * D, (k + 1) * D)
                torch.testing.assert_close(poses[b, n, k], w.weight[rows] @ x[b, n] + w.bias[rows])
                logit = (c.weight[k] @ x[b, n] + c.bias[k]).item()
                assert activations[b, n, k].item() == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-12)
    torch.testing.assert_close(primary(x[:, 0])[0], poses[:, :1])


@pytest.mark.parametrize("gate", ["keys", "poses"])
def test_self_attention_is_its_equation(gate):
    routing = filled(SelfAttentionRouting(D, num_heads=2, gate=gate))
    poses, a = drawn()
    routed, selected = routing(Capsules(poses, a))
    wq, wk, wv = routing.qkv.weight.chunk(3)
    for b in range(B):
        p, act = poses[b].reshape(-1, D), a[b].reshape(-1)
        if gate == "poses":
            p = act[:, None] * p
        for i in range(N * K):
            expected = []
            for h in range(2):
                rows = slice(h * D // 2, (h + 1) * D // 2)
                scores = [
                    ((wq[rows] @ p[i]) @ (wk[rows] @ p[j])).item() / math.sqrt(D / 2) for j in range(N * K)
                ]
                counted = [
                    math.exp(s) * (act[j].item() if gate == "keys" else 1) for j, s in enumerate(scores)
                ]
                expected.append(sum(c * (wv[rows] @ p[j]) for j, c in enumerate(counted)) / sum(counted))
            expected = torch.cat(expected)
            torch.testing.assert_close(routed[b].reshape(-1, D)[i], expected)
            logit = (routing.select.weight[0] @ expected + routing.select.bias[0]).item()
            chosen = 1 / (1 + math.exp(-logit)) * (act[i].item() if gate == "keys" else 1)
            assert selected[b].reshape(-1)[i].item() == pytest.approx(chosen, rel=1e-10)


@pytest.mark.parametrize("iterations", [1, 3])
def test_dynamic_routing_is_its_procedure(iterations):
    routing = filled(DynamicRouting(K, D, out_types=5, iterations=iterations))
    poses, a = drawn()
    routed, activations = routing(Capsules(poses, a))
    assert routed.shape == (B, 1, 5, D)
    for b in range(B):
        votes = {
            (n, k, j): a[b, n, k] * poses[b, n, k] @ routing.weight[k, j]
            for n in range(N)
            for k in range(K)
            for j in range(5)
        }
        logits = dict.fromkeys(votes, 0.0)
        for step in range(iterations):
            v = {}
            for j in range(5):
                s = 0
                for n in range(N):
                    for k in range(K):
                        total = sum(math.exp(logits[n, k, other]) for other in range(5))
                        s = s + math.exp(logits[n, k, j]) / total * votes[n, k, j]
                v[j] = squash(s)
            if step < iterations - 1:
                for place, vote in votes.items():
                    logits[place] += (vote @ v[place[2]]).item()
        for j in range(5):
            torch.testing.assert_close(activations[b, 0, j] * routed[b, 0, j], v[j])
            assert routed[b, 0, j].norm().item() == pytest.approx(1)


@pytest.mark.parametrize("iterations", [1, 3])
def test_em_routing_is_its_procedure(iterations):
    routing = filled(EMRouting(K, D, out_types=3, iterations=iterations))
    poses, a = drawn()
    routed, activations = routing(Capsules(poses, a))
    for b in range(B):
        flat = [(n, k) for n in range(N) for k in range(K)]
        votes = {
            (i, j): poses[b, n, k] @ routing.weight[k, j] for i, (n, k) in enumerate(flat) for j in range(3)
        }
        r = dict.fromkeys(votes, 1 / 3)
        for step in range(1, iterations + 1):
            mu, var, act = {}, {}, {}
            for j in range(3):
                weights = [r[i, j] * a[b][flat[i]] for i in range(len(flat))]
                total = sum(weights)
                mu[j] = sum(w * votes[i, j] for i, w in enumerate(weights)) / total
                var[j] = sum(w * (votes[i, j] - mu[j]) ** 2 for i, w in enumerate(weights)) / total + 1e-6
                cost = sum((routing.beta_u[j] + var[j][h].sqrt().log()) * total for h in range(D))
                act[j] = torch.sigmoid(step / iterations * (routing.beta_a[j] - cost))
            for i in range(len(flat)):
                density = [
                    act[j]
                    * torch.exp(-((votes[i, j] - mu[j]) ** 2 / (2 * var[j])).sum())
                    / torch.sqrt((2 * math.pi * var[j]).prod())
                    for j in range(3)
                ]
                for j in range(3):
                    r[i, j] = (density[j] / sum(density)).item()
        for j in range(3):
            torch.testing.assert_close(routed[b, 0, j], mu[j])
            torch.testing.assert_close(activations[b, 0, j], act[j])


@pytest.mark.parametrize("name", ROUTINGS)
def test_gradients(name):
    routing = filled(ROUTINGS[name]())
    poses, a = (x.requires_grad_() for x in drawn())
    assert torch.autograd.gradcheck(lambda p, g: tuple(routing(Capsules(p, g))), (poses, a))
    for parameter in routing.parameters():
        routed = routing(drawn())
        (gradient,) = torch.autograd.grad((routed.activations[..., None] * routed.poses).sum(), parameter)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("gate", ["keys", "poses"])
def test_a_permutation_of_capsules_permutes_the_result(gate):
    routing, capsules = filled(SelfAttentionRouting(D, gate=gate)), drawn()
    order = torch.tensor([2, 0, 3, 1])
    moved = routing(Capsules(capsules.poses[:, :, order], capsules.activations[:, :, order]))
    for there, here in zip(moved, routing(capsules), strict=True):
        torch.testing.assert_close(there, here[:, :, order])


@pytest.mark.parametrize("name", ["self-attention", "dynamic", "em"])
def test_a_capsule_that_is_not_there_has_no_effect(name):
    encoder = filled(CapsuleEncoder(5, K, D, 7, ROUTINGS[name]()))
    poses, a = drawn()
    a[:, 1, 2] = 0
    other = poses.clone()
    other[:, 1, 2] = 100.0
    selected = [
        (routed.activations[..., None] * routed.poses)
        for routed in (encoder.routing(Capsules(p, a)) for p in (poses, other))
    ]
    assert torch.equal(*selected)


def test_one_capsule_is_mapped_by_v():
    routing = filled(SelfAttentionRouting(D, num_heads=3))
    pose = torch.randn(B, 1, 1, D, dtype=torch.float64)
    routed = routing(Capsules(pose, torch.full((B, 1, 1), 0.3, dtype=torch.float64)))
    torch.testing.assert_close(routed.poses, pose @ routing.qkv.weight[2 * D :].T)


# among gated poses a capsule that is not there takes a share of the softmax: see its docstring
@pytest.mark.parametrize("name", sorted(ROUTINGS.keys() - {"self-attention of gated poses"}))
def test_padding_changes_nothing(name):
    encoder = filled(CapsuleEncoder(5, K, D, 7, ROUTINGS[name]()))
    x = torch.randn(B, N, 5, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    padded = encoder(x, mask)
    torch.testing.assert_close(padded[:1], encoder(x[:1, :2]))
    torch.testing.assert_close(padded[1:], encoder(x[1:]))


def test_everything_absent_is_finite():
    for build in ROUTINGS.values():
        routing = build()
        poses = torch.randn(1, 2, K, D, requires_grad=True)
        a = torch.zeros(1, 2, K, requires_grad=True)
        routed = routing(Capsules(poses, a))
        product = routed.activations[..., None] * routed.poses
        assert product.isfinite().all()
        for gradient in torch.autograd.grad(product.sum(), (poses, a), allow_unused=True):
            assert gradient is None or gradient.isfinite().all()


def test_multiply_adds():
    assert PrimaryCapsules(10, 4, 8).macs(3) == 3 * 10 * 4 * 9
    assert SelfAttentionRouting(8).macs(3, 4) == 3 * 12 * 64 + 2 * 144 * 8 + 12 * 8
    one, three = (DynamicRouting(4, 8, iterations=n).macs(3, 4) for n in (1, 3))
    assert one == 12 * 4 * 8 * 9
    # two more iterations, each of two products over the votes
    assert three - one == 2 * 2 * 12 * 4 * 8
    assert EMRouting(4, 8).macs(3, 4) == 12 * 4 * 8 * (8 + 8)
    encoder = CapsuleEncoder(10, 4, 8, 6, SelfAttentionRouting(8))
    assert encoder.macs(3) == 1080 + SelfAttentionRouting(8).macs(3, 4) + 4 * 8 * 6


def test_squash():
    s = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    result = squash(s)
    torch.testing.assert_close(result[0], torch.tensor([0.6, 0.8]) * 25 / 26)
    assert result[1].tolist() == [0, 0]
    result.sum().backward()
    assert s.grad.isfinite().all()


def test_the_contrastive_loss_by_hand():
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    b = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    half = math.sqrt(0.5)
    s = [[1.0, half], [0.0, half]]
    rows = sum(-math.log(math.exp(s[i][i] * 2) / sum(math.exp(x * 2) for x in s[i])) for i in range(2)) / 2
    columns = (
        sum(-math.log(math.exp(s[i][i] * 2) / sum(math.exp(s[k][i] * 2) for k in range(2))) for i in range(2))
        / 2
    )
    loss = contrastive_loss(a, b, temperature=0.5)
    assert loss.item() == pytest.approx((rows + columns) / 2, rel=1e-6)
    assert contrastive_loss(a[:1], b[:1]).item() == 0


@pytest.mark.parametrize("name", ROUTINGS)
def test_half_precision_is_finite(name):
    encoder = CapsuleEncoder(5, K, D, 7, ROUTINGS[name]()).bfloat16()
    assert encoder(torch.randn(B, N, 5, dtype=torch.bfloat16)).isfinite().all()


@pytest.mark.parametrize(
    "build",
    [
        lambda: PrimaryCapsules(0, K, D),
        lambda: PrimaryCapsules(5, K, D)(torch.zeros(2, 4)),
        lambda: PrimaryCapsules(5, K, D)(torch.zeros(2, 0, 5)),
        lambda: PrimaryCapsules(5, K, D)(torch.zeros(2, 3, 5), torch.ones(2, 3)),
        lambda: SelfAttentionRouting(D, num_heads=4),
        lambda: SelfAttentionRouting(D + 1)(Capsules(torch.zeros(1, 1, K, D), torch.zeros(1, 1, K))),
        lambda: DynamicRouting(K, D, iterations=0),
        lambda: DynamicRouting(K + 1, D)(Capsules(torch.zeros(1, 1, K, D), torch.zeros(1, 1, K))),
        lambda: EMRouting(K, D)(Capsules(torch.zeros(1, 1, K, D), torch.zeros(1, 1, K + 1))),
        lambda: contrastive_loss(torch.zeros(2, 3), torch.zeros(3, 3)),
        lambda: contrastive_loss(torch.zeros(2, 3), torch.zeros(2, 3), temperature=0.0),
    ],
)
def test_bad_input(build):
    with pytest.raises(InvalidInput):
        build()


def test_an_unknown_gate_names_the_nearest():
    with pytest.raises(UnknownName, match="keys"):
        SelfAttentionRouting(D, gate="key")


def test_the_example_of_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "capsules.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    found = {}
    exec(code, found)
    assert found["loss"].isfinite()
