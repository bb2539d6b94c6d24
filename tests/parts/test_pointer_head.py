"""The pointer head as its equations, its masks, and the order of candidates."""

import copy
import math

import pytest
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.parts.pointer_head import SCORES, PointerHead


def filled(query_dim=5, candidate_dim=3, **arguments):
    """A head in double precision with values in every tensor."""
    if arguments.get("score") == "dot":
        query_dim = candidate_dim
    head = PointerHead(query_dim, candidate_dim, **arguments).double()
    with torch.no_grad():
        for number, parameter in enumerate(head.parameters()):
            values = torch.linspace(-1.1, 1.7, parameter.numel(), dtype=torch.float64)
            parameter.copy_((3 * values).sin().reshape(parameter.shape) + 0.2 * number)
    return head


def inputs(head, batch=2, queries=3, candidates=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, queries, head.query_dim, dtype=torch.float64, generator=generator),
        torch.randn(batch, candidates, head.candidate_dim, dtype=torch.float64, generator=generator),
    )


def by_hand(head, d, c):
    """u of one query and one candidate, number by number."""
    if head.score == "dot":
        return sum(x * y for x, y in zip(d.tolist(), c.tolist(), strict=True))
    rows = head.of_candidate.weight.tolist()
    from_candidate = [sum(w * x for w, x in zip(row, c.tolist(), strict=True)) for row in rows]
    if head.score == "bilinear":
        return sum(x * y for x, y in zip(d.tolist(), from_candidate, strict=True))
    total = 0.0
    for k, row in enumerate(head.of_query.weight.tolist()):
        met = from_candidate[k] + sum(w * x for w, x in zip(row, d.tolist(), strict=True))
        total += head.v.weight[0, k].item() * math.tanh(met)
    return total


@pytest.mark.parametrize("clip", [None, 1.5])
@pytest.mark.parametrize("score", SCORES)
def test_logits_are_the_equations(score, clip):
    head = filled(score=score, clip=clip)
    query, candidates = inputs(head)
    logits = head(query, candidates)
    assert logits.shape == (2, 3, 4)
    for b in range(2):
        for i in range(3):
            for j in range(4):
                u = by_hand(head, query[b, i], candidates[b, j])
                wanted = u if clip is None else clip * math.tanh(u)
                assert logits[b, i, j].item() == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def test_the_hidden_width_is_free_and_square_by_default():
    assert PointerHead(4, 6).of_candidate.weight.shape == (6, 6)
    assert PointerHead(4, 6, hidden=9).of_query.weight.shape == (9, 4)
    assert sum(p.numel() for p in PointerHead(8).parameters()) == 2 * 8 * 8 + 8


@pytest.mark.parametrize("score", SCORES)
def test_an_order_of_candidates_orders_the_probabilities(score):
    head = filled(score=score)
    query, candidates = inputs(head, candidates=7)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    mask = torch.tensor([[True, True, False, True, True, False, True], [True] * 7])
    moved = head(query, candidates[:, order], mask[:, order]).softmax(-1)
    torch.testing.assert_close(
        moved, head(query, candidates, mask).softmax(-1)[..., order], rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("clip", [None, 10.0])
def test_what_is_masked_has_probability_zero_and_no_influence(score, clip):
    head = filled(score=score, clip=clip)
    query, candidates = inputs(head, candidates=5)
    mask = torch.tensor([[True, False, True, False, True], [False, True, True, True, False]])
    shares = head(query, candidates, mask).softmax(-1)
    assert (shares.masked_select(~mask[:, None].expand_as(shares)) == 0).all()
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 3, dtype=torch.float64))
    other = candidates.masked_fill(~mask[..., None], 1e6)
    assert torch.equal(head(query, other, mask), head(query, candidates, mask))
    # the rest share as if the others were not there
    alone = head(query[:1], candidates[:1, mask[0]]).softmax(-1)
    torch.testing.assert_close(shares[:1, :, mask[0]], alone, rtol=1e-12, atol=0)


def test_a_mask_may_differ_by_query():
    head = filled()
    query, candidates = inputs(head)
    mask = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1)) < 0.7
    mask[..., 0] = True
    logits = head(query, candidates, mask)
    for i in range(3):
        torch.testing.assert_close(logits[:, i : i + 1], head(query[:, i : i + 1], candidates, mask[:, i]))


