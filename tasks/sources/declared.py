"""The declarations of all sources, which the core loads under the entry point `lightlake.archives`."""

from __future__ import annotations

from lake.model.declared import Declaration
from tasks.sources.base import Origin


def origins() -> list[Origin]:
    """Return all archives, and the surveys."""
    from tasks.sources.registry import known
    from tasks.sources.rxte import mission as rxte
    from tasks.sources.virac import tiles as virac

    return [*known().values(), rxte.ORIGIN, virac.ORIGIN]


def declarations() -> list[Declaration]:
    """Return what each archive and survey brings into a lake."""
    from tasks.sources.rxte import cut

    # Bands of chosen channels follow from the choice: the lake's own table has those that it holds.
    return [Declaration(archive=cut.NAME), *(origin.declaration for origin in origins())]


# Installed metadata may still call the entry point by this name.
bands_by_archive = declarations
