"""All families of models, and the one way from a name to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from qna._core.errors import InvalidInput, check_choice
from qna.models import (
    biformer,
    decoder,
    fan,
    focalnet,
    gcvit,
    halonet,
    l2vit,
    minimal,
    nat,
    ninformer,
    overlock,
    qna_unet,
    qna_vit,
    spectformer,
    terminator,
    transnext,
    vsa,
)
from qna.models.bounds import bounded_building, check_arguments
from qna.models.resolve import check_model, known_arguments
from qna.models.shared_folder import LOCAL, check_folder, refuse_adapters
from qna.models.timm_entry import register, timm
from qna.models.volumes import VOLUME_NETWORKS, create_volume_network

# every family by its name: this list is all that a new one is added to
FAMILIES = {
    family.name: family
    for family in (
        qna_vit.FAMILY,
        qna_unet.FAMILY,
        nat.NAT_FAMILY,
        nat.DINAT_FAMILY,
        halonet.FAMILY,
        focalnet.FAMILY,
        overlock.FAMILY,
        biformer.FAMILY,
        vsa.SWIN_VSA_FAMILY,
        vsa.VITAEV2_VSA_FAMILY,
        transnext.FAMILY,
        transnext.MOH_FAMILY,
        gcvit.FAMILY,
        spectformer.SPECTFORMER_FAMILY,
        spectformer.SPECTFORMER_H_FAMILY,
        l2vit.FAMILY,
        ninformer.FAMILY,
        terminator.FAMILY,
        fan.FAN_FAMILY,
        fan.TAP_FAN_FAMILY,
        minimal.FAMILY,
    )
}
for _family in FAMILIES.values():
    register(_family)


def create(name: str, **arguments: Any) -> nn.Module:
    """Make a model by any name: one of ours, else timm's; "hf-hub:OWNER/NAME" and "local-dir:FOLDER" too.

    Names of decoders, of sequences of tokens, and of networks of volumes are known here as well.

    Args:
        name: as ``timm.create_model`` takes it.
        arguments: of ``timm.create_model``, of the network, or fields of its variant.

    Raises:
        UnknownName: for a model that is not known or an argument that it does not take, with the nearest.
        InvalidInput: if the model refuses its arguments, or passes a bound of `qna.models.bounds`.
    """
    if name in decoder.VARIANTS:
        return decoder.create_decoder(name, **arguments)
    if name in VOLUME_NETWORKS:
        return create_volume_network(name, **arguments)
    check_model(name)
    check_arguments(name, arguments)
    if name.startswith(LOCAL):
        refuse_adapters(Path(name.removeprefix(LOCAL)))
        check_folder(Path(name.removeprefix(LOCAL)), with_weights=arguments.get("pretrained", False))
    try:
        with bounded_building():
            return timm.create_model(name, **arguments)
    except Exception as error:  # what odd arguments make of constructors is not listed anywhere
        if isinstance(error, TypeError) and (known := known_arguments(name)):
            # some are consumed before a network sees them, so that they are asked about only now
            for argument in arguments.keys() - known - _OF_TIMM:
                check_choice(f"argument of model {name}", argument, known)
        given = ", ".join(f"{k}={v}" for k, v in arguments.items())
        cause = " ".join(str(error).split())
        raise InvalidInput(f"model {name!r} cannot be built with {given}: {cause}") from error


def takes(name: str, argument: str) -> bool:
    """Whether the model `name` has an argument of that name, by its signature."""
    return name not in decoder.VARIANTS and name not in VOLUME_NETWORKS and argument in known_arguments(name)


# what timm takes for every model
_OF_TIMM = {
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
    *("scriptable", "exportable", "no_jit", "features_only", "out_indices", "feature_cls"),
}
