"""What 8 bits cost a trained network: held-out images right, answers that change, megabytes, and time.

    qna train --data digits --out runs/digits
    python benchmarks/int8.py runs/digits --size 16

prints a table in Markdown. Times are medians of turns that take each form once, on one thread and one core,
over that of the network in eager mode. Forms that need a package which is not installed are left out. With
--files FOLDER the ONNX files are kept there, and taken from there the next time; with --out CSV the figures
are added to it as rows.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from qna.bench.measure.calls import CallTimes, time_calls
from qna.bench.measure.harness import Plan
from qna.bench.measure.machine import device_name, use_threads
from qna.bench.measure.rows import Row, append
from qna.data import evaluation_batches, load_data
from qna.eval import Classifier
from qna.export import IMAGES, export_onnx
from qna.export.int8 import rounded
from qna.plots import plot_bars
from qna.train.reload import load_classifier

Form = tuple[str, Callable[[Tensor], Tensor], float]


def in_torch(network: nn.Module) -> list[Form]:
    """The network in eager mode, and as quantisers of torch and torchao leave it, plain and fused."""
    found: list[Form] = []
    for fused in (False, True):
        twin = copy.deepcopy(network)
        if fused:
            twin.fuse()  # type: ignore[operator]
        said = "fused, " if fused else ""
        found.append((f"{said or 'eager, '}fp32", twin, megabytes(twin)))
        found.append(
            (f"{said}fp32 of the numbers that ONNX Runtime rounds to", rounded(copy.deepcopy(twin)), 0)
        )
        dynamic = torch.ao.quantization.quantize_dynamic(copy.deepcopy(twin), {nn.Linear})
        found.append((f"{said}torch.ao, dynamic", dynamic, megabytes(dynamic)))
        try:
            import torchao.quantization as torchao
        except ImportError:
            continue
        for what, config in (
            ("weights alone", torchao.Int8WeightOnlyConfig()),
            ("dynamic", torchao.Int8DynamicActivationInt8WeightConfig()),
        ):
            other = copy.deepcopy(twin)
            torchao.quantize_(other, config)
            found.append((f"{said}torchao, {what}", other, megabytes(other)))
    return found


def in_onnx(network: nn.Module, channels: int, folder: Path) -> list[Form]:
    """The network as `qna export` writes it."""
    from qna.export.onnx_file import in_runtime

    found: list[Form] = []
    for int8 in (False, True):
        path = folder / f"{int8}.onnx"
        if not path.exists():
            export_onnx(network, path, ("batch", channels, *IMAGES[2:]), int8=int8)
        # one thread, as for all that is timed here
        run = in_runtime(path, threads=1)
        form = f"ONNX Runtime, {'dynamic' if int8 else 'fp32'}"
        found.append((form, lambda x, run=run: run(x)[0], path.stat().st_size / 1e6))
    return found


def megabytes(module: nn.Module) -> float:
    """Of the module's state, as torch saves it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        torch.save(module.state_dict(), path)
        return path.stat().st_size / 1e6


def answers(run: Callable[[Tensor], Tensor], classifier: Classifier) -> tuple[Tensor, Tensor]:
    """Class of every held-out image, as answered and as labelled."""
    data = load_data(classifier.data or "digits")
    prepared = classifier.view.pixels(data.held_out)
    pairs = [
        (run(classifier.view.standardise(batch.images)).argmax(1), batch.labels)
        for batch in evaluation_batches(data.held_out, prepared, 64)
    ]
    said, right = zip(*pairs, strict=True)
    return torch.cat(said), torch.cat(right)


