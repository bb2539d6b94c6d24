"""LoRA through the peft library, with whole embeddings and norms beside it, for decoders and plain ViTs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from torch import nn

from qna._core import checks
from qna._core.about import About
from qna._core.errors import InvalidInput, check_choice, require
from qna._core.third_party import import_vision
from qna.adapters._parts.vit import blocks_of
from qna.adapters.row import APPLIED, Adapter, AdapterRow, Network, applied
from qna.models.decoder import Decoder

# linear maps of attention: of this library's mixers, and of timm's
OF_DECODERS, OF_VITS = ("query", "key", "value", "out"), ("qkv", "proj")
# what peft puts a map's own weights under
_INSIDE = "base_layer"


@dataclass(frozen=True)
class LoRA(Adapter):
    """Low-rank adaptation (Hu et al., arXiv 2106.09685), with what LongLoRA trains beside it.

        y = W x + (alpha / rank) B A x        A: (rank, in), B: (out, rank), B = 0 at first

    for the linear maps of attention. W keeps its values, and so does all else but parameters whose name holds
    one of `trained`: embeddings and norms as LongLoRA has it (Chen et al., section 3.3), where LoRA alone
    falls short at longer contexts; and the classifier of a vision transformer. A head that is the embedding
    is trained with it. Of a map of C to C' channels ``rank (C + C')`` numbers are trained, at as many
    multiply-adds a position, and 0 once `merged`.

    Suits this library's decoders, whatever their mixers, and timm's plain vision transformers. peft keeps a
    map's own weights under ``base_layer``, so that weights of the bare network are loaded before.

    Attributes:
        rank: of the update; 8 as published.
        alpha: by which, over `rank`, it is multiplied; 16 as published.
        dropout: part of a map's input that the update does not see in training.
        targets: last names of the linear maps; None for those of attention, query, key, value and out in
            decoders.
        trained: parameters whose name holds one of these are trained as they are; () for none.
    """

    name: ClassVar[str] = "lora"

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    trained: tuple[str, ...] = ("embed", "norm")

    def __post_init__(self):
        super().__post_init__()
        checks.positive(self.name, rank=self.rank)
        checks.rate(self.name, dropout=self.dropout)
        if not 0 < self.alpha < math.inf:
            raise InvalidInput(f"{self.name}: alpha must be above 0 and finite, got {self.alpha!r}")
        if self.targets is not None and not self.targets:
            raise InvalidInput(f"{self.name}: targets are empty; leave them out for the maps of attention")

    def transform(self, network: nn.Module) -> list[str]:
        """Put peft's layers into the places of linear maps, and let little else be trained."""
        peft = _peft()
        paths, whole = self._chosen(network), self._whole(network)
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            # each whole path, so that no other map of a like name is taken
            target_modules=paths,
            bias="none",
        )
        every = sum(p.numel() for p in network.parameters())
        peft.inject_adapter_in_model(config, network)
        for parameter in whole:
            parameter.requires_grad_(True)
        learned = sum(p.numel() for p in network.parameters() if p.requires_grad)
        return [
            f"{len(paths)} linear maps have updates of rank {self.rank}; {learned:,} numbers are trained, "
            f"and the network had {every:,}"
        ]

    def _chosen(self, network: Any) -> list[str]:
        """Paths of the linear maps."""
        if isinstance(network, Decoder):
            names = OF_DECODERS
        else:
            try:
                blocks_of(network, self.name)
            except InvalidInput:
                raise InvalidInput(
                    f"{self.name} works on decoders and on timm's plain vision transformers (vit_*, deit_*), "
                    f"not on {type(network).__name__}"
                ) from None
            names = OF_VITS
        linear = [path for path, m in network.named_modules() if type(m) is nn.Linear]
        last = [path.rpartition(".")[2] for path in linear]
        for target in self.targets or ():
            check_choice("linear map of the network", target, dict.fromkeys(last))
        wanted = self.targets or names
        # those inside a block: a head has a name of these nowhere, and is no attention
        paths = [
            p for p, name in zip(linear, last, strict=True) if name in wanted and p.startswith("blocks.")
        ]
        if not paths:
            raise InvalidInput(
                f"{type(network).__name__} has no linear map called {' or '.join(wanted)} in its blocks; "
                "name others with targets"
            )
        return paths

    def _whole(self, network: nn.Module) -> list[nn.Parameter]:
        """Parameters that are trained as they are."""
        found = {name: p for name, p in network.named_parameters() if any(t in name for t in self.trained)}
        for part in self.trained:
            if not any(part in name for name in found):
                raise InvalidInput(f"{type(network).__name__} has no parameter with {part!r} in its name")
        if isinstance(network, Decoder):
            return list(found.values())
        heads = cast(Any, network).get_classifier()
        several = heads if isinstance(heads, tuple | list) else (heads,)
        return [*found.values(), *(p for head in several for p in head.parameters())]


def merged(network: Network) -> Network:
    """Add updates to the maps that they are of, in place: the bare network again, with every name it had.

    Everything can be trained then.

    Args:
        network: that holds `LoRA`.

    Raises:
        InvalidInput: it holds none, or a sum is not finite.
    """
    held = applied(network)
    if not any(isinstance(each.adapter, LoRA) for each in held):
        raise InvalidInput(f"{type(network).__name__} holds no {LoRA.name} that could be merged")
    layers = [
        (path, m) for path, m in network.named_modules() if isinstance(m, _peft().tuners.lora.LoraLayer)
    ]
    for path, layer in cast(Any, layers):
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise InvalidInput(f"the update of {path} cannot be merged: {error}") from None
    for path, layer in cast(Any, layers):
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, layer.get_base_layer())
    setattr(network, APPLIED, tuple(each for each in held if not isinstance(each.adapter, LoRA)))
    return network.requires_grad_(True)


def _peft() -> Any:
    # peft imports transformers, which looks for torchvision
    import_vision("torchvision", extra="language", purpose="LoRA")
    return require("peft", extra="language", purpose="LoRA")


ROW = AdapterRow(
    LoRA,
    About(
        "LoRA: Low-Rank Adaptation of Large Language Models",
        "Hu, Shen, Wallis et al.",
        "ICLR 2022",
        "2106.09685",
        "peft 0.21 (Apache-2.0), which computes it, and the recipe of dvlab-research/LongLoRA at d4eb344 "
        "(Apache-2.0) for what is trained beside it",
        "nothing",
        "exact",
    ),
    "updates of low rank for the maps of attention, by peft; embeddings and norms are trained beside them",
    {"rank": 2, "dropout": 0.1},
    frozenset({"vit", "distilled", "registers", "decoder"}),
    exempt={"keeps_names": "peft keeps a map's own weights under base_layer"},
)
