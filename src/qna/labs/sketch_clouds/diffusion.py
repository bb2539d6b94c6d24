"""Diffusion in two stages by schedulers of diffusers: points first, then colours that never move them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qna._core.errors import require
from qna.labs.sketch_clouds.networks import PointDenoiser, Told

# as in the frame that the paper builds on (alexzhou907/PVD at 9747265)
STEPS, FIRST_BETA, LAST_BETA = 1000, 1e-4, 0.02
# coordinates are drawn at this many times their size, so that they vary by about 1 as the noise does
SPREAD = 2.0


def scheduler(*, few: int | None = None) -> Any:
    """Of 1,000 steps with variances from 0.0001 to 0.02; with `few`, of so many of them without new noise."""
    diffusers: Any = require("diffusers", extra="clouds", purpose="diffusion of clouds")
    told = {
        "num_train_timesteps": STEPS,
        "beta_start": FIRST_BETA,
        "beta_end": LAST_BETA,
        "beta_schedule": "linear",
        "clip_sample": False,
    }
    if few is None:
        return diffusers.DDPMScheduler(variance_type="fixed_small", **told)
    made = diffusers.DDIMScheduler(**told)
    made.set_timesteps(few)
    return made


def noise_loss(
    network: PointDenoiser,
    clean: Tensor,
    told: Told,
    generator: torch.Generator,
    points: Tensor | None = None,
) -> Tensor:
    """Mean square of what the network misses of the noise, at a drawn time for each cloud.

    x_t = sqrt(A_t) x_0 + sqrt(1 - A_t) e        |e - network(x_t, t)|^2        A_t = prod (1 - beta)
    """
    noise = torch.randn(clean.shape, generator=generator)
    time = torch.randint(STEPS, (len(clean),), generator=generator)
    noisy = scheduler().add_noise(clean, noise, time)
    return F.mse_loss(network(noisy, time, told, points), noise)


@torch.no_grad()
def drawn(
    network: PointDenoiser, told: Told, count: int, *, few: int, seed: int, points: Tensor | None = None
) -> Tensor:
    """Sample: (B, count, 3), of the network's three channels; the same seed gives the same sample."""
    generator = torch.Generator().manual_seed(seed)
    network.eval()
    schedule, guide = scheduler(few=few), network.guide(*told)
    x = torch.randn((len(guide), count, 3), generator=generator)
    for time in schedule.timesteps:
        at = torch.full((len(guide),), int(time))
        x = schedule.step(network(x, at, guide, points), time, x).prev_sample
    return x


def draw_points(network: PointDenoiser, told: Told, count: int, few: int, seed: int) -> Tensor:
    """Stage one: coordinates (B, count, 3)."""
    return drawn(network, told, count, few=few, seed=seed) / SPREAD


def draw_colours(network: PointDenoiser, told: Told, points: Tensor, few: int, seed: int) -> Tensor:
    """Stage two: colours (B, N, 3) in [0, 1] of points that stay where they are."""
    colours = drawn(network, told, points.shape[1], few=few, seed=seed, points=points)
    return ((colours + 1) / 2).clamp(0, 1)


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    """Mean distance of a point to the nearest of the other cloud, both ways added: two (B, N, 3) -> (B,)."""
    apart = torch.cdist(a, b)
    return apart.min(2).values.mean(1) + apart.min(1).values.mean(1)


def earth_movers(a: Tensor, b: Tensor) -> Tensor:
    """Mean distance of the points of two clouds that are matched one to one at least cost: (B,).

    By the exact solver of scipy, so of clouds of some hundred points.
    """
    optimize = require("scipy.optimize", extra="clouds", purpose="earth mover's distance")
    apart = torch.cdist(a, b)
    found = []
    for cost in apart:
        rows, columns = optimize.linear_sum_assignment(cost.numpy())
        found.append(cost[rows, columns].mean())
    return torch.stack(found) if found else apart.new_zeros(0)
