"""A backbone of timm's registry as the detectors of transformers take theirs, with arguments of its own."""

from __future__ import annotations

from typing import Any

from torch import nn

from qna._core.errors import InvalidInput, require
from qna._core.seeds import seeded

# our models are in timm's registry from this import on, and timm can be imported beside any torchvision
from qna.models.registry import create

transformers = require("transformers", extra="dense", purpose="qna.models.detectors")


class VariedBackboneConfig(transformers.TimmBackboneConfig):
    """transformers' configuration of a backbone of timm, with what it has no field for.

    Attributes:
        arguments: of ``timm.create_model``, by name, as config.json can hold them.
    """

    model_type = "qna_timm_backbone"
    arguments: dict[str, Any] | None = None


class VariedBackbone(transformers.TimmBackbone):
    """transformers' backbone of timm, made with the arguments of its configuration."""

    config_class = VariedBackboneConfig

    def __init__(self, config: VariedBackboneConfig, **arguments: Any):
        super().__init__(config, **{**(config.arguments or {}), **arguments})


transformers.AutoConfig.register(VariedBackboneConfig.model_type, VariedBackboneConfig)
transformers.AutoBackbone.register(VariedBackboneConfig, VariedBackbone)


class Levels:
    """The last maps of a backbone, finest first.

    Args:
        name: any that timm knows.
        count: how many maps; fewer where the backbone has fewer.
        arguments: of ``timm.create_model``.

    Attributes:
        config: transformers' configuration of the backbone that gives these maps.
        channels: of each map.
        strides: pixels per position of each map.

    Raises:
        UnknownName: for a model or an argument that does not exist, with the nearest names.
        InvalidInput: the model refuses its arguments or gives no maps.
    """

    def __init__(self, name: str, count: int, *, channels: int, **arguments: Any):
        with seeded(0):  # only its measures are asked for
            network: Any = create(name, features_only=True, in_chans=channels, **arguments)
        if not hasattr(network, "feature_info"):
            raise InvalidInput(
                f"model {name!r} tells no maps of its stages and cannot be a detector's backbone"
            )
        info = network.feature_info
        self._made = {"name": name, "in_chans": channels, **arguments}
        self.channels, self.strides = info.channels()[-count:], info.reduction()[-count:]
        common = {"backbone": name, "num_channels": channels, "out_indices": list(info.out_indices)[-count:]}
        self.config = (
            VariedBackboneConfig(**common, arguments=arguments)
            if arguments
            else transformers.TimmBackboneConfig(**common)  # which transformers reads without this library
        )

    def load_pretrained(self, backbone: nn.Module) -> None:
        """Give a backbone that transformers made of `config` the weights that timm knows for its name."""
        network = create(
            **self._made, features_only=True, out_indices=self.config.out_indices, pretrained=True
        )
        # transformers may keep the network inside a module of its own
        getattr(backbone, "_backbone", backbone).load_state_dict(network.state_dict())
