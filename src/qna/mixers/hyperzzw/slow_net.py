"""The slow net: weights as a function of where they stand, by products of sines (MAGNet)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna.parts.open_size import is_open
from qna.parts.precision import without_autocast

# by which the authors multiply the first weights of every sine, and the shape of the gamma distribution
FREQUENCY = 2000.0
GAMMA_SHAPE = 6.0


class SineProducts(nn.Module):
    """What slow nets share: sines of the positions, and linear maps of what was made before.

    Positions c lie evenly between -1 and 1 on every axis. A net of L layers and h hidden channels begins with
    ``z_0 = sin(V_0 c + a_0)`` and goes on with ``z_i = sin(V_i c + a_i) * (W_i z_(i-1) + b_i) + p``, p a map
    of the kernel's size that all channels share. After the last layer comes a linear map to the channels.

    The sines depend on weights alone. Their frequencies go up to about 1e5: half precision cannot hold them,
    bfloat16 would make other kernels of them, and so both are computed in fp32 under autocast, and a network
    is cast to 16 bits after `fuse`, which puts stored sines or kernels in the place of the frequencies.
    Weight decay leaves them alone; the authors' training has none.

    Args:
        size: positions of the kernel per axis.
        channels: of the kernel.
        hidden: h.
        layers: L.
    """

    def __init__(self, size: Sequence[int], channels: int, *, hidden: int, layers: int):
        super().__init__()
        checks.positive(type(self).__name__, channels=channels, hidden=hidden, layers=layers)
        self.size = tuple(size)
        self.channels = channels
        self.hidden = hidden
        self.layers = layers
        # no lists of modules, which would have a name and never be called
        for i in range(layers + 1):
            self.add_module(f"wave{i}", _wave(len(self.size), hidden, GAMMA_SHAPE / (i + 1)))
        for i in range(1, layers + 1):
            self.add_module(f"layer{i}", _hidden(hidden))
        self.shared_bias = nn.Parameter(torch.zeros(math.prod(self.size), 1))
        self.out = nn.Linear(hidden, channels)
        bound = math.sqrt(3 / hidden / math.prod(self.size))
        nn.init.uniform_(self.out.weight, -bound, bound)
        nn.init.zeros_(self.out.bias)

    @property
    def positions(self) -> int:
        """Of the kernel."""
        return math.prod(self.size)

    def coordinates(self) -> Tensor:
        """Of every position, (positions, axes), from -1 to 1; of a single one -1."""
        like = self.shared_bias
        steps = [torch.linspace(-1, 1, n, device=like.device, dtype=like.dtype) for n in self.size]
        return torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).flatten(0, -2)

    def sines(self) -> list[Tensor]:
        """Of every layer, (positions, hidden)."""
        at = self.coordinates()
        return [torch.sin(self.get_submodule(f"wave{i}")(at)) for i in range(self.layers + 1)]

    def drop_waves(self) -> None:
        """Leave out what only `sines` needs."""
        for i in range(self.layers + 1):
            delattr(self, f"wave{i}")

    def sines_macs(self) -> int:
        """Multiply-adds of `sines`."""
        return self.positions * len(self.size) * self.hidden * (self.layers + 1)

    def no_weight_decay(self) -> set[str]:
        """The frequencies."""
        return {name for name, _ in self.named_parameters() if name.startswith("wave")}


class SlowNet(SineProducts):
    """A kernel that no image changes: () -> (1, channels, *size).

    It is computed anew in every call, since training changes it; `fuse` computes it once and stores it.

    Args:
        size: positions of the kernel per axis.
        channels: of the kernel.
        hidden: channels of its layers.
        layers: linear maps between the first sine and the last linear map.
        deploy: begin with a stored kernel, of zeros.
    """

    def __init__(self, size: Sequence[int], channels: int, *, hidden: int, layers: int, deploy: bool = False):
        super().__init__(size, channels, hidden=hidden, layers=layers)
        self.deployed = False
        if deploy:
            self._store(torch.zeros(1, channels, *self.size))

    def forward(self) -> Tensor:
        """The kernel, (1, channels, *size)."""
        if self.deployed:
            return cast(Tensor, self.kernel)
        with without_autocast(self.shared_bias.device):
            z, *sines = self.sines()
            for i, sine in enumerate(sines, start=1):
                z = sine * self.get_submodule(f"layer{i}")(z) + self.shared_bias
            return self.out(z).t().reshape(1, self.channels, *self.size)

    @torch.no_grad()
    def fuse(self) -> SlowNet:
        """Store the kernel in the place of what makes it; what comes out stays the same bit for bit."""
        if not self.deployed:
            self._store(self())
        return self

    def _store(self, kernel: Tensor) -> None:
        self.deployed = True
        self.drop_waves()
        for i in range(1, self.layers + 1):
            delattr(self, f"layer{i}")
        del self.out, self.shared_bias
        self.register_buffer("kernel", kernel)

    def own_macs(self) -> int:
        """Multiply-adds of a call, for any number of images."""
        if self.deployed:
            return 0
        linear = self.hidden * (self.hidden * self.layers + self.channels)
        return self.sines_macs() + self.positions * linear


class ContextSlowNet(SineProducts):
    """Small kernels that depend on what is seen: (B, channels, H, W) -> (1 or B, channels, k, k).

    A map x is averaged to k x k positions, ``g = GELU(fc(mean over the batch of reduce(pool_k(x))))``, and
    every layer's result is renormalised and multiplied with a linear map of it::

        z_i <- (alpha_i * stop(z_i) + beta_i * z_i / |z_i|) * (U_i g + u_i)

    where ``|z_i|`` is the norm of a channel over the positions and gradients do not pass `stop`.

    Args:
        size: k.
        channels: of map and kernel.
        hidden: channels of its layers.
        layers: between the first sine and the last linear map.
        batch_context: the authors' mean over the batch, by which one kernel serves all images and each
            depends on the others, in evaluation too. Without it every image has a kernel of its own.
        deploy: begin with stored sines, of zeros.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        *,
        hidden: int,
        layers: int,
        batch_context: bool,
        deploy: bool = False,
    ):
        super().__init__((size, size), channels, hidden=hidden, layers=layers)
        self.batch_context = batch_context
        self.reduce = nn.Linear(channels, hidden)
        self.fc = nn.Linear(hidden, hidden)
        _as_convolution(self.reduce)
        _as_convolution(self.fc)
        for i in range(1, layers + 1):
            self.add_module(f"context{i}", _hidden(hidden))
        # the trap of the authors' code: these were in lists, which neither train nor save them
        self.alpha = nn.Parameter(torch.ones(layers, hidden))
        self.beta = nn.Parameter(torch.full((layers, hidden), 0.1))
        self.deployed = False
        if deploy:
            self._store(torch.zeros(layers + 1, self.positions, hidden))

    def forward(self, image: Tensor) -> Tensor:
        """(B, channels, H, W) -> (1, channels, k, k) of the batch's context, else (B, channels, k, k)."""
        with without_autocast(image.device):
            context = self._context(image.to(self.reduce.weight.dtype))
            z, *sines = self._stored.unbind() if self.deployed else self.sines()
            for i, sine in enumerate(sines, start=1):
                z = sine * self.get_submodule(f"layer{i}")(z) + self.shared_bias
                # without a gradient the first term carries the size of z, the second its direction
                unit = F.normalize(z, dim=-2)
                z = self.alpha[i - 1] * z.detach() + self.beta[i - 1] * unit
                z = z * self.get_submodule(f"context{i}")(context)
            return self.out(z).transpose(1, 2).unflatten(2, self.size)

    def _context(self, image: Tensor) -> Tensor:
        """(1 or B, positions, hidden)."""
        pooled = F.adaptive_avg_pool2d(image, self.size[0]).flatten(2).transpose(1, 2)
        reduced = self.reduce(pooled)
        if self.batch_context:
            # of no image 0, where a mean would give NaN to every weight's gradient
            none = not is_open(image.shape[0]) and not image.shape[0]
            reduced = reduced.sum(0, keepdim=True) if none else reduced.mean(0, keepdim=True)
        return F.gelu(self.fc(reduced))

    @property
    def _stored(self) -> Tensor:
        return cast(Any, self).stored_sines

    @torch.no_grad()
    def fuse(self) -> ContextSlowNet:
        """Store the sines in the place of the frequencies; what comes out stays the same bit for bit."""
        if not self.deployed:
            self._store(torch.stack(self.sines()))
        return self

    def _store(self, sines: Tensor) -> None:
        self.deployed = True
        self.drop_waves()
        self.register_buffer("stored_sines", sines)

    def own_macs(self, batch: int) -> int:
        """Multiply-adds of a call with so many images."""
        kernels = 1 if self.batch_context else batch
        h, n = self.hidden, self.positions
        # the layer before the first context is the same for all images
        before = 0 if self.deployed else self.sines_macs()
        before += n * h * h
        per_kernel = h * (1 + self.layers) + h * (self.layers - 1) + self.channels
        return before + n * h * (batch * self.channels + kernels * per_kernel)


def _wave(axes: int, hidden: int, shape: float) -> nn.Linear:
    wave = nn.Linear(axes, hidden)
    _as_convolution(wave)
    gamma = torch.distributions.Gamma(shape, 1.0, validate_args=False).sample((hidden, axes))
    with torch.no_grad():
        wave.weight.mul_(2 * math.pi * FREQUENCY * gamma)
    nn.init.zeros_(wave.bias)
    return wave


def _hidden(hidden: int) -> nn.Linear:
    layer = nn.Linear(hidden, hidden)
    # variance 1 / channels
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
    nn.init.ones_(layer.bias)
    return layer


def _as_convolution(linear: nn.Linear) -> None:
    # as torch makes both; written out, since other defaults would change the frequencies
    bound = linear.in_features**-0.5
    nn.init.uniform_(linear.weight, -bound, bound)
    nn.init.uniform_(linear.bias, -bound, bound)
