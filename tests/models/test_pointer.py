"""Networks that point at their inputs: equations, replay, padding, search, and what they learn."""

import copy
import math
from itertools import permutations, product

import pytest
import torch
import torch.nn.functional as F

from qna._core.errors import InvalidInput, UnknownName
from qna.models.pointer import (
    POINTERS,
    PointerNetwork,
    TransformerPointer,
    create_pointer,
    point,
)
from qna.parts.pointer_head import PointerHead

NETWORKS = {
    "lstm": lambda **arguments: PointerNetwork(dim=12, **arguments),
    "transformer": lambda **arguments: TransformerPointer(
        dim=12, depth=2, num_heads=3, hidden=10, **arguments
    ),
}


def filled(name, **arguments):
    """A network in double precision with values in every tensor that are no initialisation's."""
    network = NETWORKS[name](**arguments).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return network


def drawn(batch=3, count=5, seed=0):
    return torch.rand(batch, count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


ANSWERS = torch.tensor([[0, 3, 4, -1], [2, 1, -1, -1], [4, 4, 0, 2]])
LENGTHS = torch.tensor([5, 3, 5])


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


def lstm_by_hand(layer, inputs, h, c):
    """States of an LSTM, step by step: gates input, forget, cell, output."""
    states = []
    for x in inputs:
        gates = layer.weight_ih_l0 @ x + layer.bias_ih_l0 + layer.weight_hh_l0 @ h + layer.bias_hh_l0
        i, f, g, o = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return states, h, c


def test_the_network_is_its_equations():
    network = filled("lstm")
    points, answers = drawn(batch=1), [3, 0, 4]
    zero = torch.zeros(12, dtype=torch.float64)
    encoded, h, c = lstm_by_hand(network.encoder, points[0], zero, zero)
    inputs = [network.start, *(points[0, i] for i in answers)]
    decoded, _, _ = lstm_by_hand(network.decoder, inputs, h, c)
    w1, w2, v = network.head.of_candidate.weight, network.head.of_query.weight, network.head.v.weight[0]
    wanted = torch.stack(
        [torch.stack([v @ torch.tanh(w1 @ e + w2 @ d) for e in [*encoded, network.end]]) for d in decoded]
    )
    logits = network(points, torch.tensor([answers]))
    torch.testing.assert_close(logits[0], wanted, rtol=1e-11, atol=1e-12)
    # the log-probability of the answer, then of stopping
    steps = wanted.log_softmax(-1)
    total = sum(steps[i, j] for i, j in enumerate([*answers, 5]))
    torch.testing.assert_close(network.log_prob(points, torch.tensor([answers]))[0], total)
    torch.testing.assert_close(network.loss(points, torch.tensor([answers])), -total / 4)


def test_all_weights_begin_uniformly():
    network = PointerNetwork(dim=64)
    values = torch.cat([p.flatten() for p in network.parameters()])
    assert values.abs().max() <= 0.08
    assert values.std().item() == pytest.approx(0.08 / math.sqrt(3), rel=0.02)
    assert all(p.abs().max() > 0.04 for p in network.parameters() if p.numel() > 8)
    assert network.head.of_candidate.weight.shape == network.head.of_query.weight.shape == (64, 64)
    assert not [n for n, _ in network.head.named_parameters() if "bias" in n]


@pytest.mark.parametrize("ends", [True, False])
def test_replay_is_teacher_forcing(name, ends):
    """Steps one by one, each from the state of the one before, give the logits of the whole answer."""
    network = filled(name, ends=ends)
    points = drawn()
    answers = torch.tensor([[0, 3, 4, 1, 2], [2, 1, 0, -1, -1], [4, 3, 0, 2, 1]])
    whole = network(points, answers, LENGTHS)
    assert whole.shape == (3, 6, 6) if ends else (3, 5, 5)
    state = network.init_state(points, LENGTHS)
    chosen, total = answers[:, :0], torch.zeros(3, dtype=torch.float64)
    labels = network.labels(answers, 5)
    for i in range(whole.shape[1]):
        logits, state = network.step(chosen, state)
        assert state.length == i + 1
        torch.testing.assert_close(logits[:, 0], whole[:, i], rtol=1e-11, atol=1e-11)
        steps = logits[:, 0].log_softmax(-1).gather(1, labels[:, i : i + 1].clamp(min=0))[:, 0]
        total += torch.where(labels[:, i] >= 0, steps, 0.0)
        chosen = answers[:, i : i + 1]
    torch.testing.assert_close(network.log_prob(points, answers, LENGTHS), total, rtol=1e-11, atol=1e-11)


def test_any_split_of_an_answer_is_the_whole(name):
    network = filled(name)
    points = drawn()
    answers = ANSWERS.clamp(min=0)
    whole = network(points, answers)
    first, state = network.step(answers[:, :2], network.init_state(points))
    second, _ = network.step(answers[:, 2:], state)
    again, _ = network.step(answers[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-11, atol=1e-11)
    # a state is a value
    assert torch.equal(second, again)


def test_labels_hold_the_end(name):
    network = filled(name)
    assert network.labels(ANSWERS, 5).tolist() == [
        [0, 3, 4, 5, -1],
        [2, 1, 5, -1, -1],
        [4, 4, 0, 2, 5],
    ]
    assert network.labels(ANSWERS[:, :0], 5).tolist() == [[5], [5], [5]]
    assert filled(name, ends=False).labels(ANSWERS, 5) is ANSWERS


def test_empty_batches_and_answers(name):
    network = filled(name)
    assert network(drawn(batch=0), ANSWERS[:0]).shape == (0, 5, 6)
    assert point(network, drawn(batch=0)).answers.shape[0] == 0
    assert network(drawn(), ANSWERS[:, :0]).shape == (3, 1, 6)
    assert filled(name, ends=False)(drawn(), ANSWERS[:, :0]).shape == (3, 0, 5)


def test_hooks_see_every_layer(name):
    """Of the head its parts: it is asked once for the candidates and once for each step."""
    network, seen = filled(name), set()
    for part, module in network.named_modules():
        module.register_forward_hook(lambda *_, part=part: seen.add(part))
    network(drawn(), ANSWERS)
    lists = {part for part, module in network.named_modules() if isinstance(module, torch.nn.ModuleList)}
    assert {part for part, _ in network.named_modules()} - seen == {"head", *lists}


def test_padding_changes_nothing(name):
    network = filled(name)
    points = drawn()
    answers = torch.tensor([[0, 3, 4, -1], [2, 1, -1, -1], [1, 0, 0, -1]])
    lengths = torch.tensor([5, 3, 2])
    probabilities = network(points, answers, lengths).softmax(-1)
    for b, length in enumerate(lengths.tolist()):
        steps = int((answers[b] >= 0).sum())
        alone = network(points[b : b + 1, :length], answers[b : b + 1, :steps]).softmax(-1)[0]
        kept = torch.cat([probabilities[b, : steps + 1, :length], probabilities[b, : steps + 1, -1:]], 1)
        torch.testing.assert_close(kept, alone, rtol=1e-11, atol=1e-12)
        # what lies behind the last point is never pointed at
        assert (probabilities[b, :, length:5] == 0).all()
    other = points.clone()
    other[1, 3:], other[2, 2:] = 1e6, -1e6
    torch.testing.assert_close(
        network.log_prob(other, answers, lengths), network.log_prob(points, answers, lengths), rtol=0, atol=0
    )


def test_what_lies_behind_the_end_of_an_answer_says_nothing(name):
    network = filled(name)
    points = drawn()
    longer = F.pad(ANSWERS, (0, 3), value=-1)
    torch.testing.assert_close(
        network.log_prob(points, longer), network.log_prob(points, ANSWERS), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(
        network.loss(points, longer), network.loss(points, ANSWERS), rtol=1e-12, atol=0
    )


def test_a_set_has_no_order():
    """Without positions the Transformer form is equivariant; with them, and the LSTM, it is not."""
    points, order = drawn(), torch.tensor([4, 2, 0, 1, 3])
    answers = ANSWERS.clamp(min=0)
    moved = order.argsort()[answers]

    def gap(network):
        before = network(points, answers).softmax(-1)
        after = network(points[:, order], moved).softmax(-1)
        return (after - torch.cat([before[..., order], before[..., -1:]], -1)).abs().max().item()

    assert gap(filled("transformer", order=False)) < 1e-12
    assert gap(filled("transformer", order=True)) > 1e-3
    assert gap(filled("lstm")) > 1e-3


def test_one_network_takes_any_number_of_inputs(name):
    network = filled(name)
    for count in (1, 2, 50):
        answers = torch.zeros(2, 1, dtype=torch.int64)
        shares = network(drawn(2, count), answers).softmax(-1)
        assert shares.shape == (2, 2, count + 1)
        torch.testing.assert_close(shares.sum(-1), torch.ones(2, 2, dtype=torch.float64))


@pytest.mark.parametrize("beams", [1, 2, 7])
@pytest.mark.parametrize("ends", [True, False])
def test_what_is_found_has_the_probability_that_is_said(name, ends, beams):
    network = filled(name, ends=ends)
    found = point(network, drawn(), LENGTHS, beams=beams)
    torch.testing.assert_close(
        found.log_prob, network.log_prob(drawn(), found.answers, LENGTHS), rtol=1e-11, atol=1e-11
    )
    if not ends:
        for answer, length in zip(found.answers.tolist(), LENGTHS.tolist(), strict=True):
            assert sorted(answer[:length]) == list(range(length))
            assert set(answer[length:]) <= {-1}


@pytest.mark.parametrize("ends", [True, False])
def test_beams_without_bound_find_the_likeliest(name, ends):
    network = filled(name, ends=ends)
    points = drawn(batch=2, count=4)
    if ends:
        every = [answer for steps in range(4) for answer in product(range(4), repeat=steps)]
    else:
        every = list(permutations(range(4)))
    found = point(network, points, beams=5000, most=3 if ends else None)
    for b in range(2):
        log_probs = [
            network.log_prob(
                points[b : b + 1], torch.tensor([answer], dtype=torch.int64).reshape(1, -1)
            ).item()
            for answer in every
        ]
        best = max(range(len(every)), key=log_probs.__getitem__)
        assert tuple(i for i in found.answers[b].tolist() if i >= 0) == every[best]
        assert found.log_prob[b].item() == pytest.approx(log_probs[best], rel=1e-11)


def test_one_beam_is_greedy(name):
    network = filled(name)
    points = drawn()
    found = point(network, points)
    for b in range(3):
        state, chosen, answer = (
            network.init_state(points[b : b + 1]),
            torch.zeros(1, 0, dtype=torch.int64),
            [],
        )
        while len(answer) < 5:
            logits, state = network.step(chosen, state)
            chosen = logits[:, -1].argmax(-1, keepdim=True)
            if chosen.item() == 5:
                break
            answer.append(chosen.item())
        assert [i for i in found.answers[b].tolist() if i >= 0] == answer


def test_answers_may_be_kept_from_naming_an_input_twice(name):
    network = filled(name)
    with torch.no_grad():
        network.end.sub_(3.0)
    found = point(network, drawn(8, 6), beams=3, once=True)
    for answer in found.answers.tolist():
        named = [i for i in answer if i >= 0]
        assert len(set(named)) == len(named)
    torch.testing.assert_close(found.log_prob, network.log_prob(drawn(8, 6), found.answers))


def test_an_answer_has_to_end(name):
    assert point(filled(name), drawn(), most=2).answers.shape[1] <= 2


def test_gradients_reach_every_parameter(name):
    network = filled(name)
    network.loss(drawn(), ANSWERS, LENGTHS.clamp(min=5)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_gradients(name):
    network = filled(name)
    points = drawn(batch=2, count=3).requires_grad_()
    answers = torch.tensor([[0, 2], [1, -1]])

    def log_prob(points):
        return network.log_prob(points, answers, torch.tensor([3, 2]))

    assert torch.autograd.gradcheck(log_prob, (points,))


@pytest.mark.parametrize("head", [PointerHead(12, score="dot"), PointerHead(12, score="bilinear", clip=5.0)])
def test_other_heads(name, head):
    network = filled(name, head=head)
    assert network.head is head
    found = point(network, drawn(), beams=2)
    torch.testing.assert_close(found.log_prob, network.log_prob(drawn(), found.answers))


def test_contract(name):
    network = filled(name).float().eval()
    points = drawn().float()
    logits = network(points, ANSWERS)
    again = copy.deepcopy(network)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(points, ANSWERS), logits)
    # a sample does not see another
    torch.testing.assert_close(network(points[1:2], ANSWERS[1:2]), logits[1:2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(network(points, ANSWERS)).all()
    half = copy.deepcopy(network).bfloat16()
    assert torch.isfinite(half(points.bfloat16(), ANSWERS)).all()
    meta = NETWORKS[name]().to("meta")
    assert meta(points.to("meta"), ANSWERS.to("meta")).shape == (3, 5, 6)


@pytest.mark.long
# an LSTM breaks torch's graph, and the compiler asks what it hands on for gradients
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiles(name):
    network = filled(name)
    compiled = torch.compile(network, backend="aot_eager")
    torch.testing.assert_close(compiled(drawn(), ANSWERS), network(drawn(), ANSWERS))


@pytest.mark.parametrize("size", [size for row in POINTERS.values() for size in row.variants])
def test_parameters_are_as_many_as_the_row_says(size):
    with torch.device("meta"):
        network = create_pointer(size)
    row = next(row for row in POINTERS.values() if size in row.variants)
    assert isinstance(network, row.network)
    assert sum(p.numel() for p in network.parameters()) == row.variants[size].parameters


def test_published_form_has_the_weights_of_two_lstms_and_a_head():
    hidden = 256
    lstm = 4 * hidden * (2 + hidden + 2)
    assert create_pointer("pointer_lstm_256").head.v.weight.numel() == hidden
    assert POINTERS["pointer_lstm"].variants["pointer_lstm_256"].parameters == (
        2 * lstm + 2 * hidden**2 + hidden + 2 + hidden
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda n: n(torch.zeros(2, 3), ANSWERS[:2]), "points must be"),
        (lambda n: n(torch.zeros(2, 3, 3), ANSWERS[:2]), "points must be"),
        (lambda n: n(torch.zeros(2, 0, 2), ANSWERS[:2, :0]), "at least 1"),
        (lambda n: n(torch.zeros(2, 5, 2), ANSWERS), "answers must be int64"),
        (lambda n: n(torch.zeros(3, 5, 2), ANSWERS.float()), "answers must be int64"),
        (lambda n: n(torch.zeros(3, 4, 2), ANSWERS), "indices of the points"),
        (lambda n: n(torch.zeros(3, 5, 2), ANSWERS - 1), "indices of the points"),
        (lambda n: n(torch.zeros(3, 5, 2), ANSWERS, torch.tensor([5, 2, 5])), "indices of the points"),
        (lambda n: n(torch.zeros(3, 5, 2), ANSWERS.flip(1)), "goes on behind its end"),
        (lambda n: n(torch.zeros(3, 5, 2), ANSWERS, torch.tensor([5, 6, 5])), "from 1 to N = 5"),
        (lambda n: n(torch.zeros(3, 5, 2), ANSWERS, torch.tensor([5, 0, 5])), "from 1 to N = 5"),
        (lambda n: n(torch.zeros(3, 5, 2), ANSWERS, torch.tensor([5, 5])), "lengths must be"),
        (lambda n: point(n, torch.zeros(1, 3, 2), beams=0), "at least 1"),
        (lambda n: point(n, torch.zeros(1, 3, 2), most=0), "at least 1"),
    ],
)
def test_bad_input(name, call, words):
    with pytest.raises(InvalidInput, match=words):
        call(NETWORKS[name]())


def test_bad_arguments(name):
    with pytest.raises(InvalidInput, match="one choice for each input"):
        point(NETWORKS[name](ends=False), torch.zeros(1, 3, 2), most=2)
    with pytest.raises(InvalidInput, match="as its weights are"):
        NETWORKS[name]().init_state(torch.zeros(3, 5, 2, dtype=torch.float64))
    network = NETWORKS[name]()
    begun = network.init_state(torch.zeros(1, 5, 2))
    with pytest.raises(InvalidInput, match="there are 5, got 5"):
        network.step(torch.tensor([[5]]), begun)
    state = PointerNetwork(dim=8).init_state(torch.zeros(3, 5, 2))
    with pytest.raises(InvalidInput, match="made by"):
        NETWORKS[name]().step(ANSWERS[:, :0], state)
    with pytest.raises(UnknownName, match="pointer_lstm_256"):
        create_pointer("pointer_lstm_255")
    with pytest.raises(InvalidInput, match="num_heads must divide"):
        TransformerPointer(dim=10, num_heads=4)


@pytest.mark.slow
def test_sorting_is_learned_and_goes_on_to_longer_lists():
    """Five numbers in ascending order, after some seconds of training; six that it has never seen."""
    torch.manual_seed(0)
    network = TransformerPointer(1, 32, depth=1, num_heads=2, order=False, ends=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250):
        numbers = torch.rand(64, 5, 1, generator=generator)
        loss = network.loss(numbers, numbers[..., 0].argsort(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = {}
    for count in (5, 6):
        numbers = torch.rand(500, count, 1, generator=generator)
        right[count] = (point(network, numbers).answers == numbers[..., 0].argsort(1)).all(1).float().mean()
    # chance is 1 of 120 and 1 of 720
    assert right[5] > 0.6
    assert right[6] > 0.05
