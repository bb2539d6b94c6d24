"""What an adapter is, a frozen configuration with one transform of a network, and its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar, get_type_hints

from torch import nn

from qna._core.about import About
from qna._core.errors import InvalidInput
from qna._core.typed_json import from_json_value

Network = TypeVar("Network", bound=nn.Module)
# the attribute of a network that tells what was put around it
APPLIED = "qna_adapters"


@dataclass(frozen=True)
class Adapter:
    """What is put around a network that is there already; a subclass's fields are all that it is told.

    Attributes:
        name: in the registry, on the command line and in files.
        beside: names of adapters that may be in the network already.
    """

    name: ClassVar[str]
    beside: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self):
        """Bring every field to its type, so that what is built by hand is what a file gives again.

        Raises:
            UnknownName: for a word that a field does not know.
            InvalidInput: for a value of another type, as a text for a number, or one that is not finite.
        """
        kinds = get_type_hints(type(self))
        for told in fields(self):
            value = as_json(getattr(self, told.name))
            value = from_json_value(kinds[told.name], value, told.name)
            # frozen for everyone else
            object.__setattr__(self, told.name, value)

    def apply(self, network: Network) -> Network:
        """Put the adapter into a network, in place, and return it.

        What the network had keeps its names, so that its state dict still loads (strict but for what the
        adapter brings), unless the adapter's own docstring says what it replaces. With a limit that means no
        change (rate 1, all heads) the network computes what it did.

        Raises:
            InvalidInput: a network that the adapter does not suit, or one that holds an adapter beside which
                it has no meaning. The network is as it was then.
        """
        before = applied(network)
        for other in before:
            if other.adapter.name not in self.beside:
                raise InvalidInput(
                    f"{self.name} has no meaning in a network that holds {other.adapter.name}; "
                    "apply it to another"
                )
        names = set(network.state_dict())
        told = self.transform(network)
        added = frozenset(set(network.state_dict()) - names)
        setattr(network, APPLIED, (*before, Applied(self, added, tuple(told))))
        return network

    def transform(self, network: nn.Module) -> list[str]:
        """Change `network` in place after all checks; return sentences on what a user should know of it.

        Raises:
            InvalidInput: before anything is changed.
        """
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """The fields by name, as JSON takes them."""
        return {f.name: as_json(getattr(self, f.name)) for f in fields(self)}


@dataclass(frozen=True)
class Applied:
    """An adapter that is in a network.

    Attributes:
        adapter: its configuration.
        added: names in the network's state dict that it brought.
        told: sentences on what it did.
    """

    adapter: Adapter
    added: frozenset[str]
    told: tuple[str, ...] = ()


def _as_it_is(name: str, network: nn.Module) -> str:
    return name


@dataclass(frozen=True)
class AuthorsNames:
    """How checkpoints of an adapter's authors name tensors.

    Attributes:
        classifier: what they call the layer that ends in the logits.
        name_of: (our name of a tensor, the adapted network) -> theirs.
    """

    classifier: str = "head"
    name_of: Callable[[str, nn.Module], str] = _as_it_is


@dataclass(frozen=True)
class AdapterRow:
    """An adapter of the registry.

    Attributes:
        build: its class.
        about: the published work.
        text: one line on what it does.
        example: arguments for a small network of few blocks, from which its contract is tested.
        bases: names of the kinds of networks in the contract test that it suits; it refuses the others.
        authors: how checkpoints of its authors are read; None where none are published.
        exempt: clause of the contract -> why the adapter breaks it. An exemption that is no longer needed
            makes the test fail.
        rests: some parameters get no gradient in some updates, so that processes that share the work have to
            look for those in each.
    """

    build: type[Adapter]
    about: About
    text: str
    example: Mapping[str, Any] = field(default_factory=dict)
    bases: frozenset[str] = frozenset()
    authors: AuthorsNames | None = None
    exempt: Mapping[str, str] = field(default_factory=dict)
    rests: bool = False

    @property
    def name(self) -> str:
        """The name in the registry."""
        return self.build.name


def applied(network: nn.Module) -> tuple[Applied, ...]:
    """What was put around a network, in order; its own adapters, not those of a network inside it."""
    return getattr(network, APPLIED, ())


def added_names(network: nn.Module) -> frozenset[str]:
    """Names in a network's state dict that its adapters brought."""
    return frozenset().union(*(each.added for each in applied(network)))


def as_json(value: Any) -> Any:
    """An argument as the json module gives it back: tuples are lists."""
    if isinstance(value, tuple | list):
        return [as_json(item) for item in value]
    return {k: as_json(v) for k, v in value.items()} if isinstance(value, Mapping) else value
