"""Random configurations of the CPU kernels against the definition in extended precision, by instruction set.

A failure names its seed: `python -m tests.ops.learned_query.test_fuzz SEED` runs it again.
"""

import itertools
import math
import random
import sys

import numpy as np
import pytest
import torch

from qna.ops import learned_query_attention, packed_learned_query_attention
from qna.ops.learned_query import cpu
from tests.ops.learned_query import extended

pytestmark = [
    pytest.mark.skipif(bool(cpu.missing()), reason="; ".join(cpu.missing()) or "there"),
    pytest.mark.skipif(np.finfo(extended.REAL).eps > 2.0**-60, reason="no long double beyond fp64 here"),
]

SETS = cpu._native.instruction_sets() if cpu._native else []
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
NAMES = ("out", "scores", "value", "bias", "weight")
LAYOUTS = ("contiguous", "heads fastest", "one row", "strided", "packed")
CHUNK = 100


class Config:
    """One call, drawn from a seed: its arguments, its numbers, and what is asked to have a gradient."""

    def __init__(self, seed):
        draw = self.draw = random.Random(seed)
        self.random = torch.Generator().manual_seed(seed)
        self.dtype = draw.choice(DTYPES)
        self.arithmetic = torch.float64 if self.dtype == torch.float64 else torch.float32
        self.queries, self.heads, self.depth = draw.randint(1, 5), draw.randint(1, 9), draw.randint(1, 40)
        self.batch = draw.choice((1, 1, 2))
        self.layout = draw.choice(LAYOUTS)
        while not self._draw_window():
            pass
        self._draw_factor(random.Random(f"factor {seed}"))
        # tables may be wider than half-precision maps
        self.table_dtype = draw.choice((self.dtype, self.arithmetic))
        self.needs = [draw.random() < 0.7 for _ in range(4)]
        if not any(self.needs):
            self.needs = [True] * 4
        self._draw_numbers()
        if draw.random() < 0.5:
            self._push_out()
        self.at = extended.places(self.size, self.kernel, **self.window)
        self.seen = (self.at >= 0).any(1)  # windows that hold a position

    def _draw_window(self):
        """Whether a window fits and the oracle has little enough to do."""
        draw = self.draw
        axes = draw.choice((1, 2, 2, 3))
        size, kernel, stride, dilation = (
            tuple(draw.randint(1, most) for _ in range(axes)) for most in (12, 9, 4, 4)
        )
        span = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = draw.choice(("same", draw.randint(0, max(span) + 1)))
        if padding != "same" and min(n + 2 * padding - s for n, s in zip(size, span, strict=True)) < 1:
            return False
        before = padding if padding == "same" else (padding,) * axes
        self.window = {"stride": stride, "padding": before, "dilation": dilation}
        self.size, self.kernel = size, kernel
        windows = math.prod(
            -(-n // t) if padding == "same" else (n + 2 * padding - s - 1) // t + 1
            for n, s, t in zip(size, span, stride, strict=True)
        )
        meetings = windows * math.prod(kernel)
        return meetings <= 2000 and meetings * self.heads * (4 * self.queries + self.depth) <= 60_000

    def _draw_factor(self, draw):
        """One call in three has several outputs to a window, each with so many queries."""
        self.factor, self.group = (1,) * len(self.size), self.queries
        if draw.random() < 1 / 3:
            self.factor = tuple(draw.choice((1, 2, 3)) for _ in self.size)
            self.queries *= math.prod(self.factor)

    def _push_out(self):
        """Pad one axis so far that whole tiles of windows lie outside the map, if these are not too many."""
        stride, padding, dilation = self.window.values()
        span = [d * (k - 1) for d, k in zip(dilation, self.kernel, strict=True)]
        far = list(span if padding == "same" else padding)
        axis = self.draw.randrange(len(far))
        far[axis] += stride[axis] * self.draw.randint(100, 1000)
        windows = math.prod(
            (n + 2 * p - s - 1) // t + 1 for n, p, s, t in zip(self.size, far, span, stride, strict=True)
        )
        if windows * max(math.prod(self.kernel), self.heads * self.depth // 4) <= 30_000:
            self.window["padding"] = tuple(far)

    def _draw_numbers(self):
        draw = self.draw
        maps, tables = (self.batch, *self.size), (*self.kernel, self.queries, self.heads)
        self.scores = self._logits((*maps, self.queries, self.heads), self.dtype, masks=True)
        self.value = self._normal((*maps, self.heads, self.depth)).to(self.dtype)
        if draw.random() < 0.6:
            self.bias = self._normal(tables).to(self.table_dtype)
        else:
            self.bias = self._logits(tables, self.table_dtype, masks=False)
        self.weight = self._normal(tables).to(self.table_dtype) if draw.random() < 0.8 else None

    def _normal(self, shape):
        return torch.randn(shape, generator=self.random, dtype=torch.float64)

    def _logits(self, shape, dtype, *, masks):
        """Scores or biases: ordinary, spread, far apart, up to the largest number, masked."""
        draw, most = self.draw, torch.finfo(dtype).max
        x = self._normal(shape)
        some = torch.rand(shape, generator=self.random, dtype=torch.float64) < draw.choice((0.05, 0.5))
        unit = 2.0 ** draw.randint(3, int(math.log2(most)) - 2)
        kind = draw.choice(
            ("spread", "spread", "units", "constant", "some", "lines", "masked" if masks else "spread")
        )
        if kind == "spread":
            x = x * draw.choice((1, 10, 30, 100, 300, 300, 1000, 3e4))
        elif kind == "units":
            x = x + unit * torch.randint(-3, 4, shape, generator=self.random, dtype=x.dtype)
        elif kind == "constant":
            x = torch.full(shape, draw.choice((3, 3e6, -3e6, unit, -unit, most, -most)), dtype=x.dtype)
        elif kind == "some":
            x[some] += draw.choice((40, -40, 100, -100, 1000, -1000, 3e6, unit, -unit))
        elif kind == "lines":
            x += draw.choice((10, 30, 80, 700)) * self._normal((*shape[:-3], 1, 1, 1))
        else:
            x[some if draw.random() < 0.8 else ...] = -math.inf
        masked = x == -math.inf
        x = x.clamp(-most, most).to(dtype)
        return torch.where(masked, -math.inf, x)

    def run(self):
        """Output, its upstream gradient, and gradients by name, those that are asked for."""
        leaves = [t if t is None else t.clone() for t in (self.scores, self.value, self.bias, self.weight)]
        if self.layout == "packed":
            packed = torch.cat([leaves[1].transpose(-1, -2), leaves[0]], -2)
            leaves = [packed, *leaves[2:]]
            needs, op = [self.needs[0] or self.needs[1], *self.needs[2:]], packed_learned_query_attention
        else:
            leaves[:2], needs, op = self._lay_out(*leaves[:2]), self.needs, learned_query_attention
        wanted = [t.requires_grad_() for t, need in zip(leaves, needs, strict=True) if need and t is not None]
        out = op(*leaves, **self.window, factor=self.factor, backend="cpu")
        g = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(
            out.dtype
        )
        if self.heads == 3:  # as `out.sum()` gives it
            g = torch.ones((), dtype=out.dtype).expand(out.shape)
        grads = dict.fromkeys(NAMES[1:])
        for t, grad in zip(wanted, torch.autograd.grad(out, wanted, g) if wanted else (), strict=True):
            if t is leaves[-1]:
                grads["weight"] = grad
            elif t is leaves[-2]:
                grads["bias"] = grad
            elif t is leaves[0] and self.layout == "packed":
                value, grads["scores"] = grad.split((self.depth, self.queries), -2)
                grads["value"] = value.transpose(-1, -2)
            else:
                grads["scores" if t is leaves[0] else "value"] = grad
        return {"out": out.detach(), **grads}, g

    def _lay_out(self, scores, value):
        if self.layout == "heads fastest":
            value = value.transpose(-1, -2).contiguous().transpose(-1, -2)
        elif self.layout == "one row":
            row = torch.cat([value.transpose(-1, -2).flatten(-2), scores.flatten(-2)], -1)
            split = self.heads * self.depth
            value = row[..., :split].unflatten(-1, (self.depth, self.heads)).transpose(-1, -2)
            scores = row[..., split:].unflatten(-1, scores.shape[-2:])
        elif self.layout == "strided":
            scores, value = (torch.stack([t, t], -1)[..., 0] for t in (scores, value))
        return scores, value

    def expected(self, upstream):
        """(results, magnitudes) by name."""
        weight = torch.ones_like(self.bias) if self.weight is None else self.weight
        bias, weight = (_real(t).reshape(-1, self.queries, self.heads) for t in (self.bias, weight))
        kinds = [
            {name: np.zeros(shape, extended.REAL) for name, shape in zip(NAMES, shapes, strict=True)}
            for shapes in 2 * [[upstream.shape, *(t.shape for t in (self.scores, self.value, bias, weight))]]
        ]
        for b, (number, places) in itertools.product(range(self.batch), enumerate(self._places())):
            group = slice(number * self.group, (number + 1) * self.group)
            at = (b, *places)
            scores, value, g = (
                _real(t).reshape(-1, *t.shape[-2:])
                for t in (self.scores[b][..., group, :], self.value[b], upstream[at])
            )
            call = extended.Call(
                scores, value, bias[:, group], weight[:, group], g[self.seen], self.at[self.seen]
            )
            found = extended.attend(call, torch.finfo(self.arithmetic).eps)
            for kind, terms in zip(kinds, found, strict=True):
                out = np.zeros(g.shape, extended.REAL)
                out[self.seen] = terms.out
                kind["out"][at] = out.reshape(upstream[at].shape)
                kind["scores"][b][..., group, :] = terms.scores.reshape(*self.size, -1, self.heads)
                # all outputs of a window see the same values
                kind["value"][b] += terms.value.reshape(self.value[b].shape)
                kind["bias"][:, group] += terms.bias
                kind["weight"][:, group] += terms.weight
        return kinds

    def _places(self):
        """The places of each of a window's outputs, for all windows."""
        for place in itertools.product(*map(range, self.factor)):
            yield tuple(slice(r, None, f) for r, f in zip(place, self.factor, strict=True))

    def limits(self, results, magnitudes):
        """Errors that arithmetic explains, number by number.

        A sum of n terms is wrong by about sqrt(n) roundings of the magnitudes in it; each term brings its
        own (two exponentials, an inverse, a few products). A share below eps of its window counts as eps.
        Half precision is computed in fp32 and rounded once.
        """
        taps = math.prod(self.kernel)
        windows = self.batch * self.seen.sum()
        terms = {
            "out": taps * self.group,
            "scores": taps * self.depth,  # channels, and the taps of the inner sum
            "value": taps * self.queries,
            "bias": windows * taps * self.depth,
            "weight": windows * self.depth,
        }
        limits = {}
        for name in NAMES:
            stored = torch.finfo(self.table_dtype if name in ("bias", "weight") else self.dtype)
            limits[name] = 4 * torch.finfo(self.arithmetic).eps * math.sqrt(terms[name]) * magnitudes[name]
            limits[name] += stored.smallest_normal * stored.eps + stored.eps / 2 * abs(results[name])
        return limits

    def __str__(self):
        dtypes = " and ".join(str(d).removeprefix("torch.") for d in (self.dtype, self.table_dtype))
        return (
            f"size {self.size}, kernel {self.kernel}, {self.window}, factor {self.factor}, "
            f"batch {self.batch}, L {self.queries}, h {self.heads}, d {self.depth}, {dtypes}, {self.layout}, "
            f"scores {_range(self.scores)}, bias {_range(self.bias)}, gradients {self.needs}"
        )


def _real(t):
    return t.double().numpy().astype(extended.REAL)


def _range(t):
    return f"{float(t.min()):.3g} .. {float(t.max()):.3g}"


def faults(seed):
    """What is wrong with the call that `seed` makes, in sentences."""
    config, found, exact = Config(seed), [], None
    for level in SETS:
        cpu._native.use(level)
        results, upstream = config.run()
        if exact is None:
            exact, magnitudes = config.expected(upstream)
            limits = config.limits(exact, magnitudes)
        for name, result in results.items():
            if result is None:
                continue
            error = abs(_real(result).reshape(exact[name].shape) - exact[name])
            excess = np.where(np.isfinite(error), error, np.inf) / limits[name]
            if (excess > 1).any():
                found.append(f"{name} on {level}: {float(excess.max()):.3g} times the error that it may have")
    return [f"seed {seed} ({config}): {'; '.join(found)}"] if found else []


def check(seeds):
    before = cpu.instruction_set()
    try:
        found = [fault for seed in seeds for fault in faults(seed)]
    finally:
        cpu._native.use(before)
    assert not found, f"{len(found)} of {len(seeds)} are wrong:\n" + "\n".join(found)


@pytest.fixture(params=SETS)
def instruction_set(request):
    before = cpu.instruction_set()
    cpu._native.use(request.param)
    yield request.param
    cpu._native.use(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("where", ["outside the windows", "between them"])
def test_a_score_out_of_range_that_no_window_sees(where, dtype, instruction_set):
    # its exponential is NaN, which must not meet the 0 of what is outside the map or past the line
    if where == "between them":
        width, taps, window, seen = 12, 3, {"stride": 4, "dilation": 3, "padding": 0}, [0, 3, 4, 6, 7, 10]
    else:
        width, taps, window, seen = 1, 2, {"dilation": 2}, []
    scores = torch.full((1, width, 1, 1), 3e4 if dtype == torch.float16 else 3e12, dtype=dtype)
    fused = instruction_set != "baseline"
    scores[:, seen] = 2.0 ** ((40 if fused else 19) if dtype == torch.float64 else 21 if fused else 14)
    if dtype == torch.float16:
        scores[:, seen] = 2.0**14
    leaves = [scores, torch.ones_like(scores), torch.zeros(taps, 1, 1, dtype=dtype)]
    leaves = [t.requires_grad_() for t in leaves]
    out = learned_query_attention(*leaves, **window, backend="cpu")
    of_scores, of_value, of_bias = torch.autograd.grad(out.sum(), leaves)
    torch.testing.assert_close(out, torch.full_like(out, 1 if seen else 0))
    for gradient in (of_scores, of_bias):  # of equal scores and values
        torch.testing.assert_close(gradient, torch.zeros_like(gradient))
    expected = torch.zeros(1, width, 1, 1)
    expected[:, seen] = 1 / 3
    torch.testing.assert_close(of_value, expected.to(dtype))


def test_a_bias_that_vanishes_beside_the_largest_meets_a_score_far_above_the_first_line(instruction_set):
    # 2^-127 of the bias, 2^32 of the score, in a window at 2^-80: a share of 2^-15 all the same
    scores = torch.zeros(1, 6, 12, 1, 1)
    scores[:, 3:], scores[:, 3, 6] = -55.3, 22.15
    bias = torch.zeros(3, 3, 1, 1)
    bias[0, 0] = -88.2
    value = torch.zeros(1, 6, 12, 1, 1)
    value[:, 3, 6] = 1
    out = learned_query_attention(scores, value, bias, padding=1, backend="cpu")[0, 4, 7]
    share = math.exp(float(scores[0, 3, 6]) + float(bias[0, 0]) - float(scores[0, 3, 0]))
    assert float(out) == pytest.approx(share / (8 + share), abs=2.0**-24)


@pytest.mark.parametrize("first", range(0, 1000, CHUNK))
def test_a_thousand_random_calls(first):
    check(range(first, first + CHUNK))


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 11_000, CHUNK))
def test_ten_thousand_random_calls(first):
    check(range(first, first + CHUNK))


if __name__ == "__main__":
    check([int(seed) for seed in sys.argv[1:]])
