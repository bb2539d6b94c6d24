"""Names of models and of their arguments, ours and timm's, read without building anything."""

from __future__ import annotations

import inspect
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

from torch import nn

from qna._core.errors import InvalidInput, check_choice
from qna.models.shared_folder import read_config
from qna.models.timm_entry import FAMILY_OF, timm


def check_model(name: str) -> None:
    """Refuse a name that timm, which knows ours too, does not know, with the nearest names."""
    if not isinstance(name, str):
        raise InvalidInput(f"a model is created by its name, a string, got {name!r}")
    if ":" not in name:  # hf-hub:... and local-dir:... are not in the registry
        check_choice("model", name.split(".", maxsplit=1)[0], timm.list_models())


def known_arguments(name: str) -> set[str]:
    """Arguments that the model `name` takes, read from signatures and fields.

    For a model of timm, whose entry functions hide the class that they build, these are the arguments of all
    networks in its module: none that it takes is missing but those that the entry function consumes itself.
    """
    architecture = architecture_of(name)
    if architecture in FAMILY_OF:
        return FAMILY_OF[architecture].arguments(architecture)
    if not timm.is_model(architecture):
        return set()
    module = sys.modules[timm.models.model_entrypoint(architecture).__module__]
    classes = [c for c in vars(module).values() if inspect.isclass(c)]
    networks = [_parameters(c) for c in classes if issubclass(c, nn.Module)]
    # where a network is configured by a dataclass, its fields are arguments too
    configured = [{f.name for f in fields(c)} for c in classes if is_dataclass(c)]
    return set().union(*(n for n in networks if "num_classes" in n), *configured)


def _parameters(cls: type) -> set[str]:
    """Named arguments of a class, and of those that it hands others on to."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is nn.Module:
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"}


def architecture_of(name: str) -> str:
    """The name in timm's registry of what `name` stands for; "" where it cannot be read, as timm will say.

    Raises:
        InvalidInput: a source of models that timm does not know.
    """
    try:
        source, where = timm.models.parse_model_name(name)
    except ValueError as error:
        raise InvalidInput(str(error)) from None
    if source is None:
        return where.split(".", maxsplit=1)[0]
    if source == "local-dir":
        try:
            return read_config(Path(where)).architecture
        except InvalidInput:
            return ""
    try:
        return str(timm.models.load_model_config_from_hf(where)[1])
    except (OSError, ValueError):
        return ""