def rows_of(case: str, times: CallTimes, figures: Mapping[str, tuple[float, float, int]]) -> list[Row]:
    """Times of each form in milliseconds, and what it holds and says, as rows.

    Args:
        case: what was timed.
        times: of the forms.
        figures: megabytes, per cent right and answers changed, by form.
    """
    stamp, found = times.stamp, []
    for name, (size, right, changed) in figures.items():
        time = tuple(1e3 * seconds for seconds in times.spread(name))
        measured = [("forward", "time", "ms", time), ("none", "top1", "%", (right,) * 3)]
        measured.append(("none", "changed", "1", (changed,) * 3))
        if size:
            measured.append(("none", "size", "MB", (size,) * 3))
        found += [
            Row(
                case,
                name,
                mode,
                metric,
                unit,
                *numbers,
                stamp.device,
                1,
                stamp.torch,
                stamp.commit,
                stamp.date,
            )
            for mode, metric, unit, numbers in measured
        ]
    return found


def draw(path: Path, panels: Mapping[str, Mapping[str, float]], note: str) -> None:
    """Draw parts of what eager mode takes: for each panel, by form."""
    plot_bars(
        path,
        [
            {
                "title": title,
                "bars": [{"name": n, "value": v, "low": v, "high": v} for n, v in values.items()],
            }
            for title, values in panels.items()
        ],
        title="A network of half a million parameters in 8 bits",
        note=note,
        xlabel="eager, fp32 = 1",
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of a run of `qna train`")
    parser.add_argument("--size", type=int, nargs="+", default=[16, 224], help="pixels of the timed images")
    parser.add_argument("--batch", type=int, default=8, help="timed images per call")
    parser.add_argument("--seconds", type=float, default=2.0, help="for the calls of each form and size")
    parser.add_argument("--out", type=Path, metavar="CSV", help="rows are added to it")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="a PNG to draw it in, with an SVG beside"
    )
    parser.add_argument("--files", type=Path, metavar="FOLDER", help="where the ONNX files are kept")
    options = parser.parse_args()
    use_threads(1)
    warnings.simplefilter("ignore")
    classifier = load_classifier(options.run)
    channels = classifier.view.channels
    with TemporaryDirectory() as folder, torch.no_grad():
        forms = in_torch(classifier.network) + in_onnx(
            classifier.network, channels, options.files or Path(folder)
        )
        times = {
            size: time_calls(
                {
                    name: partial(run, x)
                    for x in [torch.randn(options.batch, channels, size, size)]
                    for name, run, _ in forms
                },
                plan=Plan(seconds=options.seconds, patience=20),
            )
            for size in options.size
        }
        first, labels = answers(forms[0][1], classifier)
        figures = {}
        for name, run, size in forms:
            said, _ = answers(run, classifier)
            right = 100 * float((said == labels).double().mean())
            figures[name] = size, right, int((said != first).sum())
    for size, taken in times.items() if options.out else ():
        append(options.out, rows_of(f"int8-{options.batch}x{size}x{size}", taken, figures))
    eager_name, eager_size = forms[0][0], forms[0][2]
    ratios = {
        f"time at {size} px": {n: t / taken.medians[eager_name] for n, t in taken.medians.items()}
        for size, taken in times.items()
    }
    print(f"| form | right, % | changed | MB | {' | '.join(ratios)} |")
    print(f"|---|---:|---:|---:|{'---:|' * len(ratios)}")
    for name, (size, right, changed) in figures.items():
        cells = " | ".join(f"{ratio[name]:.2f}" for ratio in ratios.values())
        print(f"| {name} | {right:.2f} | {changed} | {f'{size:.2f}' if size else ''} | {cells} |")
    eager = ", ".join(
        f"{1e3 * taken.medians[eager_name]:.2f} ms at {size} px" for size, taken in times.items()
    )
    where = f"batches of {options.batch}, 1 thread, {device_name('cpu')}, torch {torch.__version__}"
    print(f"\nEager takes {eager}; {where}")
    if options.picture is not None:
        # what the files are held to is none of the forms that one would take
        held = {name: size / eager_size for name, (size, _, _) in figures.items() if size}
        panels = {title: {name: ratio[name] for name in held} for title, ratio in ratios.items()}
        draw(options.picture, {**panels, "megabytes": held}, where)


if __name__ == "__main__":
    main()
