"""The CUDA backend: what it needs and declines, and the launches of a call."""

from __future__ import annotations

import torch
from torch import Tensor

from qna._core.backends import Backend
from qna.ops._shared.cuda import driver
from qna.ops._shared.cuda.driver import run
from qna.ops._shared.cuda.nvrtc import failure
from qna.ops._shared.window import Window
from qna.ops.learned_query.cuda.arguments import call
from qna.ops.learned_query.cuda.plan import STORED, Geometry
from qna.ops.learned_query.cuda.tiles import parts
from qna.ops.learned_query.inputs import Inputs
from qna.ops.learned_query.layout import dense, is_dense, parameter, unpack
from qna.ops.learned_query.library import OP

WINDOWS, QUERIES = (3, 5, 7), (1, 2, 4)
MOST = {"head_dim": 64}


def forward(
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    out: Tensor,
    kept: None,
    window: Window,
    factor: tuple[int, ...],
) -> None:
    """Fill the output."""
    scores, value = dense(scores, False), dense(value, True)
    bias, weight = bias.float().contiguous(), parameter(weight)
    to = _rows(out)
    geometry = Geometry(value, bias, window, (scores, value, to))
    made = call(window, scores, value=value, windows=to, bias=bias, weight=weight)
    run(geometry.launch("attend", made))
    if to is not out:
        out.copy_(to)


def backward(
    grad: Tensor,
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    kept: None,
    grads: tuple[Tensor, Tensor],
    window: Window,
    factor: tuple[int, ...],
    parameters: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Fill the gradients of scores and value; return those of bias and weight, None where not wanted."""
    grad, scores, value = dense(grad, True), dense(scores, False), dense(value, True)
    bias, weight = bias.float().contiguous(), parameter(weight)
    of_scores, of_value = dense(grads[0], False), _rows(grads[1])
    geometry = Geometry(value, bias, window, (grad, scores, value, of_scores, of_value))
    programs = geometry.programs()
    lse, inner = torch.empty(2, len(grad), *window.out, *bias.shape[-2:], device=value.device).unbind()
    partials = of_bias = of_weight = None
    if parameters:
        taps, (queries, heads) = window.kernel[0] ** 2, bias.shape[-2:]
        partials = torch.empty(programs, taps, 2, queries, heads, device=value.device)
        of_bias = torch.empty_like(bias)
        of_weight = None if weight is None else torch.empty_like(weight)
    made = call(
        window,
        scores,
        value=value,
        windows=grad,
        of_scores=of_scores,
        of_value=of_value,
        bias=bias,
        weight=weight,
        lse=lse,
        inner=inner,
        partials=partials,
        of_bias=of_bias,
        of_weight=of_weight,
    )
    made.programs = programs
    for kernel in ("sum_inside", "gather", *("add_up",) * parameters):
        run(geometry.launch(kernel, made))
    for whole, to in zip(grads, (of_scores, of_value), strict=True):
        if to is not whole:
            whole.copy_(to)
    return of_bias, of_weight


def _rows(out: Tensor) -> Tensor:
    """Where a kernel is to write (B, y, x, h, d): there, or in a map with the heads fastest."""
    h, d = out.shape[-2:]
    return out if is_dense(out, True) else out.new_empty((*out.shape[:-2], d, h)).transpose(-1, -2)


def declines(inputs: Inputs) -> list[str]:
    """Why these inputs are left to another backend, a failure to compile for them included."""
    w, reasons = inputs.window, []
    if w.kernel not in [(k, k) for k in WINDOWS]:
        reasons.append(f"kernel is {w.kernel}, needs one of {', '.join(f'({k}, {k})' for k in WINDOWS)}")
    for name, numbers in (("stride", w.stride), ("dilation", w.dilation), ("factor", inputs.factor)):
        if set(numbers) != {1}:
            reasons.append(f"{name} is {numbers}, needs 1 along every axis")
    if inputs.queries not in QUERIES:
        reasons.append(f"queries are {inputs.queries}, needs one of {QUERIES}")
    if inputs.head_dim <= MOST["head_dim"] and not parts(inputs.head_dim):
        reasons.append(f"head_dim is {inputs.head_dim}, needs at most 8, or 2, 4 or 8 times a number up to 8")
    # torch.compile cannot trace a compiler; what it records is compiled on the first call
    if reasons or torch.compiler.is_compiling() or inputs.device.type != "cuda" or driver.missing():
        return reasons
    return _uncompiled(inputs)


def _uncompiled(inputs: Inputs) -> list[str]:
    """Compile the kernels that these inputs need, on their first use; the compiler's words where it fails."""
    if inputs.dtype not in STORED or inputs.head_dim > MOST["head_dim"]:
        return []
    _, value = unpack(inputs.maps.get("scores"), inputs.value, inputs.bias)
    # rows as they are but for views that begin, or go on, at odd places
    geometry = Geometry(value, inputs.bias, inputs.window, ())
    kernels = ["attend"]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs.tensors):
        kernels += ["sum_inside", "gather", "add_up"]
    name = driver.architecture(inputs.device)
    return [f"it does not compile: {text}" for k in kernels if (text := failure(geometry.program(k), name))]


BACKEND = Backend(
    "cuda",
    OP.register("cuda", forward, backward, device="cuda", keeps=False),
    device="cuda",
    dtypes=tuple(STORED),
    most=MOST,
    opaque=True,
    missing=driver.missing,
    declines=declines,
)
