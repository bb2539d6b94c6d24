"""A kernel pair as a `torch.library` op: schema, fake, autograd, arithmetic, once for every backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qna.ops.learned_query.flops import add_kernel
from qna.ops.learned_query.window import Window

Forward = Callable[[Tensor, Tensor, Tensor, Tensor | None, Window], tuple[Tensor, Tensor]]
Backward = Callable[
    [Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor, Window, bool],
    tuple[Tensor, Tensor, Tensor, Tensor],
]

_GEOMETRY = "SymInt[] stride, SymInt[] dilation, SymInt[] before, SymInt[] out"
_INPUTS = "Tensor scores, Tensor value, Tensor bias, Tensor? weight"


def register(name: str, forward: Forward, backward: Backward) -> Callable[..., Tensor]:
    """Register ``qna::learned_query_<name>`` and its backward; return the function that a `Backend` runs.

    Args:
        name: the backend's name.
        forward: (scores, value, bias, weight, window) -> (out, lse): the output, laid out as `empty_output`
            does, and the fp32 log-sum-exp of every window (B, *space', L, h), +inf where a window holds no
            position.
        backward: (grad, scores, value, bias, weight, lse, window, parameters) -> gradients of scores, value,
            bias and weight in their dtypes; those of bias and weight have no elements where they are not
            wanted (`parameters` is False, or there is no weight).
    """

    def run_forward(scores, value, bias, weight, stride, dilation, before, out):
        return forward(scores, value, bias, weight, _window(bias, stride, dilation, before, out))

    def run_backward(grad, scores, value, bias, weight, lse, parameters, stride, dilation, before, out):
        window = _window(bias, stride, dilation, before, out)
        return backward(grad, scores, value, bias, weight, lse, window, parameters)

    op = torch.library.custom_op(
        f"qna::learned_query_{name}",
        run_forward,
        mutates_args=(),
        schema=f"({_INPUTS}, {_GEOMETRY}) -> (Tensor, Tensor)",
    )
    op_backward = torch.library.custom_op(
        f"qna::learned_query_{name}_backward",
        run_backward,
        mutates_args=(),
        schema=f"(Tensor grad, {_INPUTS}, Tensor lse, bool parameters, {_GEOMETRY})"
        " -> (Tensor, Tensor, Tensor, Tensor)",
    )
    op.register_fake(_fake_forward)
    op_backward.register_fake(_fake_backward)

    def setup(ctx, inputs, output):
        *tensors, stride, dilation, before, out = inputs
        _, lse = output
        ctx.save_for_backward(*tensors, lse)
        ctx.geometry = (stride, dilation, before, out)
        ctx.mark_non_differentiable(lse)
        ctx.set_materialize_grads(False)

    def differentiate(ctx, grad, _):
        scores, value, bias, weight, lse = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if grad is None or not any(needs[:4]):
            return (None,) * 8
        grads = op_backward(grad, scores, value, bias, weight, lse, bool(needs[2] or needs[3]), *ctx.geometry)
        return (*(g if need else None for g, need in zip(grads, needs[:4], strict=True)), *(None,) * 4)

    def refuse(ctx, *grads):
        raise NotImplementedError(
            f"backend={name!r} of qna.ops.learned_query_attention has no second derivative: "
            'call it with backend="reference" to differentiate a gradient'
        )

    op.register_autograd(differentiate, setup_context=setup)
    op_backward.register_autograd(refuse)
    add_kernel(
        getattr(torch.ops.qna, f"learned_query_{name}"),
        getattr(torch.ops.qna, f"learned_query_{name}_backward"),
    )

    def attend(scores: Tensor, value: Tensor, bias: Tensor, weight: Tensor | None, window: Window) -> Tensor:
        geometry = (list(axis) for axis in (window.stride, window.dilation, window.before, window.out))
        return op(scores, value, bias, weight, *geometry)[0]

    return attend


def declines_transforms() -> list[str]:
    """Why no kernel runs here, if this is inside torch.func: grad, vmap, jvp and what is made of them."""
    # torch.compile has transforms of its own, and cannot trace the question
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        return ["a torch.func transform is active, which only the reference can follow"]
    return []


def heads_fastest(value: Tensor) -> bool:
    """Whether the channels of `value` (..., h, d) lie in memory as (d, h), the layout of the layers."""
    heads = value.shape[-2]
    return heads > 1 and value.stride(-2) == 1 and value.stride(-1) == heads


def empty_output(value: Tensor, space: Sequence[int]) -> Tensor:
    """An uninitialised (B, *space, h, d) whose channels lie in memory as those of `value` do."""
    batch, (h, d) = value.shape[0], value.shape[-2:]
    if heads_fastest(value):
        return value.new_empty(batch, *space, d, h).transpose(-1, -2)
    return value.new_empty(batch, *space, h, d)


def _window(bias: Tensor, stride, dilation, before, out) -> Window:
    return Window(tuple(bias.shape[:-2]), tuple(stride), tuple(dilation), tuple(before), tuple(out))


def _fake_forward(scores, value, bias, weight, stride, dilation, before, out):
    lse = scores.new_empty(scores.shape[0], *out, *scores.shape[-2:], dtype=torch.float32)
    return empty_output(value, out), lse


def _fake_backward(grad, scores, value, bias, weight, lse, parameters, stride, dilation, before, out):
    return (
        scores.new_empty(scores.shape),
        empty_output(value, value.shape[1:-2]),
        bias.new_empty(bias.shape if parameters else (0,)),
        bias.new_empty((0,)) if weight is None or not parameters else weight.new_empty(weight.shape),
    )
