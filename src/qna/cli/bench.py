"""`qna bench`: time and memory side by side, by the method of docs/benchmarking.md."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from qna._core.errors import InvalidInput

if TYPE_CHECKING:
    from qna.bench.subjects.comparison import PeerRequest, Request

ACCURACY = "small models trained by one recipe, and the ablations of QnA, on whole data sets"
MODELS = ("qna_vit_tiny", "swin_tiny_patch4_window7_224", "convnext_tiny", "focalnet_tiny_srf")


def main(arguments: list[str]) -> int:
    """Run one benchmark; 1 if a provider's output was wrong."""
    options = _parser().parse_args(arguments)
    return options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("qna bench", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for level, text in (
        ("op", "attention on given maps, projections left out"),
        ("layer", "whole layers, with their projections"),
    ):
        verb = verbs.add_parser(level, help=text, description=f"Compare {text}.")
        _add_peers(verb, level)
        _add_common(verb)
        verb.set_defaults(run=_peers, level=level)
    for name, text in (
        ("model", "images per second of whole models"),
        ("train-step", "training steps of whole models: forward, loss, backward, AdamW"),
    ):
        verb = verbs.add_parser(name, help=text, description=f"Compare {text}.")
        verb.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help="names that timm knows")
        verb.add_argument("--sizes", nargs="+", type=int, default=[224], metavar="PIXELS")
        verb.add_argument("--batches", nargs="+", type=int, default=[1, 8], metavar="IMAGES")
        verb.add_argument("--compile", action="store_true", help="each model also under torch.compile")
        _add_common(verb, seconds=2.0, patience=20.0)
        verb.set_defaults(run=_models, modes=["step" if name == "train-step" else "forward"])
    _add_accuracy(verbs.add_parser("accuracy", help=ACCURACY, description=f"Compare {ACCURACY}."))
    verb = verbs.add_parser(
        "cost",
        help="multiply-adds and bytes by formulas",
        description="Count multiply-adds, bytes that must move, and peak bytes of inference, by formulas.",
    )
    verb.add_argument("--models", nargs="*", default=["qna_vit_tiny", "qna_vit_small", "qna_vit_base"])
    verb.add_argument("--size", type=int, default=224, metavar="PIXELS")
    verb.add_argument("--layers", action="store_true", help="also each layer of the models")
    _add_sizes(verb)
    verb.add_argument("--out", type=Path, metavar="CSV", help="rows are added to it")
    verb.set_defaults(run=_cost, windows=[3, 7, 13])
    _add_tune(
        verbs.add_parser(
            "tune",
            help="tile sizes of the Triton kernels, for this card",
            description="Measure tile sizes of the Triton kernels on the card at hand and put the fastest "
            "into the table that the kernels look up.",
        )
    )
    return parser


def _add_tune(verb: argparse.ArgumentParser) -> None:
    from qna.ops.learned_query.triton.tiles import PATH

    _add_sizes(verb)
    verb.add_argument("--dtype", nargs="+", default=["bfloat16"], metavar="DTYPE")
    verb.add_argument("--table", type=Path, default=PATH, help="the table to change (default: qna's own)")
    verb.set_defaults(run=_tune, maps=[(64, 56, 56, 64)])


def _add_accuracy(verb: argparse.ArgumentParser) -> None:
    add = verb.add_argument
    add("--data", nargs="+", default=["cifar10", "fashion-mnist"], metavar="NAME")
    add("--entrants", nargs="+", metavar="NAME", help="which models (default: all)")
    add("--seeds", nargs="+", type=int, default=[0], metavar="N")
    for name in ("cifar10", "fashion-mnist"):
        add(f"--{name}-dir", type=Path, metavar="DIR", help=f"where {name} is (default: the usual places)")
    add("--runs", type=Path, default=Path("runs/accuracy"), metavar="DIR", help="a folder for every run")
    add(
        "--out", type=Path, default=Path("qna-accuracy.csv"), metavar="CSV",
        help="a row is added after each run; what has one is not run again",
    )  # fmt: skip
    verb.set_defaults(run=_accuracy)


def _add_peers(verb: argparse.ArgumentParser, level: str) -> None:
    add = verb.add_argument
    add("--peers", nargs="+", default=["all"], metavar="NAME", help="which, or all (default)")
    _add_sizes(verb)
    add("--modes", nargs="+", default=["forward", "forward+backward"], metavar="MODE")
    if level == "layer":
        add("--official", type=Path, metavar="PATH", help="a checkout of the authors' JAX code")
        add("--official-python", type=Path, metavar="PYTHON", help="a Python with jax and flax")


