"""`qna bench`: time and memory side by side, by the method of docs/benchmarking.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from qna.cli import _bench_runs

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
        verb.set_defaults(run=_bench_runs.peers, level=level)
    for name, text in (
        ("model", "images per second of whole models"),
        ("train-step", "training steps of whole models: forward, loss, backward, AdamW"),
    ):
        verb = verbs.add_parser(name, help=text, description=f"Compare {text}.")
        verb.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help="names that timm knows")
        verb.add_argument("--sizes", nargs="+", type=int, default=[224], metavar="PIXELS")
        verb.add_argument("--batches", nargs="+", type=int, default=[1, 8], metavar="IMAGES")
        verb.add_argument("--compile", action="store_true", help="each model also under torch.compile")
        verb.add_argument(
            "--adapter",
            nargs="+",
            action="append",
            default=[],
            metavar=("NAME", "ARGUMENT=VALUE"),
            help="each model also with this around it, for example evit keep_rate=0.7; may be given again",
        )
        _add_common(verb, seconds=2.0, patience=20.0)
        verb.set_defaults(run=_bench_runs.models, modes=["step" if name == "train-step" else "forward"])
    _add_accuracy(verbs.add_parser("accuracy", help=ACCURACY, description=f"Compare {ACCURACY}."))
    _add_mixers(
        verbs.add_parser(
            "mixers",
            help="every mixer of images in one backbone: accuracy, time and memory",
            description="Train one backbone with every mixer of images, each with the best of several rates, "
            "and measure its time and memory. What has a row is not trained again.",
        )
    )
    _add_sequence(
        verbs.add_parser(
            "sequence",
            help="causal mixers on long sequences: a prompt at once, then one position after the other",
            description="Measure causal mixers on long sequences, on one core: positions per second of a "
            "prompt in one step and of single steps behind it, with peak memory.",
        )
    )
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
    verb.set_defaults(run=_bench_runs.cost, windows=[3, 7, 13])
    verb = verbs.add_parser(
        "products",
        help="which of torch's libraries is fast for a product, on this processor",
        description="Time products of matrices by each library that torch has on a CPU, on one core, and put "
        "the fastest of each shape into the table that linear maps look up.",
    )
    verb.add_argument("--seconds", type=float, default=0.1, metavar="S", help="per shape, mode and library")
    verb.add_argument("--table", type=Path, metavar="CSV", help="the table to change (default: qna's own)")
    verb.set_defaults(run=_bench_runs.products)
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
    _add_op(verb)
    _add_sizes(verb)
    verb.add_argument("--dtype", nargs="+", default=["bfloat16"], metavar="DTYPE")
    verb.add_argument("--table", type=Path, help="the file of tiles to change (default: qna's own)")
    verb.set_defaults(run=_bench_runs.tune, maps=[(64, 56, 56, 64)])


def _add_accuracy(verb: argparse.ArgumentParser) -> None:
    add = verb.add_argument
    add("--entrants", nargs="+", metavar="NAME", help="which models (default: all)")
    add("--seeds", nargs="+", type=int, default=[0], metavar="N")
    _add_data(verb)
    add(
        "--out", type=Path, default=Path("qna-accuracy.csv"), metavar="CSV",
        help="a row is added after each run; what has one is not run again",
    )  # fmt: skip
    verb.set_defaults(run=_bench_runs.accuracy)


def _add_mixers(verb: argparse.ArgumentParser) -> None:
    add = verb.add_argument
    add(
        "--what",
        nargs="+",
        default=["accuracy", "cost"],
        metavar="WHAT",
        help="accuracy, cost or both (default)",
    )
    add("--mixers", nargs="+", metavar="NAME", help="which (default: all)")
    add("--seeds", nargs="+", type=int, default=[0, 1], metavar="N", help="the first chooses the rate")
    add("--rates", nargs="+", type=float, default=[4e-3, 8e-3, 1.6e-2], metavar="LR", help="per 256 images")
    add("--sizes", nargs="+", type=int, default=[32, 224, 512], metavar="PIXELS", help="of time and memory")
    add("--batches", nargs="+", type=int, default=[1], metavar="IMAGES")
    _add_data(verb)
    _add_common(verb, seconds=1.0, patience=20.0)
    verb.set_defaults(run=_bench_runs.mixers, modes=["forward", "forward+backward"])


def _add_sequence(verb: argparse.ArgumentParser) -> None:
    add = verb.add_argument
    add("--mixers", nargs="+", metavar="NAME", help="which causal mixers (default: all)")
    add("--lengths", nargs="+", type=int, default=[1024, 8192, 32768], metavar="N", help="of prompts")
    add("--dim", type=int, default=256, metavar="C", help="channels (default 256)")
    add("--dtype", nargs="+", default=["float32", "bfloat16"], metavar="DTYPE")
    add("--seconds", type=float, default=1.0, help="for each figure (default 1)")
    add("--no-memory", action="store_true", help="leave peak memory out")
    add("--out", type=Path, default=Path("qna-bench.csv"), metavar="CSV", help="rows are added to it")
    verb.set_defaults(run=_bench_runs.sequence)


def _add_data(verb: argparse.ArgumentParser) -> None:
    """What to train on, and where."""
    add = verb.add_argument
    add("--data", nargs="+", default=["cifar10", "fashion-mnist"], metavar="NAME")
    for name in ("cifar10", "fashion-mnist"):
        add(f"--{name}-dir", type=Path, metavar="DIR", help=f"where {name} is (default: the usual places)")
    add("--runs", type=Path, default=Path("runs/accuracy"), metavar="DIR", help="a folder for every run")


def _add_peers(verb: argparse.ArgumentParser, level: str) -> None:
    add = verb.add_argument
    add("--peers", nargs="+", default=["all"], metavar="NAME", help="which, or all (default)")
    _add_sizes(verb)
    add("--modes", nargs="+", default=["forward", "forward+backward"], metavar="MODE")
    if level == "op":
        _add_op(verb)
    else:
        add("--official", type=Path, metavar="PATH", help="a checkout of the authors' JAX code")
        add("--official-python", type=Path, metavar="PYTHON", help="a Python with jax and flax")


def _add_op(verb: argparse.ArgumentParser) -> None:
    add = verb.add_argument
    add("--op", default="learned_query", metavar="NAME", help="of qna.ops (default learned_query)")


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
