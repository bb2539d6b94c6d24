"""The network of a run, by any name that timm knows."""

from __future__ import annotations

from typing import Any

from torch import nn

import qna.models  # noqa: F401 - registers qna's names in timm, and makes timm importable beside a CPU-only torch
from qna._core.errors import InvalidInput, check_choice, require
from qna.train.config import NetworkOptions


def build_network(options: NetworkOptions, *, classes: int, channels: int, image_size: int) -> nn.Module:
    """Return the network with fresh weights: (B, channels, image_size, image_size) -> (B, classes).

    Raises:
        UnknownName: for a model that timm does not know, with the nearest names.
        InvalidInput: if the model refuses the options.
    """
    timm = require("timm", extra="train", purpose="training")
    if ":" not in options.model:  # hf_hub:... and local-dir:... are not in the registry
        check_choice("model", options.model.split(".")[0], timm.list_models())
    arguments: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    if options.drop_path is not None:
        arguments["drop_path_rate"] = options.drop_path
    try:
        try:
            return timm.create_model(options.model, img_size=image_size, **arguments)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            return timm.create_model(options.model, **arguments)  # takes any size
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        given = ", ".join(f"{k}={v}" for k, v in arguments.items())
        raise InvalidInput(
            f"model {options.model!r} cannot be built with {given}, image_size={image_size}: {error}"
        ) from error
