"""What the core asks for under the entry point `lightlake.archives`: the names of all that can be pulled."""

from __future__ import annotations

from collections.abc import Sequence


def bands_by_archive() -> dict[str, Sequence[str]]:
    """Return the archives and surveys that there are, with their bands."""
    from tasks.archives import known
    from tasks.surveys import rxte, rxte_cut, virac

    origins = (*known().values(), rxte.ORIGIN, virac.ORIGIN)
    # The bands of chosen channels follow from the choice: what there is of them is in the lake's own table.
    return {rxte_cut.NAME: (), **{origin.name: [band.band for band in origin.bands] for origin in origins}}
