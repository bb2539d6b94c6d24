"""Images to read in tests."""

import torch


def images(*size, batch=2):
    """(batch, 3, *size), the same ones each time."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))
