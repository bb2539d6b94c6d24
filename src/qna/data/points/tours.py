"""Shortest tours of a few cities, exactly: dynamic programming over subsets (Held and Karp, 1962)."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from qna._core.errors import InvalidInput

# 2^11 subsets: twice the time and memory for each further city
MOST_CITIES = 12


def shortest_tours(points: Tensor) -> Tensor:
    """The shortest closed tours of all cities, from city 0 towards the lower-numbered of its neighbours.

    ``best(S, j) = min_{k in S - j} best(S - j, k) + d(k, j)`` is the shortest way from city 0 through all of
    S to j: O(2^N N^2) time for each sample. A tour has two directions; the paper names none, and this one is
    our choice.

    Args:
        points: (B, N, 2), N from 1 to `MOST_CITIES`.

    Returns:
        int64 (B, N).

    Raises:
        InvalidInput: more cities than `MOST_CITIES`, or none.
    """
    if points.ndim != 3 or points.shape[2] != 2 or not 1 <= points.shape[1] <= MOST_CITIES:
        raise InvalidInput(
            f"tours are exact for 1 to {MOST_CITIES} cities: points must be (B, N, 2), got "
            f"{tuple(points.shape)}"
        )
    batch, cities = points.shape[:2]
    at = points.double()
    apart = (at[:, :, None] - at[:, None]).norm(dim=-1)
    if cities < 3:
        return torch.arange(cities).expand(batch, cities).clone()
    others = cities - 1
    # of cities 1 .. N - 1, by the bits of the subset
    best = torch.full((2**others, others, batch), torch.inf, dtype=torch.float64)
    before = torch.zeros((2**others, others, batch), dtype=torch.int64)
    for j in range(others):
        best[1 << j, j] = apart[:, 0, j + 1]
    steps = apart[:, 1:, 1:].permute(1, 2, 0)
    for size in range(2, others + 1):
        for j in range(others):
            rest = combinations([k for k in range(others) if k != j], size - 1)
            subsets = torch.tensor([sum(1 << k for k in chosen) for chosen in rest])
            # ways that would end outside the subset are infinitely long
            best[subsets | 1 << j, j], before[subsets | 1 << j, j] = (best[subsets] + steps[:, j]).min(1)
    rows = torch.arange(batch)
    left = torch.full((batch,), 2**others - 1)
    last = (best[-1] + apart[:, 1:, 0].T).argmin(0)
    back = []
    for _ in range(others):
        back.append(last + 1)
        last, left = before[left, last, rows], left & ~(1 << last)
    tours = torch.stack([torch.zeros(batch, dtype=torch.int64), *back[::-1]], 1)
    turned = torch.cat([tours[:, :1], tours[:, 1:].flip(1)], 1)
    return torch.where((tours[:, 1] < tours[:, -1])[:, None], tours, turned)


def tour_lengths(points: Tensor, tours: Tensor) -> Tensor:
    """Lengths of closed tours: points (B, N, 2), tours int64 (B, T) -> (B,)."""
    at = points.double().gather(1, tours[..., None].expand(-1, -1, 2))
    return (at - at.roll(-1, 1)).norm(dim=-1).sum(1)
