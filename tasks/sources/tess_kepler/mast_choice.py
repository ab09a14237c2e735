"""Choose the light curves of a target for the lake: one for each sector, quarter or campaign."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tasks.sources.tess_kepler import mast_products as facts
from tasks.sources.tess_kepler.mast_files import Found
from tasks.sources.tess_kepler.mast_products import Named

# As MAST (provenance_name) and lightkurve (author) call the pipelines; first those that are preferred.
AUTHORS = {
    "SPOC": facts.SPOC,
    "TESS-SPOC": facts.TESS_SPOC,
    "QLP": facts.QLP,
    "Kepler": facts.KEPLER_SOC,
    "K2": facts.K2_SOC,
    "EVEREST": facts.EVEREST,
    "K2SFF": facts.K2SFF,
}
KEPLER_CADENCES = ("long", "short")
TESS_CADENCES_S = (120, 20)

Source = tuple[str, int]


def source_of(named: Named) -> Source:
    """Return the catalogue of a file's target, and its number there."""
    return named.pipeline.mission.catalogue, named.target


def choose(
    files: Iterable[Found], authors: Sequence[str], *, kepler_cadence: str = "long", tess_cadence_s: int = 120
) -> list[Found]:
    """Choose one file for each target and sector, quarter or campaign, so that no band has a time twice.

    The first author of the list who has a file decides, whatever its cadence in TESS's case; of one author's files in
    two cadences the wanted one is taken if it is there; of versions the one whose name comes last.

    Parameters
    ----------
    files
        Files in any order; one that is listed twice, by its name, counts once.
    authors
        Keys of AUTHORS, the preferred first. Files of others are never taken.
    kepler_cadence
        Of Kepler and K2, long (30 min) or short (1 min) cadence. The other is not taken, even if it is all there is.
    tess_cadence_s
        Of SPOC's files in 120 s and in 20 s, the ones to prefer.

    Returns
    -------
    list of Found
        In the order of catalogue, target, sequence and name, so that all of a source is together.
    """
    rank = {AUTHORS[author].name: place for place, author in enumerate(authors)}
    groups: dict[tuple[Any, ...], list[Found]] = {}
    for file in {file.name: file for file in files}.values():
        pipeline, sequence = file.named.pipeline, file.named.sequence
        of_kepler = pipeline.mission is not facts.TESS
        if pipeline.name not in rank or (of_kepler and _is_short(file.name) != (kepler_cadence == "short")):
            continue
        # Names of Kepler's files have no quarter; two of a target are never of the same time.
        observed = sequence if sequence is not None else file.name
        groups.setdefault((*source_of(file.named), observed), []).append(file)
    best = []
    for group in groups.values():
        first = min(rank[file.named.pipeline.name] for file in group)
        theirs = [file for file in group if rank[file.named.pipeline.name] == first]
        wanted = [file for file in theirs if _is_fast(file.name) == (tess_cadence_s == min(TESS_CADENCES_S))]
        best.append(max(wanted or theirs, key=lambda file: file.name))
    return sorted(best, key=lambda file: (*source_of(file.named), file.named.sequence or 0, file.name))


def _is_short(name: str) -> bool:
    return re.search(r"_slc[._]", name) is not None


def _is_fast(name: str) -> bool:
    return "_fast-lc." in name
