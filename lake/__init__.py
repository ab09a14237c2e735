"""The storage and query core of Lightlake. It knows no archive and never imports Prefect."""

from __future__ import annotations

from lake.query import Lake
from lake.query import Lake as open

__all__ = ["Lake", "open"]
