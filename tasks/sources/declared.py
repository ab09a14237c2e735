"""The declarations of all sources, which the core loads under the entry point `lightlake.archives`."""

from __future__ import annotations

from lake.model.declared import Declaration


def declarations() -> list[Declaration]:
    """Return what each archive and survey brings into a lake."""
    from tasks.sources.registry import known
    from tasks.sources.rxte import cut as rxte_cut
    from tasks.sources.rxte import mission as rxte
    from tasks.sources.virac import tiles as virac

    origins = (*known().values(), rxte.ORIGIN, virac.ORIGIN)
    # The bands of chosen channels follow from the choice: the lake's own table has those that it holds.
    return [Declaration(archive=rxte_cut.NAME), *(origin.declaration for origin in origins)]


# Installed metadata may still call the entry point by this name.
bands_by_archive = declarations
