"""Line drawings of things: edges of what is seen from a side, made of points on the surface."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qna.labs.sketch_clouds.things import Cloud

SIDE = 32
# samples per thing, enough that no pixel of a surface stays empty
DENSE = 16000
# from the front and a little from above and aside
_TURN, _LIFT = 0.6, 0.45
# depth between neighbours, and cosine of their normals, from which there is a line between them
_STEP, _CREASE = 0.25, 0.75


def sketch(cloud: Cloud) -> Tensor:
    """Lines (1, 32, 32), 1 where there is one: borders, steps in depth, and creases of the surface."""
    turn = torch.tensor(
        [[math.cos(_TURN), -math.sin(_TURN), 0], [math.sin(_TURN), math.cos(_TURN), 0], [0, 0, 1]]
    )
    lift = torch.tensor(
        [[1, 0, 0], [0, math.cos(_LIFT), -math.sin(_LIFT)], [0, math.sin(_LIFT), math.cos(_LIFT)]]
    )
    view = lift @ turn
    seen, normals = cloud.points @ view.T, cloud.normals @ view.T
    column = ((seen[:, 0] / 1.6 + 1) / 2 * SIDE).long().clamp(0, SIDE - 1)
    row = ((1 - seen[:, 2] / 1.6) / 2 * SIDE).long().clamp(0, SIDE - 1)
    # the nearest point of a pixel is written last
    order = seen[:, 1].argsort(descending=True, stable=True)
    pixel = (row * SIDE + column)[order]
    last = torch.full((SIDE * SIDE,), -1).scatter_reduce(0, pixel, torch.arange(len(order)), "amax")
    nearest = torch.where(last >= 0, order[last.clamp(min=0)], -1)
    there = (nearest >= 0).view(SIDE, SIDE)
    depth = torch.where(there, seen[nearest, 1].view(SIDE, SIDE), 9.0)
    facing = normals[nearest].view(SIDE, SIDE, 3)
    lines = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for axis in (0, 1):
        a, b = (slice(None, -1), slice(1, None))
        here, beside = (
            ((a, slice(None)), (b, slice(None))) if axis == 0 else ((slice(None), a), (slice(None), b))
        )
        step = (depth[here] - depth[beside]).abs() > _STEP
        crease = (facing[here] * facing[beside]).sum(-1) < _CREASE
        edge = (there[here] | there[beside]) & (step | crease)
        # the nearer side has the line
        near = edge & (depth[here] <= depth[beside])
        lines[here] |= near
        lines[beside] |= edge & ~near
    return (lines & there).float()[None]
