"""A kernel pair as a `torch.library` op: schema, fake, autograd, arithmetic, once for every op and backend.

An op says in a subclass of `KernelOp` which tensors it takes and what it allocates; each of its backends then
registers a forward and a backward that fill what was allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from qna.ops._shared.flops import count

# arguments as `KernelOp.register` lists them
Forward = Callable[..., None]
Backward = Callable[..., Sequence[Tensor | None]]
Maybe = Tensor | None

_library = torch.library.Library("qna", "FRAGMENT")


class KernelOp:
    """What the kernels of one op have in common: subclass it, and make one instance.

    Its ops take maps, parameters, constants and options, in this order. A name with "?" may be None. (Nothing
    is passed by keyword: `**_` tells the type checker that a subclass may name the arguments.)

    Attributes:
        name: what the names of its ops in torch begin with, ``qna::<name>_<backend>``.
        function: the public function, for error texts.
        maps: tensors whose gradients are as large as they are: allocated here, filled by the kernels.
        parameters: tensors whose gradients are sums over the maps: made by the kernels, in any dtype.
        constants: tensors that have no gradient.
        options: the other arguments as torch's schemas write them. One flat list of integers for a geometry,
            since each object costs a microsecond at each border between Python and torch.
        keeps_output: whether a backward reads the output of its forward.
        returns_kept: whether what a forward keeps is a result too, with a gradient of its own. The backends
            are then registered with ``keeps=True``, and their backward gets that gradient second.
    """

    name: str
    function: str
    maps: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    keeps_output = False
    returns_kept = False

    def __init__(self):
        self._tensors = (*self.maps, *self.parameters, *self.constants)
        # where the parameters begin, where the constants do, and where the tensors end
        self._first, self._number = len(self.maps), len(self._tensors)
        self._last = self._number - len(self.constants)

    def encode(self, *geometry: Any, **_: Any) -> tuple:
        """The options that hold what a caller of a backend gives after the tensors."""
        return geometry

    def decode(self, parameters: tuple[Maybe, ...], *options: Any, **_: Any) -> tuple:
        """What kernels are given for the options."""
        return options

    def parts(self, maps: tuple[Maybe, ...], parameters: tuple[Maybe, ...]) -> tuple[Maybe, ...]:
        """The maps, or their gradients, as kernels take them: views, where one buffer holds several."""
        return maps

    def empty_output(self, *arguments: Any, **_: Any) -> Tensor:
        """An uninitialised output for (*parts, *parameters, *constants, *geometry)."""
        raise NotImplementedError

    def empty_kept(self, output: Tensor, *arguments: Any, **_: Any) -> Tensor:
        """Uninitialised numbers that a forward keeps for a backward, where a backend's pair wants some."""
        raise NotImplementedError

    def empty_grads(self, *maps: Any, **_: Any) -> tuple[Maybe, ...]:
        """Uninitialised gradients of the maps, None of those that are not given."""
        return tuple([None if t is None else torch.empty_like(t) for t in maps])

    def forward_flops(self, *arguments: Any, **_: Any) -> int:
        """FLOPs of a forward for (*parts, *parameters, *constants, *geometry), two per multiply-add."""
        raise NotImplementedError

    def backward_flops(self, *arguments: Any, **_: Any) -> int:
        """FLOPs of a backward, of the same arguments."""
        raise NotImplementedError

    def register(
        self, backend: str, forward: Forward, backward: Backward, *, device: str, keeps: bool
    ) -> Callable[..., Any]:
        """Register ``qna::<name>_<backend>`` and its backward; return the function that a `Backend` runs.

        That function takes maps, parameters and constants as the ops do, then what `encode` does; with
        ``return_kept=True`` it returns what was kept as well, where the op `returns_kept`.

        Args:
            backend: its name.
            forward: (*parts, *parameters, *constants, output, kept, *geometry): fills `output`, and `kept`
                unless it is None. It is not called where the output is empty.
            backward: (grad, [grad_kept,] *parts, *parameters, *constants, [output,] kept, grads, *geometry,
                wanted) -> gradients of the parameters, None where there is none or `wanted` is False; fills
                `grads`, the parts of the maps' gradients.
            device: type of the device whose addresses the kernels read; on others torch refuses the ops, also
                those of a program that was exported elsewhere.
            keeps: whether `backward` needs what `empty_kept` allocates; where it does not, `kept` is None. A
                call without gradients goes to an op of its own, ``qna::<name>_<backend>_inference``, which
                keeps none either.
        """
        name, number = f"{self.name}_{backend}", self._number
        inputs = ", ".join(map(_schema, self._tensors))
        options = "".join(f", {option}" for option in self.options)

        def define(suffix: str, keep: bool) -> Any:
            schema = f"({inputs}{options}) -> {'(Tensor, Tensor)' if keep else 'Tensor'}"
            run, fake = partial(self._run, forward, keep), partial(self._run, None, keep)
            op = _define(name + suffix, schema, device, run, fake)
            count(op, self._forward_flops)
            return op

        saved = ("output",) * self.keeps_output
        upstream = ["Tensor grad", *("Tensor grad_kept",) * self.returns_kept]
        reads = ", ".join([*upstream, inputs, *map(_schema, saved), "Tensor? kept", "bool wanted"])
        grads = ", ".join(["Tensor"] * len((*self.maps, *self.parameters)))
        op = define("", keeps)
        op_backward = _define(
            f"{name}_backward",
            f"({reads}{options}) -> ({grads})",
            device,
            partial(self._run_backward, backward),
            partial(self._run_backward, None),
        )
        count(op_backward, self._backward_flops)
        self._differentiate(op, op_backward, backend, keeps)
        alone = define("_inference", False) if keeps else op

        def attend(*arguments: Any, return_kept: bool = False) -> Any:
            given, options = arguments[:number], self.encode(*arguments[number:])
            if return_kept:
                return op(*given, *options)
            if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given):
                result = op(*given, *options)
                return result[0] if keeps else result
            return alone(*given, *options)

        return attend

    def _arguments(self, tensors: tuple[Maybe, ...], options: tuple) -> tuple[tuple, tuple]:
        """Parts, parameters and constants; and the geometry."""
        parameters = tensors[self._first : self._last]
        parts = self.parts(tensors[: self._first], parameters)
        return parts + tensors[self._first :], self.decode(parameters, *options)

    def _run(self, forward: Forward | None, keep: bool, *arguments: Any) -> Any:
        """A forward; of fake tensors, where there is no kernel, its allocations."""
        given, geometry = self._arguments(arguments[: self._number], arguments[self._number :])
        result = self.empty_output(*given, *geometry)
        kept = self.empty_kept(result, *given, *geometry) if keep else None
        if forward is not None and result.numel():
            forward(*given, result, kept, *geometry)
        return (result, kept) if keep else result

    def _run_backward(
        self, backward: Backward | None, grad: Tensor, *arguments: Any
    ) -> tuple[Tensor, ...] | Tensor:
        """A backward, or its allocations; an empty tensor stands for a gradient that there is not."""
        of_kept, arguments = self._upstream(arguments)
        end = self._number + self.keeps_output + 1
        tensors, saved = arguments[: self._number], arguments[self._number : end]
        wanted, options = arguments[end], arguments[end + 1 :]
        parameters = tensors[self._first : self._last]
        grads = self.empty_grads(*tensors[: self._first])
        if backward is None:
            sums = [t.new_empty(t.shape) if wanted and t is not None else None for t in parameters]
        elif grad.numel():
            given, geometry = self._arguments(tensors, options)
            sums = backward(grad, *of_kept, *given, *saved, self.parts(grads, parameters), *geometry, wanted)
        else:
            sums = [torch.zeros_like(t) if wanted and t is not None else None for t in parameters]
        first, *others = (
            *(grad.new_empty(0) if g is None else g for g in grads),
            *(
                grad.new_empty(0) if g is None or t is None else g.to(t.dtype)
                for g, t in zip(sums, parameters, strict=True)
            ),
        )
        return (first, *others) if others else first  # as torch has it of schemas with one tensor

    def _differentiate(self, op: Any, op_backward: Any, backend: str, keeps: bool) -> None:
        """Make `op_backward` the derivative of `op`, and refuse that of `op_backward`."""
        first, last, number = self._first, self._last, self._number

        def setup(ctx: Any, inputs: tuple, output: Any) -> None:
            ctx.options = inputs[number:]
            result, kept = output if keeps else (output, None)
            ctx.save_for_backward(*inputs[:number], *((result,) if self.keeps_output else ()), kept)
            if keeps and not self.returns_kept:
                ctx.mark_non_differentiable(kept)
                ctx.set_materialize_grads(False)

        def differentiate(ctx: Any, grad: Tensor | None, *of_kept: Tensor | None) -> tuple[Maybe, ...]:
            needs = ctx.needs_input_grad
            if any(needs[last:]):
                raise NotImplementedError(
                    f"backend={backend!r} of {self.function} has no gradient of "
                    f"{' or '.join(t.rstrip('?') for t in self.constants)}: call it with "
                    'backend="reference"'
                )
            # read once only: activation checkpointing frees them as they are read
            tensors = ctx.saved_tensors
            of_kept = of_kept[: self.returns_kept]
            if grad is None or not any(needs):
                return (None,) * len(needs)
            grads = op_backward(grad, *of_kept, *tensors, any(needs[first:last]), *ctx.options)
            grads = grads if last > 1 else (grads,)
            found = [g if need else None for g, need in zip(grads, needs, strict=False)]
            return (*found, *(None,) * (len(needs) - last))

        def refuse(ctx: Any, *grads: Tensor) -> None:
            raise NotImplementedError(
                f"backend={backend!r} of {self.function} has no second derivative: "
                'call it with backend="reference" to differentiate a gradient'
            )

        register = partial(torch.library.register_autograd, lib=_library)
        register(op._qualified_op_name, differentiate, setup_context=setup)
        register(op_backward._qualified_op_name, refuse)

    def _forward_flops(self, *arguments: Any, out_val: Any = None) -> int:
        given, geometry = self._arguments(arguments[: self._number], arguments[self._number :])
        return self.forward_flops(*given, *geometry)

    def _upstream(self, arguments: tuple) -> tuple[tuple, tuple]:
        """The gradient of what is kept, where it has one, and what follows it."""
        return arguments[: self.returns_kept], arguments[self.returns_kept :]

    def _backward_flops(self, grad: Tensor, *arguments: Any, out_val: Any = None) -> int:
        _, arguments = self._upstream(arguments)
        options = arguments[self._number + self.keeps_output + 2 :]
        given, geometry = self._arguments(arguments[: self._number], options)
        return self.backward_flops(*given, *geometry)


def _schema(name: str) -> str:
    return f"Tensor? {name[:-1]}" if name.endswith("?") else f"Tensor {name}"


def _define(name: str, schema: str, device: str, run: Callable, fake: Callable) -> Any:
    _library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, run, device.upper())
    torch.library.register_fake(f"qna::{name}", fake, lib=_library)
    return getattr(torch.ops.qna, name)
