"""The declarations of all sources, which the core loads under the entry point `lightlake.archives`."""

from __future__ import annotations

from lake.model.declared import Declaration
from tasks.sources.base import Origin


def origins() -> list[Origin]:
    """Return all archives, and the surveys."""
    from tasks.sources.registry import SURVEYS, known

    return [*known().values(), *(survey.origin for survey in SURVEYS.values())]


def declarations() -> list[Declaration]:
    """Return what each archive and survey brings into a lake."""
    from tasks.sources.registry import SURVEYS, known

    archives = [archive.declaration for archive in known().values()]
    return archives + [one for survey in SURVEYS.values() for one in survey.declarations]
