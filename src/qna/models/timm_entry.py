"""The door to timm's registry: every variant of a family under its name, with timm's conveniences."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from qna._core.errors import InvalidInput
from qna._core.third_party import import_vision
from qna.mixers import MIXERS
from qna.models.family import Family, Variant

timm = import_vision("timm", extra="models", purpose="qna.models")

# timm reads the configuration of an entry function in the function's module, under this name
default_cfgs: dict[str, Any] = {}
# every registered name -> its family
FAMILY_OF: dict[str, Family] = {}


def register(family: Family) -> None:
    """Let timm know all variants of `family`.

    Raises:
        InvalidInput: timm has a model of such a name; it would be replaced for the whole process.
    """
    for name in family.variants:
        # ours from an import that was broken off may be registered again
        if timm.is_model(name) and getattr(FAMILY_OF.get(name), "name", None) != family.name:
            raise InvalidInput(
                f"timm has a model {name!r} already, which that of {family.name} would replace: "
                f"call ours 'qna_{name}'"
            )
    configured = {name: _cfg(family, variant) for name, variant in family.variants.items()}
    default_cfgs.update(timm.models.generate_default_cfgs(configured))
    for leaf in (*family.leaves, *(row.build for row in MIXERS.values())):
        timm.models.register_notrace_module(leaf)
    for name, variant in family.variants.items():
        if not timm.is_model(name):
            timm.models.register_model(_entry(family, name, variant))
        FAMILY_OF[name] = family


def _cfg(family: Family, variant: Variant) -> dict[str, Any]:
    about = family.about
    return {
        "num_classes": 1000,
        "input_size": (3, variant.image_size, variant.image_size),
        "crop_pct": 224 / 256,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "paper_ids": None if about.arxiv is None else f"arXiv:{about.arxiv}",
        "paper_name": about.title,
        **family.timm_cfg(variant),
    }


def _entry(family: Family, name: str, variant: Variant) -> Callable[..., nn.Module]:
    """The function that timm calls for `name`."""

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        varied, others = variant.varied(kwargs)
        return timm.models.build_model_with_cfg(
            partial(family.build, varied),
            name,
            pretrained,
            feature_cfg={
                "feature_cls": "getter",
                "out_indices": tuple(range(family.stages(varied))),
                "flatten_sequential": True,
            },
            **others,
        )

    create.__name__ = create.__qualname__ = name
    create.__module__ = __name__
    create.__doc__ = f"{family.about.title}: {variant}."
    return create
