"""Attention in shifted groups: loops over masks, limits, the leak, steps, the authors' outputs, refusals."""

from dataclasses import replace

import pytest
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.mixers import MIXERS, CausalAttention1d, ShiftedSparseAttention1d, SinkFixedAttention1d
from qna.mixers.causal.policies import policy_of
from qna.parts.heavy_hitters import KeepHeavy
from qna.parts.kv_cache import KeepAll, KeepWindow
from qna.parts.shifted_groups import KeepGroups
from tests.mixers import causal_contract, contract
from tests.mixers.contract import randomise

SIZES = {"num_heads": 4, "kv_heads": 2}
BOTH = (ShiftedSparseAttention1d, SinkFixedAttention1d)


def drawn(mixer, seed=0):
    randomise(mixer, seed)
    return mixer.double()


def x(n=23, dim=16, seed=1):
    return torch.randn(2, n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(heads, number, n=8, d=2):
    values = torch.linspace(-1, 1.3, heads * n * d, dtype=torch.float64) * (5 + number)
    return values.cos().reshape(1, heads, n, d)


def close(found, expected, scale=1e-11):
    found, expected = found.detach(), expected.detach()
    torch.testing.assert_close(found, expected, rtol=0, atol=scale * float(expected.abs().max()))


def seen_by(n, *, group, shift, sinks=0, wrap=False, sinks_see_all=False):
    """What each position of one head sees, asked of every pair by its own words."""
    seen = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        for j in range(n):
            if wrap:
                a, b = ((p - shift) % n for p in (i, j))
                seen[i, j] = a // group == b // group and b <= a
            else:
                # counted from a place where a group of every head begins
                same = (i - shift + group) // group == (j - shift + group) // group
                seen[i, j] = j <= i and (same or j < sinks)
            if sinks_see_all and i < sinks:
                seen[i, j] = True
    return seen


def by_masks(mixer, x, masks):
    """Attention head by head with the mask of each, projections and rotary positions the mixer's own."""
    query, key, value = mixer.project(x, 0)
    shared = query.shape[1] // key.shape[1]
    made = []
    for head, seen in enumerate(masks):
        scores = query[:, head] @ key[:, head // shared].mT / query.shape[-1] ** 0.5
        made.append(scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value[:, head // shared])
    return mixer.out(torch.stack(made, 2).flatten(2))


def masks_of(shifted, heads=4, *, n, group, **more):
    return [
        seen_by(n, group=group, shift=group // 2 if head >= heads - shifted else 0, **more)
        for head in range(heads)
    ]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(("n", "group"), [(24, 6), (23, 6), (7, 5), (9, 1), (5, 40), (40, 7), (13, 4)])
def test_half_of_the_heads_are_shifted(n, group, kv_heads):
    mixer = drawn(ShiftedSparseAttention1d(16, group=group, num_heads=4, kv_heads=kv_heads))
    close(mixer(x(n)), by_masks(mixer, x(n), masks_of(2, n=n, group=group)))


@pytest.mark.parametrize("sinks", [0, 1, 3, 4, 7, 30])
@pytest.mark.parametrize(("n", "group"), [(24, 6), (23, 6), (7, 5), (9, 1), (5, 40), (40, 7)])
def test_a_quarter_of_the_heads_is_shifted_and_sinks_are_seen(n, group, sinks):
    mixer = drawn(SinkFixedAttention1d(16, group=group, sinks=sinks, **SIZES))
    close(mixer(x(n)), by_masks(mixer, x(n), masks_of(1, n=n, group=group, sinks=sinks)))


@pytest.mark.parametrize(("n", "group"), [(24, 6), (12, 12), (20, 5), (8, 1)])
def test_the_wrapped_form(n, group):
    mixer = drawn(ShiftedSparseAttention1d(16, group=group, wrap=True, **SIZES))
    close(mixer(x(n)), by_masks(mixer, x(n), masks_of(2, n=n, group=group, wrap=True)))


@pytest.mark.parametrize("sinks", [0, 1, 4, 30])
def test_sinks_that_see_all(sinks):
    mixer = drawn(SinkFixedAttention1d(16, group=6, sinks=sinks, sinks_see="all", **SIZES))
    masks = masks_of(1, n=23, group=6, sinks=sinks, sinks_see_all=True)
    close(mixer(x()), by_masks(mixer, x(), masks))


def test_the_authors_outputs():
    """LLaMA's of dvlab-research/LongLoRA at d4eb344, with FlashAttention and without; groups of half the
    length, keys not turned; second and sixth position."""
    given = [filled(heads, i) for i, heads in enumerate((4, 2, 2))]
    first = [
        [[0.859803413776431, 0.8097884891289027], [-0.7834661450193768, -0.4544188951587963]],
        [[0.853024380690625, 0.8207205733305152], [-0.40801848985864964, 0.046869871265539514]],
    ]
    # the second position, and the sixth, which is in no group with the end in either form
    last = [[-0.47105798655927467, -0.15655065470202023], [0.6402253476055095, 0.6459651736652182]]
    alone = [[-0.14636093192534858, -0.5535266621849042], [-0.35093963501774983, -0.7043103272172535]]
    leaks = [[-0.13390998806184684, -0.5431958456338274], [-0.3232058759567219, -0.6846203379279351]]
    for wrap, second in ((False, alone), (True, leaks)):
        mixer = ShiftedSparseAttention1d(8, group=0.5, wrap=wrap, **SIZES)
        found = mixer.attend(*given)[0, :, [1, 5]]
        expected = first + [list(pair) for pair in zip(second, last, strict=True)]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def same_weights(mixer, **arguments):
    full = CausalAttention1d(16, **{**SIZES, **arguments}).double()
    full.load_state_dict(mixer.state_dict())
    return full


@pytest.mark.parametrize("cls", BOTH)
def test_limits_that_are_full_attention(cls):
    """No part of the heads shifted and a group of everything; sinks that cover everything; inference."""
    mixer = drawn(cls(16, group=6, **SIZES))
    full = same_weights(mixer)(x())
    assert (mixer(x()) - full).abs().max() > 1e-3
    close(mixer.eval()(x()), full)
    query, key, value = mixer.project(x(), 0)
    close(mixer.joined(KeepGroups(23).attend(query, key, value, 0), x()), full)
    close(mixer.joined(KeepGroups(2, 2, sinks=23).attend(query, key, value, 0), x()), full)
    if cls is SinkFixedAttention1d:
        many = drawn(cls(16, group=6, sinks=23, **SIZES))
        close(many(x()), full)


def test_heads_that_are_not_shifted_are_blocks():
    """The first half of the heads by itself is full attention of every group by itself."""
    mixer = ShiftedSparseAttention1d(16, group=6, **SIZES).double()
    query, key, value = mixer.project(x(24), 0)
    found = mixer.attend(query, key, value)[:, :2]
    full = [
        CausalAttention1d(16, **SIZES).attend(*(t[:, :, at : at + 6] for t in (query, key, value)))
        for at in range(0, 24, 6)
    ]
    close(found, torch.cat(full, 2)[:, :2])


def test_heads_may_change_places():
    """Inside the shifted ones and inside the others."""
    mixer = ShiftedSparseAttention1d(16, group=6, num_heads=4).double()
    query, key, value = mixer.project(x(), 0)
    order = [1, 0, 3, 2]
    found = mixer.attend(query[:, order], key[:, order], value[:, order])
    close(found, mixer.attend(query, key, value)[:, order])
    across = [2, 1, 0, 3]
    found = mixer.attend(query[:, across], key[:, across], value[:, across])
    assert (found - mixer.attend(query, key, value)[:, across]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("mixer", "leaks"),
    [
        (ShiftedSparseAttention1d(16, group=6, **SIZES), None),
        (SinkFixedAttention1d(16, group=6, **SIZES), None),
        # the first half group, by the last half group
        (ShiftedSparseAttention1d(16, group=6, wrap=True, **SIZES), range(3)),
        (SinkFixedAttention1d(16, group=6, sinks_see="all", **SIZES), range(4)),
    ],
)
def test_who_sees_what_comes_later(mixer, leaks):
    """Outputs of the first positions, when the last half group is another: in training, and never later."""
    mixer = drawn(mixer)
    other = x(24).clone()
    other[:, 21:] = x(24, seed=9)[:, 21:]
    moved = (mixer(x(24)) - mixer(other))[:, :21].abs().amax((0, 2)) > 1e-9
    assert moved.nonzero().flatten().tolist() == list(leaks or ())
    mixer.eval()
    assert torch.equal(mixer(x(24))[:, :21], mixer(other)[:, :21])


@pytest.mark.parametrize("cls", BOTH)
def test_groups_that_are_a_part_of_the_sequence(cls):
    for n, size in ((24, 6), (23, 6), (21, 6), (20, 5), (3, 1), (1, 1)):
        mixer, fixed = (drawn(cls(16, group=g, **SIZES)) for g in (0.25, size))
        close(mixer(x(n)), fixed(x(n)))
        assert mixer.groups(n).group == size


@pytest.mark.parametrize("name", [cls.__name__ for cls in BOTH])
@pytest.mark.parametrize(
    "clause",
    [
        "any_split_is_the_whole",
        "caches_follow_policies",
        "nothing_depends_on_what_comes_later",
        "states_are_told_apart",
        "bytes_are_told",
    ],
)
def test_the_contract_with_full_inference(name, clause):
    """Groups in inference are held to it by the row."""
    row = MIXERS[name]
    arguments = {**row.example.arguments, "group": 0.25, "inference": "full"}
    assert causal_contract
    contract.hold(replace(row, example=replace(row.example, arguments=arguments), exempt={}), clause)


@pytest.mark.parametrize("cls", BOTH)
def test_steps_in_training_are_in_groups_as_well(cls):
    mixer = drawn(cls(16, group=6, inference="grouped", **SIZES)).train()
    whole = mixer(x(29))
    for split in ((29,), (1,) * 29, (3, 20, 6), (12, 17)):
        state, parts = mixer.init_state(2), []
        for part in x(29).split(split, 1):
            y, state = mixer.step(part, state)
            parts.append(y)
        close(torch.cat(parts, 1), whole)
    full = cls(16, group=6, **SIZES).double()
    with pytest.raises(InvalidInput, match=r"attends in groups in training .* call eval\(\) first"):
        full.step(x(3), full.init_state(2))


@pytest.mark.parametrize("group", [1, 2, 5, 6, 64])
@pytest.mark.parametrize("sinks", [0, 2, 7])
@pytest.mark.parametrize("shifted", [0, 1, 4])
def test_the_cache_holds_what_is_seen_and_no_more(group, sinks, shifted):
    """Any split, the positions that are kept, and that the cache does not grow."""
    policy = KeepGroups(group, shifted, sinks)
    mixer = drawn(CausalAttention1d(16, **SIZES)).eval()
    query, key, value = mixer.project(x(29), 0)
    with torch.no_grad():
        whole = mixer.joined(policy.attend(query, key, value, 0), x(29))
        for split in ((29,), (1,) * 29, (5, 11, 1, 1, 9, 2), (16, 13)):
            state, parts, length = mixer.policy_state(2, policy), [], 0
            for part in x(29).split(split, 1):
                y, state = mixer.step(part, state)
                parts.append(y)
                length += part.shape[1]
                cache = state["cache"]
                held = len(cache.keys) + cache.sink_keys.shape[2]
                assert held == policy.kept(length) < sinks + group
                assert state.nbytes == policy.state_bytes(mixer._shape(2, *_place()), length)
            close(torch.cat(parts, 1), whole)
    close(whole, by_masks(mixer, x(29), masks_of(shifted, n=29, group=group, sinks=sinks)))


def _place():
    return torch.device("cpu"), torch.float64


def test_groups_as_a_policy_have_a_name():
    assert policy_of("groups:group=256,sinks=4,shifted=2") == KeepGroups(256, 2, 4)
    mixer = CausalAttention1d(16, **SIZES).double()
    state = mixer.policy_state(2, KeepGroups(6, 5))
    with pytest.raises(InvalidInput, match="shifts 5 heads of queries, and there are 4; shift fewer"):
        mixer.step(x(), state)


def test_heavy_hitters_go_with_full_inference():
    """H2O, as in SinkLoRA: of two sequences, keys are dropped, in each head its own."""
    mixer = drawn(SinkFixedAttention1d(16, **SIZES)).eval()
    with torch.no_grad():
        y, state = mixer.step(x(), mixer.policy_state(2, KeepHeavy(4, 4)))
        close(y, mixer(x()))
        kept = state["cache"]
        assert kept.keys.shape[2] == kept.values.shape[2] == 8
        assert state.nbytes < mixer.step(x(), mixer.policy_state(2, KeepAll()))[1].nbytes / 2
        assert len({tuple(p) for p in kept.positions.flatten(0, 1).tolist()}) > 1


def test_gradients():
    for mixer in (
        ShiftedSparseAttention1d(4, group=4, num_heads=2),
        ShiftedSparseAttention1d(4, group=3, wrap=True, num_heads=2),
        SinkFixedAttention1d(8, group=3, sinks=2, sinks_see="all", **SIZES),
    ):
        assert torch.autograd.gradcheck(drawn(mixer), x(9, mixer.dim).requires_grad_())


# torch's own decompositions are scripted when they are first asked for
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_forward_mode_and_transforms_follow():
    mixer = drawn(SinkFixedAttention1d(16, group=6, sinks=2, **SIZES))
    tangent = x(seed=4)
    _, found = torch.func.jvp(mixer, (x(),), (tangent,))
    small = 1e-6
    expected = (mixer(x() + small * tangent) - mixer(x() - small * tangent)) / (2 * small)
    assert (found - expected).abs().max() < 1e-8


def test_training_compiles():
    """Inference in groups is compiled by the contract."""
    torch._dynamo.reset()
    mixer = drawn(SinkFixedAttention1d(16, group=6, sinks=2, **SIZES))
    compiled = torch.compile(mixer, fullgraph=True, backend="eager", dynamic=False)
    close(compiled(x()), mixer(x()))


def test_cost():
    """Pairs are those of the masks, of all heads, whatever the length; full inference is a triangle."""
    for n in (1, 5, 6, 23, 24):
        s2 = ShiftedSparseAttention1d(12, group=6, head_dim=6, **SIZES)
        sf = SinkFixedAttention1d(12, group=6, sinks=2, head_dim=6, **SIZES)
        for mixer, shifted, more in ((s2, 2, {}), (sf, 1, {"sinks": 2})):
            pairs = sum(int(mask.sum()) for mask in masks_of(shifted, n=n, group=6, **more))
            assert mixer.pairs(n) == pairs / 4
            maps = n * 12 * 6 * (4 + 2 + 2) + n * 24 * 12
            assert mixer.macs((2, n, 12)) == 2 * (maps + 2 * pairs * 6)
            assert mixer.eval().pairs(n) == n * (n + 1) // 2


def s2(**arguments):
    return ShiftedSparseAttention1d(16, **{**SIZES, **arguments})


def sf(**arguments):
    return SinkFixedAttention1d(16, **{**SIZES, **arguments})


@pytest.mark.parametrize(
    ("make", "arguments", "told"),
    [
        (
            s2,
            {"num_heads": 3, "kv_heads": 3, "head_dim": 4},
            "shifts half of the heads, got num_heads=3; make it even",
        ),
        (
            sf,
            {"num_heads": 6, "head_dim": 4},
            "shifts a quarter of the heads, got num_heads=6; make it a multiple of 4",
        ),
        (s2, {"group": 0}, "group must be a whole number of positions, or below 1 a part .* got 0"),
        (s2, {"group": 1.5}, "group must be a whole number of positions, .* got 1.5"),
        (s2, {"group": True}, "group must be a whole number of positions, .* got True"),
        (s2, {"inference": "grouped"}, "needs group as a number of positions, got 0.25"),
        (s2, {"group": 6, "wrap": True, "inference": "grouped"}, "first positions see the last ones, which"),
        (sf, {"group": 6, "sinks_see": "all", "inference": "grouped"}, "the first 4 positions see all later"),
        (sf, {"sinks": -1}, "sinks must be an integer of at least 0, got -1"),
    ],
)
def test_what_is_refused(make, arguments, told):
    with pytest.raises(InvalidInput, match=told) as refused:
        make(**arguments)
    assert "\n" not in str(refused.value)


def test_what_is_refused_later():
    with pytest.raises(UnknownName, match="inference of attention in groups 'ful'; did you mean 'full'"):
        s2(inference="ful")
    with pytest.raises(UnknownName, match="sinks_see 'al'; did you mean 'all'"):
        sf(sinks_see="al")
    with pytest.raises(InvalidInput, match="length that groups of 6 divide, got 23; cut the sequence"):
        s2(group=6, wrap=True).double()(x())
    grouped = s2(group=6, inference="grouped")
    with pytest.raises(
        InvalidInput, match=r"keeps what its groups see, and KeepWindow.* is for inference='full'"
    ):
        grouped.policy_state(1, KeepWindow(4))
