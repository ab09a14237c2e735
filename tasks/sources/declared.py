"""Declare to the core, by the entry point `lightlake.archives`, the names of all that can be pulled."""

from __future__ import annotations

from collections.abc import Sequence


def bands_by_archive() -> dict[str, Sequence[str]]:
    """Return all archives and surveys with their bands."""
    from tasks.sources.registry import SURVEYS, known

    archives = {archive.name: [band.band for band in archive.bands] for archive in known().values()}
    return archives | {name: bands for survey in SURVEYS.values() for name, bands in survey.archives.items()}
