"""Random draws as functions of what they are for: a run can go on without any generator's state.

Every draw of a training run is seeded with (run's seed, purpose, epoch or step, image or process). A run that
stops and goes on makes the same draws, whatever the number of workers.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) that any change of a part changes."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators inside the block; restore them after it."""
    import numpy as np
    import torch

    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.random.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.random.set_rng_state(before[2])


def uniforms(seed: int, indices: Sequence[int], count: int):
    """`count` numbers in [0, 1) for each index as a float32 tensor (len(indices), count).

    A row depends on `seed` and its index alone, so the batch and the process do not matter. The generator
    is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), one
    stream per row.
    """
    import numpy as np
    import torch

    golden = np.uint64(0x9E3779B97F4A7C15)
    start = _mix64(np.asarray(indices, dtype=np.uint64)[:, None] + np.uint64(seed) * np.ones(1, np.uint64))
    bits = _mix64(start + golden * np.arange(1, count + 1, dtype=np.uint64))
    return torch.from_numpy(((bits >> np.uint64(40)).astype(np.float32)) / np.float32(2**24))


def _mix64(z):
    import numpy as np

    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
