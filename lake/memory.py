"""Give memory back as soon as it is free: what a pull of many batches holds is then that of the batches in hand."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import pyarrow as pa

# Of glibc's malloc.h.
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8

# Arrays from this size on are mapped, and unmapped once they are free, bytes.
_MAPPED = 1 << 20


@cache
def give_back() -> None:
    """Let freed arrays go back to the system, in this process, from now on.

    Arrow's own allocator keeps what threads have freed, and glibc's raises the size from which it maps arrays with
    each large one that is freed, and then keeps them in its arenas. `benchmarks.parquet` prints what a pull peaks at.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _MAPPED)
        libc.mallopt(_ARENA_MAX, 2)