def _add_sizes(verb: argparse.ArgumentParser) -> None:
    add = verb.add_argument
    add("--windows", nargs="+", type=int, default=[3, 5, 7, 9, 11, 13], metavar="K", help="taps per axis")
    add(
        "--maps", nargs="+", type=_map, default=[(8, 56, 56, 64), (1, 256, 256, 64)], metavar="BxHxWxC"
    )  # fmt: skip
    add("--head-dim", type=int, default=8, metavar="D", help="channels per head of QnA (default 8)")
    add("--queries", type=int, default=2, metavar="L", help="learned queries of QnA (default 2)")


def _add_common(verb: argparse.ArgumentParser, *, seconds: float = 0.2, patience: float = 1.0) -> None:
    add = verb.add_argument
    add("--dtype", nargs="+", default=["float32"], metavar="DTYPE")
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add(
        "--threads",
        nargs="+",
        type=int,
        default=[1],
        metavar="N",
        help="each on a core of its own (default 1)",
    )
    add("--seconds", type=float, default=seconds, help=f"for each provider and mode (default {seconds})")
    add(
        "--patience", type=float, default=patience, metavar="SECONDS",
        help=f"a provider whose call takes longer is called once and then left out (default {patience:g})",
    )  # fmt: skip
    add("--no-memory", action="store_true", help="leave peak memory out")
    add("--base", metavar="COMMIT", help="measure this library at another commit too, in the same turns")
    add("--out", type=Path, default=Path("qna-bench.csv"), metavar="CSV", help="rows are added to it")


def _map(text: str) -> tuple[int, ...]:
    sizes = text.split("x")
    if len(sizes) != 4 or not all(s.isdigit() and int(s) for s in sizes):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no map; write batch x height x width x channels: 8x56x56x64"
        )
    return tuple(map(int, sizes))


def _peers(options: argparse.Namespace) -> int:
    from qna.bench.publish.terminal import Terminal
    from qna.bench.subjects.comparison import compare_peers

    asked, request = _peer_request(options), _request(options)
    providers = len(asked.names()) * len(request.dtypes) * len(request.threads)
    cases = len(list(asked.settings()))
    with Terminal(cases, _steps(providers, request)) as terminal:
        groups = compare_peers(asked, request, terminal.progress)
        return _finish(terminal.shown(groups), options)


def _models(options: argparse.Namespace) -> int:
    from qna.bench.publish.terminal import Terminal
    from qna.bench.subjects.comparison import compare_models

    request = _request(options)
    settings = tuple((batch, size) for size in options.sizes for batch in options.batches)
    if min(min(s) for s in settings) < 1:
        raise InvalidInput(
            f"--batches and --sizes must be at least 1, got {options.batches} and {options.sizes}"
        )
    providers = len(options.models) * len(request.dtypes) * len(request.threads)
    providers *= 2 if options.compile else 1
    with Terminal(len(settings), _steps(providers, request)) as terminal:
        groups = compare_models(
            tuple(options.models), settings, request, terminal.progress, compile=options.compile
        )
        return _finish(terminal.shown(groups), options)


def _accuracy(options: argparse.Namespace) -> int:
    from qna.bench.measure import rows
    from qna.bench.subjects.accuracy import ENTRANTS, measure, planned, without_measured

    given = {"cifar10": options.cifar10_dir, "fashion-mnist": options.fashion_mnist_dir}
    places = {name: folder for name, folder in given.items() if folder is not None}
    runs = planned(options.data, options.entrants or [*ENTRANTS], options.seeds)
    left = without_measured(runs, rows.read(options.out) if options.out.exists() else [])
    print(f"{len(left)} runs, {len(runs) - len(left)} more have their rows in {options.out}")
    for row in measure(left, options.runs, places):
        rows.append(options.out, [row])
        spent = row.extra["cpu_seconds"] / 60
        print(f"{row.case} {row.provider}: {row.p50:.2f} % right, {spent:.1f} CPU minutes", flush=True)
    return 0


