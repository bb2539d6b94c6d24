"""What to compare: which providers answer each case, and the rows that come of it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from itertools import product
from typing import Any

import torch

from qna._core.allocator import keep_freed_blocks
from qna._core.errors import InvalidInput, check_choice
from qna.adapters.row import Adapter, as_json
from qna.bench.measure import memory
from qna.bench.measure.base_commit import BaseCommit
from qna.bench.measure.contender import DTYPES, FORWARD, MODES, Setting
from qna.bench.measure.cores import CORES
from qna.bench.measure.harness import Measurement, Plan, Provider, measure
from qna.bench.measure.lines import Lines
from qna.bench.measure.local import LocalProvider
from qna.bench.measure.remote import RemoteProvider
from qna.bench.subjects import questions
from qna.bench.subjects.ops import LEARNED_QUERY, op_row
from qna.bench.subjects.peers import PEERS, official
from qna.bench.subjects.whole_model import ModelSetting, check_names
from qna.mixers import MIXERS

Progress = Callable[[str], None]
Map = tuple[int, int, int, int]


@dataclass(frozen=True)
class Request:
    """What every comparison is asked.

    Attributes:
        dtypes: of all tensors; each is a case of its own, in the same turns.
        device: "cpu" or "cuda".
        threads: CPU threads; each count is a provider of its own, in the same turns.
        modes: what is timed.
        plan: how long.
        base: a commit to compare with, or None.
    """

    dtypes: tuple[str, ...] = ("float32",)
    device: str = "cpu"
    threads: tuple[int, ...] = (1,)
    modes: tuple[str, ...] = MODES
    plan: Plan = field(default_factory=Plan)
    base: str | None = None

    def __post_init__(self) -> None:
        for dtype in self.dtypes:
            check_choice("dtype", dtype, DTYPES)
        if not self.threads or not 1 <= min(self.threads) <= max(self.threads) <= len(CORES):
            raise InvalidInput(
                f"threads must be 1 to {len(CORES)} (this process's cores), got {self.threads}"
            )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InvalidInput("--device cuda: torch sees no GPU; see `qna doctor`")


@dataclass(frozen=True)
class PeerRequest:
    """Which peers at which sizes.

    Attributes:
        level: "op" or "layer".
        peers: names, or ("all",).
        maps: (batch, height, width, channels).
        windows: taps along each axis of a square window.
        head_dim: channels per head of learned-query attention.
        queries: learned queries.
        checkout: the authors' code, or None.
        op: of this library, whose forms "all" means at level "op".
    """

    level: str
    peers: tuple[str, ...]
    maps: tuple[Map, ...]
    windows: tuple[int, ...]
    head_dim: int = 8
    queries: int = 2
    checkout: official.Checkout | None = None
    op: str = LEARNED_QUERY

    def __post_init__(self) -> None:
        op_row(self.op)

    def names(self) -> list[str]:
        """The peers by name, the authors' layer among them.

        Raises:
            UnknownName: with the nearest names.
        """
        known = [*PEERS, official.NAME]
        if self.peers == ("all",):
            # a comparison of layers has no op of its own
            wanted = (None, LEARNED_QUERY if self.level == "layer" else self.op)
            return [n for n in known if n not in PEERS or (PEERS[n].of_all and PEERS[n].op in wanted)]
        return [check_choice("peer", name, known) for name in self.peers]

    def settings(self) -> Iterator[tuple[Map, int]]:
        """Maps and windows in order.

        Raises:
            InvalidInput: channels that the head dim does not divide.
        """
        for size in self.maps:
            if size[3] % self.head_dim:
                raise InvalidInput(
                    f"head dim {self.head_dim} does not divide the {size[3]} channels of {size}"
                )
        return ((size, window) for size in self.maps for window in self.windows)


Group = tuple[str, list[Measurement]]


def compare_peers(asked: PeerRequest, request: Request, progress: Progress) -> Iterator[Group]:
    """Measure case by case: yields a title and the outcomes of all peers there."""
    names = asked.names()
    settings, slow = list(asked.settings()), _TooSlow(request.plan.patience)
    with ExitStack() as stack:
        officials = stack.enter_context(official.OfficialLayers(asked.checkout))
        base = stack.enter_context(BaseCommit(request.base, questions.MODULE)) if request.base else None
        probe = _probe(stack, request)
        for (batch, height, width, dim), window in settings:
            providers: list[Provider] = []
            for dtype in request.dtypes:
                heads = dim // asked.head_dim
                setting = Setting(
                    batch=batch,
                    height=height,
                    width=width,
                    dim=dim,
                    window=window,
                    heads=heads,
                    queries=asked.queries,
                    dtype=dtype,
                    device=request.device,
                )
                case = f"{asked.level}-{batch}x{height}x{width}x{dim}-k{window}-{dtype}"
                for name, threads in ((n, t) for n in names for t in request.threads):
                    if name == official.NAME:
                        providers.append(officials.provider(case, setting, asked.level, threads))
                    else:
                        question = _question(asked.level, name, setting, threads)
                        refuses = slow.also(partial(PEERS[name].declines, setting, asked.level), name, case)
                        providers += _here_and_at_base(
                            name, case, question, refuses=refuses, probe=probe, base=base
                        )
            title = f"{asked.level} {batch}x{height}x{width}x{dim}, window {window}"
            outcomes = _measured(providers, request, partial(_tell, progress, title))
            slow.note(outcomes)
            yield title, outcomes


@dataclass(frozen=True)
class ModelChoice:
    """A model to measure.

    Attributes:
        name: as timm knows it.
        arguments: its own, as JSON has them, or what gives them for images of so many pixels per axis.
        provider: what its rows are called; None for `name`, and what is around it.
        adapter: what is put around it; None for nothing.
    """

    name: str
    arguments: Mapping[str, Any] | Callable[[int], Mapping[str, Any]] = field(default_factory=dict)
    provider: str | None = None
    adapter: Adapter | None = None

    @property
    def called(self) -> str:
        """What its rows are called: "deit_tiny_patch16_224+evit:keep_rate=0.5"."""
        if self.provider is not None or self.adapter is None:
            return self.provider or self.name
        default = {f.name: as_json(f.default) for f in fields(self.adapter)}
        words = [f"{k}={_label(v)}" for k, v in self.adapter.settings().items() if v != default[k]]
        return f"{self.name}+{':'.join([self.adapter.name, *words])}"

    def arguments_for(self, size: int) -> dict[str, Any]:
        """Arguments of the model for images of `size` pixels."""
        return dict(self.arguments(size) if callable(self.arguments) else self.arguments)


def compare_models(
    models: Sequence[ModelChoice],
    settings: tuple[tuple[int, int], ...],
    request: Request,
    progress: Progress,
    *,
    compile: bool = False,
    case: str = "model",
    declines: Callable[[ModelChoice, ModelSetting], str | None] = lambda model, setting: None,
) -> Iterator[Group]:
    """Measure models on batches of square images, `settings` being (batch, size).

    With `compile`, each model has a second provider beside it, the same under torch.compile.

    Args:
        models: which.
        settings: of each case.
        request: what is measured, and how long.
        progress: is told what is going on.
        compile: also each model under torch.compile.
        case: what the cases' names begin with.
        declines: why a model is not tried at a setting, or None.

    Raises:
        UnknownName: timm does not know a model.
    """
    check_names(model.name for model in models)
    with ExitStack() as stack:
        base = stack.enter_context(BaseCommit(request.base, questions.MODULE)) if request.base else None
        probe = _probe(stack, request)
        for batch, size in settings:
            providers: list[Provider] = []
            for dtype in request.dtypes:
                setting = ModelSetting(batch, size, dtype, request.device)
                forms = (False, True) if compile else (False,)
                for model, form, threads in product(models, forms, request.threads):
                    question = _question("model", model.name, setting, threads)
                    question |= {"compiled": form, "arguments": model.arguments_for(size)}
                    if model.adapter is not None:
                        around = {"name": model.adapter.name, "arguments": model.adapter.settings()}
                        question |= {"adapter": around}
                    providers += _here_and_at_base(
                        f"{model.called}-compiled" if form else model.called,
                        f"{case}-{batch}x{size}x{size}-{dtype}",
                        question,
                        refuses=partial(_declined, declines(model, setting)),
                        probe=probe,
                        base=base,
                    )
            title = f"models, {batch} of {size}x{size}"
            yield title, _measured(providers, request, partial(_tell, progress, title))


class _TooSlow:
    """Peers whose forward was above the patience at one window are left out at larger ones of that map."""

    def __init__(self, patience: float):
        self.patience = patience
        self.known: dict[tuple[str, str], tuple[int, float]] = {}

    def note(self, outcomes: list[Measurement]) -> None:
        """Remember who was too slow."""
        for o in outcomes:
            if o.mode == FORWARD and len(o.seconds) == 1 and o.seconds[0] > self.patience:
                _, size, window, dtype = o.case.split("-")
                self.known.setdefault((o.provider, size + dtype), (int(window[1:]), o.seconds[0]))

    def also(self, refuses: Callable[[str], str | None], name: str, case: str) -> Callable[[str], str | None]:
        """`refuses`, and the reason of a smaller window."""
        _, size, window, dtype = case.split("-")
        found = self.known.get((name, size + dtype))
        if found is None or int(window[1:]) <= found[0]:
            return refuses
        text = f"forward took {found[1]:.1f} s at window {found[0]}, above --patience {self.patience:g}"
        return lambda mode: text


def _label(value: Any) -> str:
    """A setting in the name of a provider, which holds neither commas nor spaces; rows tell it in full."""
    if isinstance(value, list):
        return "-".join(map(_label, value))
    if isinstance(value, dict):
        return "/".join(f"{k}={_label(v)}" for k, v in value.items())
    return str(value).replace(" ", "_").replace(",", "_")


def _question(kind: str, name: str, setting: Setting | ModelSetting, threads: int) -> dict[str, Any]:
    return {"kind": kind, "name": name, "setting": asdict(setting), "threads": threads}


def _here_and_at_base(
    name: str,
    case: str,
    question: dict[str, Any],
    *,
    refuses: Callable[[str], str | None],
    probe: Lines | None,
    base: BaseCommit | None,
) -> list[Provider]:
    threads = question["threads"]

    def peak(mode: str) -> int:
        assert probe
        return probe.ask(do="peak", question={**question, "mode": mode})

    here = LocalProvider(
        name,
        case,
        partial(questions.make, question),
        threads,
        refuses=refuses,
        probe=peak if probe else None,
        pinned=question["setting"]["device"] == "cpu",
    )
    if base is None or not (name.startswith("qna") or name in MIXERS or (name in PEERS and PEERS[name].op)):
        return [here]
    there = RemoteProvider(
        f"{name}@{base.commit}", case, question, base.processes, threads=threads, refuses=refuses
    )  # fmt: skip
    return [here, there]


def _measured(providers: list[Provider], request: Request, progress: Progress) -> list[Measurement]:
    keep_freed_blocks()
    try:
        outcomes = measure(providers, request.modes, request.plan, progress=progress)
    finally:
        for provider in providers:
            provider.close()
        _forget_compiled()
        if request.device == "cuda":
            gc.collect()  # compiled functions hold tensors in cycles
            torch.cuda.empty_cache()
    return outcomes


def _probe(stack: ExitStack, request: Request) -> Lines | None:
    if request.device != "cpu" or not request.plan.memory or memory.cannot_probe():
        return None
    return stack.enter_context(memory.probe(f"{questions.MODULE}:call"))


def _tell(progress: Progress, title: str, what: str) -> None:
    progress(f"{title}: {what}")


def _declined(reason: str | None, mode: str) -> str | None:
    """A model that is tried at a size is tried in all modes; what it raises is its reason."""
    return reason


def _forget_compiled() -> None:
    import torch._dynamo

    torch._dynamo.reset()
