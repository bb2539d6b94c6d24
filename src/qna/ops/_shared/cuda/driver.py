"""CUDA's driver by its public C interface: kernels loaded once per device, run on torch's current stream."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import NamedTuple

import torch

from qna.ops._shared.cuda import nvrtc
from qna.ops._shared.cuda.program import CudaLaunch, Program

# of a device: bytes of shared memory that a multiprocessor has, and that a block may ask for
_PER_MULTIPROCESSOR, _PER_BLOCK = 81, 97
# of a function: bytes of shared memory that its launches may ask for, and how many percent of the processor's
# memory are to be shared memory and not cache
_DYNAMIC_SHARED, _CARVEOUT = 8, 9


class Limits(NamedTuple):
    """Bytes of shared memory."""

    block: int
    multiprocessor: int


def missing() -> list[str]:
    """What this machine lacks, as sentences."""
    if torch.version.hip:
        return ["this is torch for AMD cards, which run no CUDA"]
    reasons = nvrtc.missing()
    if not torch.cuda.is_available():
        reasons.append("torch sees no GPU (torch.cuda.is_available() is False)")
    return reasons


@cache
def architecture(device: torch.device) -> str:
    """The generation of a card, as compilers name it."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@cache
def limits(device: torch.device) -> Limits:
    """What a card has of shared memory."""
    found = []
    for attribute in (_PER_BLOCK, _PER_MULTIPROCESSOR):
        number = ctypes.c_int()
        _check("cuDeviceGetAttribute", ctypes.byref(number), attribute, _index(device))
        found.append(number.value)
    return Limits(*found)


def load(program: Program, device: torch.device, shared: int) -> ctypes.c_void_p:
    """A kernel of a device, compiled and loaded on its first use.

    Raises:
        CompileFailed: as `nvrtc.compiled`.
        RuntimeError: the driver refuses it.
    """
    return _function(program, _index(device), shared)


def run(launch: CudaLaunch) -> None:
    """CudaLaunch a kernel on the current stream of the device of its tensors."""
    with torch.cuda.device(launch.device):
        function = load(launch.program, launch.device, launch.shared)
        _enter(_index(launch.device))
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(launch.call))
        stream = ctypes.c_void_p(torch.cuda.current_stream(launch.device).cuda_stream)
        grid = (launch.blocks, 1, 1, launch.threads, 1, 1)
        _check("cuLaunchKernel", function, *grid, launch.shared, stream, arguments, None)


@cache
def _function(program: Program, index: int, shared: int) -> ctypes.c_void_p:
    device = torch.device("cuda", index)
    binary = nvrtc.compiled(program, architecture(device))
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    with torch.cuda.device(device):
        _enter(index)
        _check("cuModuleLoadData", ctypes.byref(module), binary)
        _check("cuModuleGetFunction", ctypes.byref(function), module, program.kernel.encode())
        _check("cuFuncSetAttribute", function, _DYNAMIC_SHARED, shared)
        _check("cuFuncSetAttribute", function, _CARVEOUT, 100)
    return function


def _enter(index: int) -> None:
    """Make torch's context current in this thread, which may be one of autograd's that has none yet."""
    context = ctypes.c_void_p()
    _check("cuCtxGetCurrent", ctypes.byref(context))
    if not context:
        _check("cuDevicePrimaryCtxRetain", ctypes.byref(context), index)
        _check("cuCtxSetCurrent", context)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


@cache
def _library() -> ctypes.CDLL:
    # its context is torch's, which has to exist
    torch.cuda.init()
    return ctypes.CDLL("libcuda.so.1")


def _check(function: str, *arguments: object) -> None:
    library = _library()
    if status := getattr(library, function)(*arguments):
        text = ctypes.c_char_p()
        library.cuGetErrorString(status, ctypes.byref(text))
        raise RuntimeError(f"{function}: {(text.value or b'error ' + str(status).encode()).decode()}")
