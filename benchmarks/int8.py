"""What 8 bits cost a trained network: held-out images right, answers that change, megabytes, and time.

    qna train --data digits --out runs/digits
    python benchmarks/int8.py runs/digits --size 16

prints a table in Markdown. Times are medians of turns that take each form once, on one thread and one core,
over that of the network in eager mode. Forms that need a package which is not installed are left out. With
--files FOLDER the ONNX files are kept there, and taken from there the next time.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from qna.bench.measure.machine import device_name, use_threads
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


def seconds(forms: list[Form], x: Tensor, turns: int) -> list[float]:
    """Median time of each form, taken in turns."""
    spent: list[list[float]] = [[] for _ in forms]
    for _ in range(turns + 1):
        for (_, run, _), times in zip(forms, spent, strict=True):
            begin = time.perf_counter()
            run(x)
            times.append(time.perf_counter() - begin)
    return [statistics.median(times[1:]) for times in spent]


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
    parser.add_argument("--turns", type=int, default=11)
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
        times = [
            seconds(forms, torch.randn(options.batch, channels, size, size), options.turns)
            for size in options.size
        ]
        heads = [f"time at {size} px" for size in options.size]
        print(f"| form | right | changed | MB | {' | '.join(heads)} |")
        print(f"|---|---:|---:|---:|{'---:|' * len(heads)}")
        panels: dict[str, dict[str, float]] = {head: {} for head in [*heads, "megabytes"]}
        first, labels = answers(forms[0][1], classifier)
        for number, (name, run, size) in enumerate(forms):
            said, _ = answers(run, classifier)
            right, changed = int((said == labels).sum()), int((said != first).sum())
            cells = [f"{row[number] / row[0]:.2f}" for row in times]
            held = f"{size:.2f}" if size else ""
            if size:  # not what the files are held to
                ratios = [*(row[number] / row[0] for row in times), size / forms[0][2]]
                for panel, ratio in zip(panels.values(), ratios, strict=True):
                    panel[name] = ratio
            print(f"| {name} | {right} of {len(labels)} | {changed} | {held} | {' | '.join(cells)} |")
    eager = ", ".join(
        f"{1e3 * row[0]:.2f} ms at {size} px" for size, row in zip(options.size, times, strict=True)
    )
    where = f"batches of {options.batch}, 1 thread, {device_name('cpu')}, torch {torch.__version__}"
    print(f"\nEager takes {eager}; {where}")
    if options.picture is not None:
        draw(options.picture, panels, where)


if __name__ == "__main__":
    main()
