"""What the core asks for under the entry point `lightlake.archives`: the names of all that can be pulled."""

from __future__ import annotations

from collections.abc import Sequence


def bands_by_archive() -> dict[str, Sequence[str]]:
    """Return the archives and surveys that there are, with their bands."""
    from tasks.sources.registry import known
    from tasks.sources.rxte import cut as rxte_cut
    from tasks.sources.rxte import mission as rxte
    from tasks.sources.virac import tiles as virac

    origins = (*known().values(), rxte.ORIGIN, virac.ORIGIN)
    # The bands of chosen channels follow from the choice: what there is of them is in the lake's own table.
    return {rxte_cut.NAME: (), **{origin.name: [band.band for band in origin.bands] for origin in origins}}
