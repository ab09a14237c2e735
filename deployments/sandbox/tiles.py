"""Tiles of a survey for `lightlake sandbox tiles`: files that need no server."""

from __future__ import annotations

from deployments.sandbox.virac import write_tiles

__all__ = ["write_tiles"]
