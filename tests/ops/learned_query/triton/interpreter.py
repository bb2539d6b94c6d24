"""Inputs of the tests that run the Triton kernels in Python."""

import pytest
import torch


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda c: c.name)


def heads_fastest(inputs):
    """Scores and value as the layers make them: both in one row per position, the channels as (d, h)."""
    scores, value = inputs["scores"], inputs["value"]
    row = torch.cat([value.transpose(-1, -2).flatten(-2), scores.flatten(-2)], -1)
    value, scores = row.split([value[0].flatten(-2).shape[-1], scores[0].flatten(-2).shape[-1]], -1)
    shape = inputs["value"].shape
    value = value.unflatten(-1, (shape[-1], shape[-2])).transpose(-1, -2)
    return {**inputs, "scores": scores.unflatten(-1, inputs["scores"].shape[-2:]), "value": value}


def span(inputs):
    """A bias too far below the largest for a factor of it, and scores that make up for it."""
    inputs["bias"][1, 1] = 0
    inputs["bias"][0, 0] = -200
    inputs["scores"][:, 2, 2] = 190
    inputs["scores"][:, 3:, 3:] = -30


def far_below(inputs):
    inputs["scores"][:, :, 6:] -= 1000


def far_above(inputs):
    inputs["scores"][:, :, 5:] += 1000


def one_far_above(inputs):
    inputs["scores"][:, 3, 7] = 1e30
