"""What learns: a network, its optimizer and its running average, whole or in shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from qna._core.errors import InvalidInput
from qna.train import setup, sharding
from qna.train.checkpoint import CHECKPOINT, SHARDED_CHECKPOINT, Saved, load_checkpoint, save_checkpoint
from qna.train.config import NetworkOptions, TrainConfig
from qna.train.optimizer import build_optimizer


class Learner:
    """A network on its device, with its optimizer and average, as accelerate prepares them.

    Args:
        config: of the run.
        accelerator: accelerate's view of devices, processes and precision.
        build: makes the network, as a run begins with it, of its options.

    Attributes:
        network: as it is trained, without wrappers.
        average: timm's running average, or None.
        optimizer: torch's.
        model: what is called in training: `network`, wrapped where there are several processes.
        stepper: what makes the steps: `optimizer`, wrapped.
        checkpoint: name of the file that a run goes on from.
    """

    def __init__(self, config: TrainConfig, accelerator: Any, build: Callable[[NetworkOptions], nn.Module]):
        self.config, self.accelerator, self._make = config, accelerator, build
        self.device = accelerator.device
        self.is_sharded = config.run.sharding == "fsdp"
        self.checkpoint = SHARDED_CHECKPOINT if self.is_sharded else CHECKPOINT
        self.network = self._build(config.network)
        self.average = setup.build_average(self.network, config.optim.ema)
        if self.is_sharded:
            for network in [self.network] if self.average is None else [self.network, self.average.module]:
                sharding.shard(network, self.device)
        self.optimizer = build_optimizer(self.network, config.optim)
        if self.is_sharded:
            self.model, self.stepper = self.network, accelerator.prepare(self.optimizer)
        else:
            setup.look_for_resting_parts(accelerator, self.network)
            self.model, self.stepper = accelerator.prepare(self.network, self.optimizer)
        if config.network.compile:
            setup.compile_in_place(self.model, self.network)

    def _build(self, options: NetworkOptions) -> nn.Module:
        return self._make(options).to(self.device)

    @property
    def parameters(self) -> int:
        """Numbers in the network's parameters."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def trained(self) -> int:
        """How many of them are trained."""
        return sum(p.numel() for p in self.network.parameters() if p.requires_grad)

    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept; of a sharded run a whole copy, made by all processes."""
        network = self.network if self.average is None else self.average.module
        if not self.is_sharded:
            return network
        weights = sharding.whole_weights(network)
        whole = self._build(replace(self.config.network, weights=None, pretrained=False))
        whole.load_state_dict(weights)
        return whole

    def is_finite(self) -> bool:
        """Whether all weights are, in all processes."""
        finite = all(bool(sharding.local_part(p).isfinite().all()) for p in self.network.parameters())
        return all(setup.from_all_processes([finite]))

    def save(self, folder: Path, saved: Saved) -> None:
        """Write the checkpoint of a run; all processes must call it together.

        Raises:
            OSError: if the disk is full; the checkpoint before is kept.
        """
        path = folder / self.checkpoint
        if self.is_sharded:
            from qna.train.sharded_checkpoint import save_sharded

            save_sharded(path, **self._state(), saved=saved)
        elif self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            scaled = None if scaler is None else scaler.state_dict()
            save_checkpoint(path, **self._state(), saved=replace(saved, scaler=scaled))

    def load(self, folder: Path, check: Callable[[Saved], None]) -> Saved:
        """Take the state in a run's checkpoint.

        Args:
            folder: of the run.
            check: is shown what the checkpoint says before anything is taken from it; it may raise.

        Raises:
            InvalidInput: if it is not one, or of another network.
        """
        path = folder / self.checkpoint
        if self.is_sharded:
            from qna.train.sharded_checkpoint import load_sharded

            return load_sharded(path, **self._state(), check=check)
        saved = load_checkpoint(path, **self._state(), check=check)
        if saved.scaler is not None and self.accelerator.scaler is not None:
            try:
                self.accelerator.scaler.load_state_dict(saved.scaler)
            except (KeyError, TypeError, RuntimeError) as error:
                raise InvalidInput(f"{path} is not a checkpoint of this run: its scaler: {error}") from None
        return saved

    def _state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside how far the run is."""
        average = None if self.average is None else self.average.module
        return {"network": self.network, "average": average, "optimizer": self.optimizer}
