"""Memory: its peak, and giving back what is free, so that a pull of many batches holds what is in hand alone."""

from __future__ import annotations

import ctypes
import resource
import sys
from functools import cache

import pyarrow as pa

# Of glibc's malloc.h.
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8

# Arrays from this size on are mapped, and unmapped once they are free, bytes.
_MAPPED = 1 << 20


@cache
def release_freed_memory() -> None:
    """Let freed arrays go back to the system, in this process, from now on.

    Arrow's own allocator keeps what threads have freed, and glibc's raises the size from which it maps arrays with
    each large one that is freed, and then keeps them in its arenas. `benchmarks.parquet` prints what a pull peaks at.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _MAPPED)
        libc.mallopt(_ARENA_MAX, 2)


def peak_rss_mb() -> float:
    """Return the peak of this process's memory, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1e6)
