"""Learned-query attention on the CPU: the fused C++ kernels as `torch.library` ops, with their limits."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from qna.ops.learned_query.flops import add_kernel
from qna.ops.learned_query.window import Window

_native: Any = None
_why = ""
try:
    _native = import_module("qna.ops.learned_query._native")
except ImportError as error:
    _why = str(error)

_STORAGE = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}

_WINDOW = "SymInt[] stride, SymInt[] dilation, SymInt[] before, SymInt[] out"
_library = torch.library.Library("qna", "FRAGMENT")
_library.define(
    f"learned_query_cpu(Tensor scores, Tensor value, Tensor bias, Tensor? weight, {_WINDOW}) -> Tensor"
)
_library.define(
    "learned_query_cpu_backward(Tensor grad, Tensor scores, Tensor value, Tensor bias, Tensor? weight, "
    f"{_WINDOW}) -> (Tensor, Tensor, Tensor, Tensor)"
)


def missing() -> list[str]:
    """What this machine lacks for the kernels."""
    if _native is not None:
        return []
    return [
        f"the compiled kernels are not in this installation ({_why}); with a C++17 compiler (g++ or "
        "clang++), install qna again: pip install --force-reinstall --no-deps --no-cache-dir qna"
    ]


def declines(inputs: Any) -> list[str]:
    """Why the kernels cannot take these inputs."""
    reasons = []
    if inputs.device.type != "cpu":
        reasons.append(f"tensors are on {inputs.device}, the kernels run on cpu")
    if inputs.value.dtype not in _STORAGE:
        names = ", ".join(str(d).removeprefix("torch.") for d in _STORAGE)
        reasons.append(f"dtype {str(inputs.value.dtype).removeprefix('torch.')} is not one of {names}")
    return reasons


def instruction_set() -> str | None:
    """Instruction set that the kernels use, None where there are no kernels."""
    return _native.in_use() if _native is not None else None


def attend(scores: Tensor, value: Tensor, bias: Tensor, weight: Tensor | None, window: Window) -> Tensor:
    """Attend every window; shapes as in `qna.ops.learned_query_attention`."""
    dtype = torch.promote_types(value.dtype, torch.float32)
    return torch.ops.qna.learned_query_cpu(
        scores,
        value,
        bias.to(dtype),
        None if weight is None else weight.to(dtype),
        window.stride,
        window.dilation,
        window.before,
        window.out,
    )


def _forward(scores, value, bias, weight, *window):
    result = _like(value, (value.shape[0], *window[-1], *value.shape[-2:]))
    if result.numel():
        scores, bias, weight = _dense(scores), bias.contiguous(), _contiguous(weight)
        _native.forward(
            _STORAGE[value.dtype],
            torch.get_num_threads(),
            [
                *_geometry(scores, value, bias, window),
                *_map(scores, 3),
                *_map(value, 2),
                *_map(result, 2),
                bias.data_ptr(),
                0 if weight is None else weight.data_ptr(),
            ],
        )
    return result


def _backward(grad, scores, value, bias, weight, *window):
    grads = _backward_fake(grad, scores, value, bias, weight, *window)
    if not grad.numel():
        return tuple(g.zero_() for g in grads)
    scores, bias, weight = _dense(scores), bias.contiguous(), _contiguous(weight)
    grad_scores, grad_value, grad_bias, grad_weight = grads
    _native.backward(
        _STORAGE[value.dtype],
        torch.get_num_threads(),
        [
            *_geometry(scores, value, bias, window),
            *_map(scores, 3),
            *_map(grad_scores, 3),
            *_map(value, 2),
            *_map(grad, 2),
            *_map(grad_value, 2),
            bias.data_ptr(),
            0 if weight is None else weight.data_ptr(),
            grad_bias.data_ptr(),
            0 if weight is None else grad_weight.data_ptr(),
        ],
    )
    return grads


def _like(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uninitialised map in the layout of `value`: the heads are the fastest axis if they are so there."""
    *outer, heads, depth = shape
    if heads > 1 and value.stride(-2) == 1 and value.stride(-1) == heads:
        return value.new_empty(*outer, depth, heads).transpose(-1, -2)
    return value.new_empty(shape)


def _forward_fake(scores, value, bias, weight, *window):
    return _like(value, (value.shape[0], *window[-1], *value.shape[-2:]))


def _backward_fake(grad, scores, value, bias, weight, *window):
    return (
        scores.new_empty(scores.shape),
        _like(value, tuple(value.shape)),
        bias.new_empty(bias.shape),
        bias.new_empty(0 if weight is None else weight.shape),
    )


def _dense(scores: Tensor) -> Tensor:
    """`scores` with its last two axes next to each other in memory; a copy only where they are not."""
    queries, heads = scores.shape[-2:]
    if (heads == 1 or scores.stride(-1) == 1) and (queries == 1 or scores.stride(-2) == heads):
        return scores
    return scores.contiguous()


def _contiguous(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.contiguous()


def _geometry(scores, value, bias, window) -> list[int]:
    stride, dilation, before, out = window
    lead = 3 - len(stride)
    ones, zeros = [1] * lead, [0] * lead
    return [
        scores.shape[0],
        scores.shape[-2],
        scores.shape[-1],
        value.shape[-1],
        *(ones + list(scores.shape[1:-2])),
        *(ones + list(out)),
        *(ones + list(bias.shape[:-2])),
        *(ones + list(stride)),
        *(ones + list(dilation)),
        *(zeros + list(before)),
    ]


def _map(t: Tensor, skip: int) -> list[int]:
    """Address and strides of a map: batch, three space axes, and for values the head and the channel."""
    strides = t.stride()
    inner = [] if skip == 3 else list(strides[-2:])
    return [t.data_ptr(), strides[0], *[0] * (6 - t.ndim), *strides[1:-2], *inner]


def _setup_context(ctx, inputs, output):
    scores, value, bias, weight, *ctx.window = inputs
    ctx.save_for_backward(scores, value, bias, weight)


def _differentiate(ctx, grad):
    saved = ctx.saved_tensors  # once only: activation checkpointing frees them as they are read
    *grads, grad_weight = torch.ops.qna.learned_query_cpu_backward(grad, *saved, *ctx.window)
    return (*grads, None if saved[3] is None else grad_weight, None, None, None, None)


def _refuse(ctx, *grads):
    raise RuntimeError(
        'backend="cpu" of qna.ops.learned_query_attention has no second derivatives; use backend="reference"'
    )


for _name, _run, _fake in (
    ("learned_query_cpu", _forward, _forward_fake),
    ("learned_query_cpu_backward", _backward, _backward_fake),
):
    _library.impl(_name, _run, "CPU")
    torch.library.register_fake(f"qna::{_name}", _fake, lib=_library)
torch.library.register_autograd(
    "qna::learned_query_cpu", _differentiate, setup_context=_setup_context, lib=_library
)
torch.library.register_autograd(
    "qna::learned_query_cpu_backward", _refuse, setup_context=lambda ctx, inputs, output: None, lib=_library
)
add_kernel(torch.ops.qna.learned_query_cpu, torch.ops.qna.learned_query_cpu_backward)
