"""`qna eval`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from qna._core.errors import InvalidInput, require
from qna._core.outside import as_line
from qna.cli import _classifiers

if TYPE_CHECKING:
    from qna.data import ImageData
    from qna.eval import Classifier, Failure, Judgement

_DESCRIPTION = """\
Judge trained networks on held-out images, side by side: accuracy, loss, calibration, speed, every class, and
what is left of the accuracy when images are corrupted. Tables go to the terminal, and with pictures, CSV and
JSON to a folder. A network that answers with NaN gets a row with this error, and the command then ends with
status 1. Networks that segment are judged by intersection over union, of regions and of their outlines,
networks of volumes by Dice and by the lesions of each size that they find, detectors by mean average
precision as COCO counts it, networks of language by bits per byte or by answers that are right, with their
speed and what they remember.
"""


def main(arguments: list[str]) -> int:
    """Judge every network and write the folder."""
    parser = argparse.ArgumentParser("qna eval", description=_DESCRIPTION)
    parser.add_argument("models", nargs="+", metavar="MODEL", help=_classifiers.SOURCES)
    parser.add_argument("--data", help="as for `qna train`; default: what the first run was trained on")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where a named data set's files are")
    parser.add_argument("--download", action="store_true", help="fetch what is missing of a named data set")
    parser.add_argument(
        "--corruptions",
        nargs="+",
        metavar="NAME",
        help="noise, blur, brightness, jpeg (default: all), or none",
    )
    parser.add_argument(
        "--severities",
        nargs="+",
        type=_classifiers.whole,
        default=[1, 3, 5],
        metavar="S",
        help="of each corruption, 1 to 5 (default 1 3 5)",
    )
    parser.add_argument("--batch-size", type=_classifiers.whole, default=64, metavar="N", help="default 64")
    parser.add_argument(
        "--workers", type=_classifiers.whole, default=0, metavar="N", help="processes that read images"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default runs/eval-DATA; numbered anew if it holds anything"
    )
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=_classifiers.whole,
        metavar="N",
        help="tokens of the sequences that networks of language are judged on, beside that of training",
    )
    _classifiers.add_options(parser)
    options = parser.parse_args(arguments)
    for package in ("matplotlib", "rich"):
        require(package, extra="train", purpose="`qna eval`")  # now, not when all is measured
    from qna.cli._eval_report import print_report, write_report
    from qna.train.folder import claim_folder
    from qna.train.reload import task_of

    tasks = {task_of(source) for source in options.models}
    for name in ("batch_size", "workers"):
        low = 0 if name == "workers" else 1
        if getattr(options, name) < low:
            raise InvalidInput(f"{name} must be at least {low}, got {getattr(options, name)}")
    if tasks == {"language"}:
        from qna.cli._language_eval import eval_language

        return eval_language(parser, options, arguments)
    if options.lengths is not None:
        raise InvalidInput("--lengths is of sequences, which networks of language alone are judged on")
    if tasks == {"segmentation"}:
        from qna.cli._segmenters import eval_masks

        return eval_masks(parser, options, arguments)
    if tasks == {"detection"}:
        from qna.cli._detectors import eval_boxes

        return eval_boxes(parser, options, arguments)
    if tasks == {"volumes"}:
        from qna.cli._volumes import eval_volumes

        return eval_volumes(parser, options, arguments)
    if tasks != {"classification"}:
        told = ", ".join(sorted(tasks))
        raise InvalidInput(
            f"`qna eval` judges networks of one task that it knows side by side, got {told}: ask for each "
            "alone"
        )
    data, classifiers = _prepare(options)
    judgements, failures = _judge(options, data, classifiers)
    print_report(judgements, failures)
    folder = claim_folder(options.out or Path("runs") / f"eval-{Path(data.name).name}")
    try:
        files = write_report(folder, judgements, [*arguments], failures)
    except OSError as error:
        print(f"qna: cannot write the report to {as_line(str(folder))}: {error}", file=sys.stderr)
        return 1
    for name, path in files.items():
        print(f"{name:<12}  {as_line(str(path))}")
    return 1 if failures else 0


def _prepare(options: argparse.Namespace) -> tuple[ImageData, list[Classifier]]:
    """The images and the networks; everything that can be refused is refused here."""
    from qna.data import load_data
    from qna.train.reload import is_timm_name

    _check(options)
    runs = [source for source in options.models if not is_timm_name(source)]
    name, folder = options.data, options.data_dir
    data = None
    if name is not None:
        data = load_data(name, folder, download=options.download)
    elif not runs:
        raise InvalidInput("timm's names do not say which images they are for: give --data")
    classifiers = _classifiers.load(options, options.models, channels=data.channels if data else None)
    if data is None:
        trained_on = next((c for c in classifiers if c.data is not None), None)
        if trained_on is None or trained_on.data is None:
            raise InvalidInput("none of the networks says which images it is for: give --data")
        if folder is None and trained_on.data_dir is not None:
            folder = Path(trained_on.data_dir)
        try:
            data = load_data(trained_on.data, folder, download=options.download)
        except InvalidInput as error:
            raise InvalidInput(
                f"{trained_on.name} was trained on {trained_on.data!r}, which cannot be had: {error}; "
                "--data names other images"
            ) from None
    for classifier in classifiers:
        classifier.require_fit(data)
    return data, classifiers


def _check(options: argparse.Namespace) -> None:
    from qna.eval.corruptions import CORRUPTIONS, SEVERITIES, corruption

    if options.corruptions is None:
        options.corruptions = list(CORRUPTIONS)
    elif options.corruptions == ["none"]:
        options.corruptions = []
    for name in options.corruptions:
        corruption(name)
    for severity in options.severities:
        if severity not in SEVERITIES:
            raise InvalidInput(f"severities are 1 to 5, got {severity}")


def _judge(
    options: argparse.Namespace, data: ImageData, classifiers: list[Classifier]
) -> tuple[list[Judgement], list[Failure]]:
    """What is found of each network, and which of them cannot be judged."""
    from qna.cli._progress import bars
    from qna.eval import Failure, UnusableAnswers, judge

    device = _classifiers.device(options)
    judgements, failures = [], []
    with bars("`qna eval`") as begin:
        for classifier in classifiers:
            try:
                judgement = judge(
                    classifier,
                    data,
                    corruptions=options.corruptions,
                    severities=sorted(set(options.severities)),
                    batch_size=options.batch_size,
                    workers=options.workers,
                    device=device,
                    told=begin(classifier.name, len(data.held_out)),
                )
            except UnusableAnswers as error:
                failures.append(Failure(classifier.name, str(error)))
            else:
                judgements.append(judgement)
    return judgements, failures
