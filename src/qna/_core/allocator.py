"""What this process does with the memory that it frees."""

from __future__ import annotations

import ctypes
import os


def keep_freed_blocks() -> None:
    """Let this process keep the memory that it frees, to use it again, where its allocator is glibc's.

    Otherwise large blocks go back to the system and come again page by page, each time anew, or do not, as it
    happens.
    """
    set_parameter = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_parameter is not None:
        set_parameter(-4, 0)  # mmap_max: no block has a mapping of its own
        set_parameter(-1, 2**31 - 1)  # trim_threshold: nothing at the heap's end goes back