@pytest.mark.parametrize("space", [(4, 3), (1, 1), (2, 3, 2)])
def test_the_positions_of_a_map_are_candidates(space):
    head = filled()
    query, _ = inputs(head)
    candidates = torch.randn(2, *space, 3, dtype=torch.float64)
    logits = head(query, candidates)
    assert logits.shape == (2, 3, *space)
    torch.testing.assert_close(logits.flatten(2), head(query, candidates.flatten(1, -2)))
    mask = torch.zeros(2, *space, dtype=torch.bool)
    mask[:, 0] = True
    assert torch.equal(head(query, candidates, mask).isinf(), ~mask[:, None].expand(2, 3, *space))
    by_query = mask[:, None].expand(2, 3, *space)
    assert torch.equal(head(query, candidates, by_query), head(query, candidates, mask))


@pytest.mark.parametrize("score", SCORES)
def test_candidates_are_prepared_once(score):
    head = filled(score=score)
    query, candidates = inputs(head)
    prepared = head.prepare(candidates)
    for i in range(3):
        one = head.pointed(query[:, i : i + 1], prepared)
        torch.testing.assert_close(one, head(query, candidates)[:, i : i + 1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_gradients(score):
    head = filled(score=score, clip=2.0)
    query, candidates = (x.requires_grad_() for x in inputs(head, queries=2, candidates=3))
    mask = torch.tensor([[True, True, False], [True, True, True]])

    def shares(query, candidates, *parameters):
        named = dict(zip([n for n, _ in head.named_parameters()], parameters, strict=True))
        logits = torch.func.functional_call(head, named, (query, candidates, mask))
        return logits.softmax(-1)

    assert torch.autograd.gradcheck(shares, (query, candidates, *head.parameters()))


def test_cost():
    # W1 c, W2 d, and v of every pair
    assert PointerHead(4, 6, hidden=5).macs(2, 7) == 7 * 6 * 5 + 2 * 4 * 5 + 2 * 7 * 5
    assert PointerHead(4, score="dot").macs(2, 7) == 2 * 7 * 4
    assert PointerHead(4, 6, score="bilinear").macs(2, 7) == 7 * 6 * 4 + 2 * 7 * 4


@pytest.mark.parametrize("score", SCORES)
def test_contract(score):
    head = filled(score=score, clip=3.0)
    query, candidates = inputs(head)
    again = copy.deepcopy(head)
    assert torch.equal(again(query, candidates), head(query, candidates))
    # a sample does not see another
    torch.testing.assert_close(
        head(query[1:], candidates[1:]), head(query, candidates)[1:], rtol=1e-12, atol=0
    )
    assert torch.isfinite(head.bfloat16()(query.bfloat16(), candidates.bfloat16())).all()
    meta = head.to("meta")
    assert meta(query.to("meta"), candidates.to("meta")).shape == (2, 3, 4)


@pytest.mark.parametrize("score", SCORES)
def test_compiles(score):
    head = filled(score=score, clip=3.0).float()
    query, candidates = (x.float() for x in inputs(head))
    mask = torch.tensor([[True, True, False, True]]).expand(2, -1)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(query, candidates, mask), head(query, candidates, mask))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: PointerHead(0), "at least 1"),
        (lambda: PointerHead(3, 4, score="dot"), "bilinear"),
        (lambda: PointerHead(3, hidden=4, score="dot"), "additive form alone"),
        (lambda: PointerHead(3, clip=0.0), "above 0"),
        (lambda: PointerHead(3, clip=math.inf), "finite"),
        (lambda: PointerHead(3)(torch.zeros(2, 1, 4), torch.zeros(2, 5, 3)), "queries must be"),
        (lambda: PointerHead(3)(torch.zeros(1, 1, 3), torch.zeros(2, 5, 3)), "queries must be"),
        (lambda: PointerHead(3)(torch.zeros(2, 1, 3), torch.zeros(2, 5, 4)), "candidates must be"),
        (lambda: PointerHead(3)(torch.zeros(2, 1, 3), torch.zeros(2, 3)), "candidates must be"),
        (lambda: PointerHead(3)(torch.zeros(2, 1, 3), torch.zeros(2, 5, 3), torch.ones(2, 5)), "bool"),
        (
            lambda: PointerHead(3)(torch.zeros(2, 1, 3), torch.zeros(2, 5, 3), torch.ones(2, 4).bool()),
            "mask must be",
        ),
        (
            lambda: PointerHead(3)(torch.zeros(2, 1, 3), torch.zeros(2, 5, 3), torch.ones(1, 5).bool()),
            "mask must be",
        ),
    ],
)
def test_bad_input(build, words):
    with pytest.raises(InvalidInput, match=words):
        build()


def test_an_unknown_score_names_the_nearest():
    with pytest.raises(UnknownName, match="additive"):
        PointerHead(3, score="aditive")
