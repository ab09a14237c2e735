"""Peak memory; and release of freed memory, so that a pull holds only the batches it works on."""

from __future__ import annotations

import ctypes
import resource
import sys
from functools import cache

import pyarrow as pa

# From glibc's malloc.h.
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8

# Arrays of this size, bytes, and larger are mapped, and unmapped when freed.
_MAPPED = 1 << 20


@cache
def release_freed_memory() -> None:
    """Return freed arrays to the system from now on, in this process.

    Arrow's own allocator keeps memory that threads freed. glibc's raises its mapping threshold with each large array
    that is freed, and then keeps such arrays in its arenas. `benchmarks.parquet` prints the peak of a pull.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _MAPPED)
        libc.mallopt(_ARENA_MAX, 2)


def peak_rss_mb() -> float:
    """Return the peak of this process's memory, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1e6)