def _cost(options: argparse.Namespace) -> int:
    from qna.bench.measure import rows
    from qna.bench.measure.machine import Stamp
    from qna.bench.publish.terminal import print_costs, print_layers
    from qna.bench.subjects.cost import layer_cost, model_cost, model_layers

    if options.size < 1 or min(options.windows) < 1:
        raise InvalidInput(f"sizes must be at least 1, got {options.size} pixels, windows {options.windows}")
    costs = [
        layer_cost(size, window, options.head_dim, options.queries)
        for size in options.maps
        for window in options.windows
    ]
    costs += [model_cost(name, 1, options.size) for name in options.models]
    print_costs(costs)
    for name in options.models if options.layers else []:
        print_layers(f"{name}, one image of {options.size}x{options.size}", model_layers(name, options.size))
    if options.out:
        rows.append(options.out, [row for cost in costs for row in cost.rows(Stamp.now("cpu"))])
        print(f"{4 * len(costs)} rows added to {options.out}")
    return 0


def _tune(options: argparse.Namespace) -> int:
    """Tune case by case: what was measured before an interruption is in the table."""
    from qna._core.errors import check_choice
    from qna.ops.learned_query import ROW
    from qna.ops.learned_query.cases import Case

    def report(measured):
        print(f"{measured.case.name} {measured.kernel}: {measured.before:.4g} -> {measured.time:.4g} ms")

    tune = ROW.tune
    assert tune is not None
    known = {str(dtype).removeprefix("torch."): dtype for dtype in ROW.backend("triton").dtypes or ()}
    dtypes = [known[check_choice("dtype", name, known)] for name in options.dtype]
    for batch, *space, channels in options.maps:
        if channels % options.head_dim:
            raise InvalidInput(f"--head-dim {options.head_dim} does not divide {channels} channels")
        for window in options.windows:
            heads = channels // options.head_dim
            name = "x".join(map(str, (batch, *space, channels))) + f"-k{window}"
            case = Case(name, tuple(space), (window, window), batch, options.queries, heads, options.head_dim)
            for dtype in dtypes:
                tune(case, dtype, options.table, report)
    print(f"tiles written to {options.table}")
    return 0


def _peer_request(options: argparse.Namespace) -> PeerRequest:
    from qna.bench.subjects.comparison import PeerRequest
    from qna.bench.subjects.peers.official import Checkout

    checkout = None
    path, python = (getattr(options, name, None) for name in ("official", "official_python"))
    if (path is None) != (python is None):
        raise InvalidInput(
            "--official and --official-python go together: the code, and a Python that can run it"
        )
    if path is not None and python is not None:
        checkout = Checkout(path, python)
    if min(options.windows) < 1:
        raise InvalidInput(f"--windows must be at least 1, got {options.windows}")
    return PeerRequest(
        options.level,
        tuple(options.peers),
        tuple(options.maps),
        tuple(options.windows),
        head_dim=options.head_dim,
        queries=options.queries,
        checkout=checkout,
    )


def _request(options: argparse.Namespace) -> Request:
    from qna._core.errors import check_choice
    from qna.bench.measure.contender import MODES
    from qna.bench.measure.harness import Plan
    from qna.bench.subjects.comparison import Request
    from qna.bench.subjects.whole_model import STEP

    for mode in options.modes:
        check_choice("mode", mode, (*MODES, STEP))
    plan = Plan(seconds=options.seconds, patience=options.patience, memory=not options.no_memory)
    return Request(
        dtypes=tuple(options.dtype),
        device=options.device,
        threads=tuple(options.threads),
        modes=tuple(options.modes),
        plan=plan,
        base=options.base,
    )


def _steps(providers: int, request: Request) -> int:
    """Progress steps of a case: gate and memory of each provider, and the turns, in each mode."""
    at_base = 2 if request.base else 1
    return len(request.modes) * (2 * providers * at_base + request.plan.turns)


def _finish(groups, options: argparse.Namespace) -> int:
    """Add rows to the file case by case, so that an interruption loses one case at most."""
    from qna.bench.measure import rows
    from qna.bench.measure.machine import Stamp
    from qna.bench.subjects.comparison import rows_of

    stamp, written, wrong = Stamp.now(options.device), 0, []
    for outcomes in groups:
        new = rows_of(outcomes, stamp)
        rows.append(options.out, new)
        written += len(new)
        wrong += [f"{o.provider} in {o.case}" for o in outcomes if o.reason and o.reason.startswith("WRONG")]
    print(f"{stamp.device}; torch {stamp.torch}; commit {stamp.commit}")
    print(f"{written} rows added to {options.out}; pictures: qna plot bench {options.out} --out plots")
    if wrong:
        print(f"no time for a wrong output: {', '.join(wrong)}")
    return 1 if wrong else 0
