"""QnAPool2d against the op with a window over the whole map, and against torch's own attention."""

import pytest
import torch

import qna
from qna.ops import learned_query_attention
from qna.parts.resize import resize_table


def pool(map_size=(4, 7), dim=12, **arguments):
    torch.manual_seed(0)
    mixer = qna.QnAPool2d(dim, num_heads=3, map_size=map_size, **arguments).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) * 0.5)
    return mixer


def example(*size, batch=2):
    return torch.randn(batch, *size, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("arguments", [{}, {"num_queries": 3, "out_dim": 24, "bias": True}])
@pytest.mark.parametrize("query_weight", ["normal", "elementwise", "posneg", "none"])
@torch.no_grad()
def test_equals_the_op_with_one_window_over_the_map(arguments, query_weight):
    mixer, x = pool(query_weight=query_weight, **arguments), example(4, 7)
    attended = learned_query_attention(*mixer.project(x).split(), padding=0)
    assert attended.shape[1:3] == (1, 1)
    expected = mixer.out(attended.transpose(-1, -2).flatten(1))
    torch.testing.assert_close(mixer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (8, 7), (3, 5), (14, 21)])
@torch.no_grad()
def test_other_maps_use_resized_tables(size):
    mixer, x = pool(), example(*size)
    scores, value, bias, weight = mixer.project(x).split()
    attended = learned_query_attention(
        scores, value, resize_table(bias, size), resize_table(weight, size), padding=0
    )
    expected = mixer.out(attended.transpose(-1, -2).flatten(1))
    torch.testing.assert_close(mixer(x), expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_equals_multi_head_attention_with_fixed_queries():
    mixer, x = pool(query_weight="none", position="none", num_queries=1), example(4, 7)
    attention = torch.nn.MultiheadAttention(12, 3, bias=False, batch_first=True, dtype=torch.float64)
    project = mixer.project
    unit = project.query[0] / (project.query[0].norm(dim=-1, keepdim=True) + 1e-6)
    heads_first = torch.arange(12).view(4, 3).T.flatten()  # (d, h) -> (h, d)
    attention.in_proj_weight.copy_(
        torch.cat([torch.eye(12), project.key.flatten(0, 1), project.value.weight[heads_first]])
    )
    attention.out_proj.weight.copy_(mixer.out.weight[:, heads_first])
    tokens = x.flatten(1, 2)
    expected, _ = attention(unit.flatten().expand(2, 1, 12), tokens, tokens, need_weights=False)
    torch.testing.assert_close(mixer(x), expected.squeeze(1), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_attention_map_times_the_values_is_the_output():
    mixer, x = pool(), example(5, 6)
    attention = mixer.attention_map(x)
    assert attention.shape == (2, 2, 3, 5, 6)
    torch.testing.assert_close(attention.sum((-1, -2)), torch.ones(2, 2, 3, dtype=torch.float64))
    _, value, _, weight = mixer.project(x).split()
    attended = torch.einsum("blhyx,yxlh,byxhd->bdh", attention, resize_table(weight, (5, 6)), value)
    torch.testing.assert_close(mixer(x), mixer.out(attended.flatten(1)), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_fuse_changes_nothing_but_the_parameters():
    mixer, x = pool(bias=True, position="contextual"), example(5, 6)
    expected = mixer(x)
    torch.testing.assert_close(mixer.fuse()(x), expected, rtol=1e-12, atol=1e-12)
    assert {n for n, p in mixer.named_parameters() if p.requires_grad} == {"out.weight", "out.bias"}


@torch.no_grad()
def test_half_precision_is_finite_for_large_scores():
    mixer, x = pool().half(), example(4, 7).half()
    mixer.project.key *= 100
    assert mixer(x).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"map_size": 0}, "map_size must be an integer of at least 1"),
        ({"map_size": 3, "out_dim": 10}, "multiple of the head dim 4"),
        ({"map_size": 3, "position": "absolut"}, "did you mean 'absolute'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        qna.QnAPool2d(12, num_heads=3, **arguments)
