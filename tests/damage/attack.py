"""Damages a file many times in a process of its own and notes what became of each."""

import random
import resource
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch

from qna._core.errors import InvalidInput
from tests.damage.formats import FORMATS

# address space beyond what the process has: nothing that a file of this size asks for may reach it
ROOM = 2**31


@dataclass
class Outcome:
    """What became of the files.

    Attributes:
        refused: how many, each in one sentence.
        faults: what else happened, with the number of the file.
        grown: bytes by which the process grew at most.
    """

    refused: int = 0
    faults: list[str] = field(default_factory=list)
    grown: int = 0


def attack(name: str, whole: Path, place: Path, count: int, crafted: tuple[bytes, ...] = ()) -> Outcome:
    """Let the reader of a format read `count` damaged files and all `crafted` ones.

    Args:
        name: in FORMATS.
        whole: folder with whole files.
        place: a folder to be made, for copies of them.
        count: number of damaged files.
        crafted: contents of further files.
    """
    torch.set_num_threads(1)
    form, outcome = FORMATS[name], Outcome()
    content = (whole / form.file).read_bytes()
    shutil.copytree(whole, place)
    form.read(place / form.file)  # what this loads and keeps is no growth
    before = _peak()
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + ROOM, resource.RLIM_INFINITY))
    for number in range(-len(crafted), count):
        rng = random.Random(f"{name} {number}")
        change = form.changes[number % len(form.changes)]
        path = place / form.file
        path.write_bytes(crafted[number] if number < 0 else change(content, rng))
        files = _files(place)
        is_refused, fault = _taken(form.read, path)
        outcome.refused += is_refused
        if _files(place) != files:
            fault = fault or ("files changed" if is_refused else None)
            shutil.rmtree(place)
            shutil.copytree(whole, place)
        path.write_bytes(content)
        if fault is not None:
            outcome.faults.append(f"{number}: {fault}")
    outcome.grown = _peak() - before
    return outcome


def _taken(read, path):
    """Whether a file was refused, and what is wrong with how that was done."""
    try:
        read(path)
    except InvalidInput as error:
        said = str(error)
        if "\n" in said or not 10 < len(said) < 2000:
            return True, f"said {said[:300]!r}"
        if "MemoryError" in said or "allocate" in said:
            return True, f"asked for more than {ROOM:,} bytes: {said[:300]!r}"
        return True, None
    except BaseException as error:
        return False, f"{type(error).__name__}: {str(error)[:300]}"
    return False, None


def _files(folder):
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def _peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
