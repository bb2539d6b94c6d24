"""Compiling Triton kernels for cards that are not there."""

import pytest

# shared memory that the smallest of the cards from sm_80 on gives a program
MOST_SHARED = 99 * 1024
# one tells what a change breaks
ARCHITECTURES = (90, *(pytest.param(a, marks=pytest.mark.long) for a in (80, 100)))


class NoCard:
    """As much of a Triton driver as compiling asks for."""

    def __init__(self, architecture):
        self.architecture = architecture

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        if isinstance(self.architecture, str):
            return GPUTarget("hip", self.architecture, 64)
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self):
        return self.architecture  # kernels are cached per device

    def get_current_stream(self, device):
        return 0


def compile_for(architecture, monkeypatch):
    """Let Triton compile for a card as if it were there: 90 for sm_90, or an AMD card by name."""
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.runtime.driver, "_active", NoCard(architecture))


def compiled(launch, kernels):
    """The binary of a launch."""
    kernel = kernels[launch.kernel]
    return kernel.warmup(*launch.arguments, grid=(1,), **launch.constants, **launch.options)
