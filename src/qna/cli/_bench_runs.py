"""What each verb of `qna bench` does with its options."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qna._core.errors import InvalidInput

if TYPE_CHECKING:
    from qna.bench.measure.rows import Row
    from qna.bench.subjects.accuracy import Run
    from qna.bench.subjects.comparison import ModelChoice, PeerRequest, Request


def peers(options: argparse.Namespace) -> int:
    from qna.bench.publish.terminal import Terminal
    from qna.bench.subjects.comparison import compare_peers

    asked, request = _peer_request(options), _request(options)
    providers = len(asked.names()) * len(request.dtypes) * len(request.threads)
    cases = len(list(asked.settings()))
    with Terminal(cases, _steps(providers, request)) as terminal:
        groups = compare_peers(asked, request, terminal.progress)
        return _finish(terminal.shown(groups), options)


def models(options: argparse.Namespace) -> int:
    from qna.adapters import adapter
    from qna.bench.subjects.comparison import ModelChoice
    from qna.train.config import named_values

    around = [adapter(name, **named_values(words, "--adapter")) for name, *words in options.adapter]
    # the bare model comes first, in the same turns
    choices = [ModelChoice(name, adapter=each) for name in options.models for each in (None, *around)]
    return _models(choices, options, compile=options.compile, case="adapters" if around else "model")


def accuracy(options: argparse.Namespace) -> int:
    from qna.bench.subjects.accuracy import ENTRANTS, planned, without_measured

    runs = planned(options.data, options.entrants or [*ENTRANTS], options.seeds)
    left = without_measured(runs, _rows_of(options.out))
    print(f"{len(left)} runs, {len(runs) - len(left)} more have their rows in {options.out}")
    _train(left, options, [])
    return 0


def mixers(options: argparse.Namespace) -> int:
    from qna._core.errors import check_choice
    from qna.bench.subjects import mixer_table

    for what in options.what:
        check_choice("WHAT", what, ("accuracy", "cost"))
    names = options.mixers or [*mixer_table.CONTENDERS]
    chosen = mixer_table.models(names)
    if "accuracy" in options.what:
        known = _rows_of(options.out)
        runs = mixer_table.runs(options.data, names, options.seeds, options.rates, known)
        _train(runs, options, known)
    if "cost" not in options.what:
        return 0
    return _models(chosen, options, case=mixer_table.TABLE, declines=mixer_table.declines)


def sequence(options: argparse.Namespace) -> int:
    from qna.bench.measure import rows
    from qna.bench.measure.harness import Plan
    from qna.bench.subjects.sequence import SequenceSetting, measured, names

    settings = [
        SequenceSetting(length, options.dim, dtype) for length in options.lengths for dtype in options.dtype
    ]
    plan = Plan(seconds=options.seconds, patience=max(1.0, options.seconds))
    written, wrong = 0, False
    for found in measured(options.mixers or names(), settings, plan, memory=not options.no_memory):
        head = f"{found.name} {found.setting.length:,} x {found.setting.dim} {found.setting.dtype}"
        told = [f"{row.case.partition('-')[0]} {row.p50:,.4g} {row.unit}" for row in found.rows]
        print(f"{head}: {found.reason or ', '.join(told)}", flush=True)
        wrong |= found.reason is not None and found.reason.startswith("WRONG")
        rows.append(options.out, found.rows)
        written += len(found.rows)
    print(f"{written} rows added to {options.out}")
    return 1 if wrong else 0


def cost(options: argparse.Namespace) -> int:
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


def products(options: argparse.Namespace) -> int:
    from qna.bench.measure.harness import Plan
    from qna.bench.subjects.products import measured, shapes
    from qna.parts import product_routes

    path = options.table or product_routes.PATH
    plan = Plan(seconds=options.seconds, turns=3)
    rows = list(measured(plan, shapes(), partial(print, flush=True)))
    product_routes.save(rows, path)
    print(f"{len(rows)} rows of {rows[0].processor} put into {path}")
    return 0


def tune(options: argparse.Namespace) -> int:
    """Tune case by case: what was measured before an interruption is in the table."""
    import torch

    from qna._core.errors import check_choice
    from qna.bench.measure.contender import DTYPES
    from qna.bench.subjects.ops import case_of, op_row
    from qna.ops.learned_query.triton.tiles import PATH

    def report(measured):
        print(f"{measured.case.name} {measured.kernel}: {measured.before:.4g} -> {measured.time:.4g} ms")

    row = op_row(options.op)
    if row.tune is None:
        raise InvalidInput(f"--op {options.op} has no kernels whose tiles could be tuned")
    path = options.table or PATH
    known = [name for name in DTYPES if name != "float64"]  # which the kernels of GPUs do not take
    dtypes = [getattr(torch, check_choice("dtype", name, known)) for name in options.dtype]
    for batch, *space, channels in options.maps:
        if channels % options.head_dim:
            raise InvalidInput(f"--head-dim {options.head_dim} does not divide {channels} channels")
        for window in options.windows:
            case = case_of(
                row,
                name="x".join(map(str, (batch, *space, channels))) + f"-k{window}",
                space=tuple(space),
                kernel=(window, window),
                batch=batch,
                queries=options.queries,
                heads=channels // options.head_dim,
                head_dim=options.head_dim,
            )
            for dtype in dtypes:
                row.tune(case, dtype, path, report)
    print(f"tiles written to {path}")
    return 0


def _models(choices: Sequence[ModelChoice], options: argparse.Namespace, **further: Any) -> int:
    """Measure models at all sizes and batches of the options."""
    from qna.bench.publish.terminal import Terminal
    from qna.bench.subjects.comparison import compare_models

    request = _request(options)
    settings = tuple((batch, size) for size in options.sizes for batch in options.batches)
    if min(min(s) for s in settings) < 1:
        raise InvalidInput(
            f"--batches and --sizes must be at least 1, got {options.batches} and {options.sizes}"
        )
    providers = len(choices) * len(request.dtypes) * len(request.threads)
    providers *= 2 if further.get("compile") else 1
    with Terminal(len(settings), _steps(providers, request)) as terminal:
        groups = compare_models(choices, settings, request, terminal.progress, **further)
        return _finish(terminal.shown(groups), options)


def _train(runs: Iterable[Run], options: argparse.Namespace, known: list[Row]) -> None:
    """Train one after the other; the row of each is in the file, and in `known`, before the next begins."""
    from qna.bench.measure import rows
    from qna.bench.subjects.accuracy import measure

    given = {"cifar10": options.cifar10_dir, "fashion-mnist": options.fashion_mnist_dir}
    places = {name: folder for name, folder in given.items() if folder is not None}
    for row in measure(runs, options.runs, places):
        rows.append(options.out, [row])
        known.append(row)
        spent = row.extra["cpu_seconds"] / 60
        print(f"{row.case} {row.provider}: {row.p50:.2f} % right, {spent:.1f} CPU minutes", flush=True)


def _rows_of(path: Path) -> list[Row]:
    from qna.bench.measure import rows

    return rows.read(path) if path.exists() else []


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
        op=getattr(options, "op", "learned_query"),
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
    from qna.bench.measure.outcomes import rows_of

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
