"""Mixers with all weights drawn, and sequences, in double precision."""

import torch

from tests.mixers.contract import randomise

SIZES = {"num_heads": 4, "kv_heads": 2}


def made(mixer, seed=0, dim=24, **arguments):
    mixer = mixer(dim, **{**SIZES, **arguments})
    randomise(mixer, seed)
    return mixer.double().eval()


def x(n=11, dim=24, seed=1, batch=2):
    g = torch.Generator().manual_seed(seed)
    # a shorter one is the beginning of a longer one
    return torch.randn(batch, 3000, dim, generator=g, dtype=torch.float64)[:, :n]


def close(found, expected, at=1e-12):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= at * expected.abs().max()


def split(mixer, x):
    """Queries, keys and values of every head, by hand: (B, h, N, d) each."""
    heads, parts = mixer.heads, []
    for layer, count in ((heads.query, 4), (heads.key, 2), (heads.value, 2)):
        t = (x @ layer.weight.mT).reshape(*x.shape[:2], count, -1).transpose(1, 2)
        parts.append(t.repeat_interleave(4 // count, 1))
    return parts


def joined(mixer, attended):
    return attended.transpose(1, 2).flatten(2) @ mixer.out.weight.mT
