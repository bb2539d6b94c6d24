"""NVRTC, NVIDIA's compiler as a library, by its public C interface.

torch's CUDA wheels bring the library. ``torch.cuda._compile_kernel`` is not used: it is private, passes
integers as 32 bits, and compiles nothing where torch itself was built without CUDA, which is where the tests
compile for every generation of cards. ``cuda-core`` is public, and one more package that nothing else here
needs.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from functools import cache
from pathlib import Path

import torch

from qna.ops._shared.cuda.program import Program

STANDARD = "-std=c++17"


class CompileFailed(RuntimeError):
    """NVRTC refused a source; the text is its log."""


def missing() -> list[str]:
    """What this machine lacks, as sentences."""
    if sys.platform != "linux":
        return [f"NVRTC is looked for on Linux, and this is {sys.platform}"]
    # torch.compile cannot trace the search: what it records without the library fails on its first call, in
    # these words
    if not torch.compiler.is_compiling() and _library() is None:
        return ["NVRTC is not installed: pip install nvidia-cuda-nvrtc (torch's CUDA wheels bring it)"]
    return []


def version() -> tuple[int, int]:
    """Of the library, major and minor.

    Raises:
        CompileFailed: it is not installed.
    """
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


@cache
def compiled(program: Program, architecture: str) -> bytes:
    """The machine code (a cubin) for one generation of cards, "sm_90"; kept for the life of the process.

    Raises:
        CompileFailed: with the compiler's log, or because the library is not installed.
    """
    source = f'#include "{program.kernel}.cu"\n'.encode()
    handle = ctypes.c_void_p()
    _check(
        "nvrtcCreateProgram", ctypes.byref(handle), source, f"{program.kernel}.run".encode(), 0, None, None
    )
    try:
        options = [STANDARD, f"--gpu-architecture={architecture}", f"-I{program.folder}", *program.defines]
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        try:
            _check("nvrtcCompileProgram", handle, len(options), array)
        except CompileFailed as error:
            log = (
                _text("nvrtcGetProgramLogSize", "nvrtcGetProgramLog", handle)
                .rstrip(b"\0")
                .decode(errors="replace")
            )
            raise CompileFailed(f"{program.kernel} for {architecture}: {error}\n{log}".rstrip()) from None
        return _text("nvrtcGetCUBINSize", "nvrtcGetCUBIN", handle)
    finally:
        _check("nvrtcDestroyProgram", ctypes.byref(handle))


@cache
def failure(program: Program, architecture: str) -> str | None:
    """Why a program does not compile, or None where it does: asked once, and compiled by the question."""
    try:
        compiled(program, architecture)
    except CompileFailed as error:
        return str(error)
    return None


def _check(function: str, *arguments: object) -> None:
    library = _library()
    if library is None:
        raise CompileFailed("; ".join(missing()))
    if status := getattr(library, function)(*arguments):
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise CompileFailed(f"{function}: {library.nvrtcGetErrorString(status).decode()}")


def _text(size: str, get: str, handle: ctypes.c_void_p) -> bytes:
    number = ctypes.c_size_t()
    _check(size, handle, ctypes.byref(number))
    buffer = ctypes.create_string_buffer(number.value)
    _check(get, handle, buffer)
    return buffer.raw


@cache
def _library() -> ctypes.CDLL | None:
    """The library that torch's own version of CUDA goes with, else the newest."""
    for path in _candidates():
        try:
            # it looks for its builtins by name, which finds what is loaded already
            for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(str(path))
        except OSError:
            continue
    return None


def _candidates() -> list[Path]:
    """In the wheels of NVIDIA, then where the loader looks."""
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    found = [path for root in roots for path in Path(root).glob("*/lib/libnvrtc.so.*")]
    own = int((torch.version.cuda or "0").split(".")[0])

    def rank(path: Path) -> tuple[bool, int]:
        major = int(re.findall(r"\d+", path.name)[0])
        return major == own, major

    found.sort(key=rank, reverse=True)
    return [*found, *(Path(f"libnvrtc.so.{major}") for major in ([own] if own else [13, 12]))]
