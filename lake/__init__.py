"""The storage and query core of Lightlake. It knows no archive and never imports Prefect."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lake.query import Lake
    from lake.query import Lake as open

__all__ = ["Lake", "open"]


def __getattr__(name: str) -> object:
    """Load what a lake is read with when it is asked for: a command's help needs none of it."""
    if name in __all__:
        from lake.query import Lake

        return Lake
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
