"""All adapters, and the one way from a name to a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from qna._core.errors import InvalidInput, check_choice
from qna._core.typed_json import from_json_value
from qna.adapters import evit, gated, lora, minimal, moh, sparsifiner, swap_mixer, tap_adl, tcpa, vfpt, vpt
from qna.adapters.row import Adapter, AdapterRow, applied, as_json

# every adapter by its name: this list is all that a new one is added to
ADAPTERS: dict[str, AdapterRow] = {
    row.name: row
    for row in (
        swap_mixer.ROW,
        evit.ROW,
        gated.ROW,
        tap_adl.ROW,
        moh.ROW,
        sparsifiner.ROW,
        minimal.ROW,
        vpt.ROW,
        vfpt.ROW,
        tcpa.ROW,
        lora.ROW,
    )
}


def adapter(name: str, /, **arguments: Any) -> Adapter:
    """The configuration of an adapter by its name: "swap_mixer"; `ADAPTERS` holds all.

    Raises:
        UnknownName: for a name that the registry does not have, or an argument that the adapter does not
            take, with the nearest names.
        InvalidInput: for an argument of another type, or one that is missing.
    """
    row = ADAPTERS[check_choice("adapter", name, ADAPTERS)]
    return from_json_value(row.build, as_json(arguments), f"adapter {name}")


def told(network: nn.Module) -> list[dict[str, Any]]:
    """The adapters of a network, in order, as JSON takes them."""
    return [{"name": each.adapter.name, "arguments": each.adapter.settings()} for each in applied(network)]


def again(network: nn.Module, told: Sequence[Mapping[str, Any]], where: str) -> nn.Module:
    """Apply what `told` gave of another network; `where` it stands, for the error.

    Raises:
        UnknownName: for an adapter that is not known, with the nearest names.
        InvalidInput: if it is damaged.
    """
    for each in told:
        name, arguments = each.get("name"), each.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise InvalidInput(f"{where} names no adapter with arguments: {str(each)[:100]}")
        network = adapter(name, **arguments).apply(network)
    return network


def has_resting_parts(network: nn.Module) -> bool:
    """Whether an adapter of the network lets some parameters rest in some updates."""
    return any(
        ADAPTERS[each.adapter.name].rests for each in applied(network) if each.adapter.name in ADAPTERS
    )
