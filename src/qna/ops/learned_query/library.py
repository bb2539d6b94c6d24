"""A kernel pair as a `torch.library` op: schema, fake, autograd, arithmetic, once for every backend.

The ops take scores (B, *space, L, h) and value (B, *space, h, d), or no scores and a value that holds both,
(B, *space, d + L, h), as `layout.split` reads it. The gradient of such a value is one buffer too, so no copy
stands between a kernel and the projection that made its inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from qna.ops._shared.window import Window
from qna.ops.learned_query.flops import add_kernel
from qna.ops.learned_query.layout import empty_like, split

# arguments as `register` lists them
Forward = Callable[..., None]
Backward = Callable[..., tuple[Tensor | None, Tensor | None]]

# the window is flat, `Window.flat`: a list costs a microsecond at each border between Python and torch
_INPUTS = "Tensor? scores, Tensor value, Tensor bias, Tensor? weight"
_library = torch.library.Library("qna", "FRAGMENT")


def register(
    name: str, forward: Forward, backward: Backward, *, device: str, keeps_lse: bool
) -> Callable[..., Tensor]:
    """Register ``qna::learned_query_<name>`` and its backward; return the function that a `Backend` runs.

    Args:
        name: the backend's name.
        forward: (scores, value, bias, weight, out, lse, window): fills `out`, and `lse` unless it is None.
        backward: (grad, scores, value, bias, weight, lse, grads, window, parameters) -> gradients of bias and
            weight in any dtype, None where they are not wanted (`parameters` is False, or no weight given);
            fills `grads`, those of scores and value.
        device: type of the device whose addresses the kernels read; on others torch refuses the ops, also
            those of a program that was exported elsewhere.
        keeps_lse: whether `backward` needs the fp32 log-sum-exp of every window (B, *space', L, h), +inf
            where a window holds no position; where it does not, `lse` is None. A call without gradients
            goes to an op of its own, ``qna::learned_query_<name>_inference``, which keeps none either.
    """

    def outputs(value, bias, window, keep):
        result = empty_like(value, window.out)
        if not keep:
            return result, None
        return result, value.new_empty((*result.shape[:-2], *bias.shape[-2:]), dtype=torch.float32)

    def run(keep, scores, value, bias, weight, window):
        scores, value = _maps(scores, value, bias)
        window = Window.from_flat(bias.shape[:-2], window)
        result, lse = outputs(value, bias, window, keep)
        if result.numel():
            forward(scores, value, bias, weight, result, lse, window)
        return (result, lse) if keep else result

    def fake(keep, scores, value, bias, weight, window):
        _, value = _maps(scores, value, bias)
        result, lse = outputs(value, bias, Window.from_flat(bias.shape[:-2], window), keep)
        return (result, lse) if keep else result

    def run_backward(grad, scores, value, bias, weight, lse, parameters, window):
        grads = _empty_grads(scores, value)
        if grad.numel():
            tables = backward(
                grad,
                *_maps(scores, value, bias),
                bias,
                weight,
                lse,
                _maps(grads[0] if scores is not None else None, grads[1], bias),
                Window.from_flat(bias.shape[:-2], window),
                parameters,
            )
        else:
            tables = [torch.zeros_like(t) if parameters and t is not None else None for t in (bias, weight)]
        return (*grads, *(bias.new_empty(0) if t is None else t.to(bias.dtype) for t in tables))

    def setup(ctx, inputs, output):
        *tensors, ctx.window = inputs
        ctx.save_for_backward(*tensors, output[1] if keeps_lse else None)
        if keeps_lse:
            ctx.mark_non_differentiable(output[1])
            ctx.set_materialize_grads(False)

    def differentiate(ctx, grad, *_):
        # read once only: activation checkpointing frees them as they are read
        scores, value, bias, weight, lse = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if grad is None or not any(needs[:4]):
            return (None,) * 5
        grads = op_backward(grad, scores, value, bias, weight, lse, needs[2] or needs[3], ctx.window)
        return (*(g if need else None for g, need in zip(grads, needs, strict=False)), None)

    def refuse(ctx, *grads):
        raise NotImplementedError(
            f"backend={name!r} of qna.ops.learned_query_attention has no second derivative: "
            'call it with backend="reference" to differentiate a gradient'
        )

    def define(suffix, keep):
        schema = f"({_INPUTS}, SymInt[] window) -> {'(Tensor, Tensor)' if keep else 'Tensor'}"
        return _define(
            f"learned_query_{name}{suffix}", schema, device, partial(run, keep), partial(fake, keep)
        )

    op = define("", keeps_lse)
    op_backward = _define(
        f"learned_query_{name}_backward",
        f"(Tensor grad, {_INPUTS}, Tensor? lse, bool parameters, SymInt[] window)"
        " -> (Tensor, Tensor, Tensor, Tensor)",
        device,
        run_backward,
        _fake_backward,
    )
    torch.library.register_autograd(op._qualified_op_name, differentiate, setup_context=setup, lib=_library)
    torch.library.register_autograd(op_backward._qualified_op_name, refuse, lib=_library)
    add_kernel(op, op_backward)
    alone = op
    if keeps_lse:
        alone = define("_inference", False)
        add_kernel(alone, op_backward)

    def attend(
        scores: Tensor | None, value: Tensor, bias: Tensor, weight: Tensor | None, window: Window
    ) -> Tensor:
        inputs = (scores, value, bias, weight)
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
            result = op(*inputs, window.flat)
            return result[0] if keeps_lse else result
        return alone(*inputs, window.flat)

    return attend


def declines_transforms() -> list[str]:
    """Why no kernel runs here, if this is inside torch.func: grad, vmap, jvp and what is made of them."""
    # torch.compile has transforms of its own, and cannot trace the question
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        return ["a torch.func transform is active, which only the reference can follow"]
    return []


def _define(name: str, schema: str, device: str, run: Callable, fake: Callable):
    _library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, run, device.upper())
    torch.library.register_fake(f"qna::{name}", fake, lib=_library)
    return getattr(torch.ops.qna, name)


def _maps(scores: Tensor | None, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return split(value, bias.shape[-2]) if scores is None else (scores, value)


def _empty_grads(scores: Tensor | None, value: Tensor) -> tuple[Tensor, Tensor]:
    if scores is None:
        return value.new_empty(0), value.new_empty(value.shape)
    return scores.new_empty(scores.shape), empty_like(value, value.shape[1:-2])


def _fake_backward(grad, scores, value, bias, weight, lse, parameters, window):
    tables = (t if parameters else None for t in (bias, weight))
    return (
        *_empty_grads(scores, value),
        *(bias.new_empty(0) if t is None else bias.new_empty(t.shape) for t in tables),
    )
