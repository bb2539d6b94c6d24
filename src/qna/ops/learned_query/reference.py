"""Learned-query attention in plain torch: any dtype, device and size, twice differentiable. The oracle."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.ops._shared.window import Window
from qna.ops.learned_query.layout import interleave, unpack


def attend(
    scores: Tensor | None,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    window: Window,
    factor: tuple[int, ...],
) -> Tensor:
    """Attend every window; shapes as in `qna.ops.learned_query_attention`, or no scores and a packed value.

    A loop over the taps, each a strided view of the padded maps. Half precision is computed in fp32. Score
    and bias are added in one number: their sum must be finite, and what it rounds off is lost.
    """
    scores, value = unpack(scores, value, bias)
    dtype = torch.promote_types(value.dtype, torch.float32)
    margins = window.margins()
    # outside the map: e^-inf = 0 counts in neither sum
    s = F.pad(scores.to(dtype), [0, 0, 0, 0, *margins], value=float("-inf"))
    v = F.pad(value.to(dtype), [0, 0, 0, 0, *margins])
    b = bias.to(dtype)
    taps = [(tap, (slice(None), *place)) for tap, place in window.taps()]

    # detached: the softmax does not depend on the maximum that is subtracted
    top = s.new_full((), float("-inf"))
    for tap, place in taps:
        top = torch.maximum(top, s.detach()[place] + b.detach()[tap])
    top = torch.where(top == float("-inf"), 0, top)  # a window without any position in the map

    total = torch.zeros_like(top)
    for tap, place in taps:
        total = total + (s[place] + b[tap] - top).exp()
    total = torch.where(total == 0, 1, total)
    out = v.new_zeros(())
    for tap, place in taps:
        share = (s[place] + b[tap] - top).exp() / total
        if weight is not None:
            share = share * weight[tap].to(dtype)
        # one share for each sub-pixel of a window
        share = share.unflatten(-2, (math.prod(factor), -1)).sum(-2)
        out = out + share.unsqueeze(-1) * v[place].unsqueeze(-3)
    return interleave(out, factor).to(value.dtype)
