"""Archives whose catalogues come in HEALPix partitions: their granules, and what their rows have in common.

A target belongs to the granule of its own pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.errors import ArchiveError
from lake.model.schema import TABLES
from lake.science.motion import Paths, Span
from lake.science.sky import Pairs, hpx29, ranks
from lake.science.times import to_bmjd_tdb
from lake.settings import Settings
from tasks.services.hats import Catalogue, Near, read_catalogue, remembered
from tasks.services.store import Store, open_store
from tasks.sources.base import Archive, FetchResult, Granule, batches

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# How such a catalogue is read, for the user.
ACCESS = (
    "Parquet files in a public bucket, read directly. The targets choose the HEALPix partitions; each is read once for "
    "a batch of neighbouring targets, and only the row groups and columns that can hold a match. A target near the "
    "edge of a partition gets its rows from both sides. LIGHTLAKE_ENDPOINTS__{} is a folder or another S3 address."
)

# A partition on S3 takes a second or two to read however few targets are in it, so that this many neighbours
# make a granule of some seconds.
_PARTITIONS_PER_GRANULE = 4


def catalogue_of(
    archive: Archive, settings: Settings, name: str = "", read: Callable[[Store], Catalogue] = read_catalogue
) -> Catalogue:
    """Read the catalogue `name` at an archive's endpoint, once a process."""
    return remembered(open_store(archive.endpoint_url(settings), archive.name, settings).below(name), read)


def plan(
    archive: Archive,
    targets: pa.Table,
    settings: Settings,
    parameters: Mapping[str, Any],
    *,
    catalogue: Callable[[Archive, Settings], Catalogue] = catalogue_of,
) -> list[Granule]:
    """Cut targets into granules by partition: batch_size targets at most, neighbours together if they are few.

    Without a list of partitions, for whatever reason, granules are plain batches. Then their fetch fails, and the
    ledger gets the reason for every target; an error raised here would end the pull with targets of which nothing is
    noted. If the reason has passed by then, plain batches find the same.

    Parameters
    ----------
    targets
        Targets, sorted by hpx29.
    catalogue
        Reads the list of partitions.
    """
    try:
        first = catalogue(archive, settings).first
    except ArchiveError:
        return list(batches(archive, targets, parameters))
    place = np.searchsorted(first, targets["hpx29"].to_numpy(), side="right")
    edges = [0, *(np.flatnonzero(np.diff(place)) + 1).tolist(), targets.num_rows]
    cuts, held = [0], 0
    for start, end in pairwise(edges):
        held += 1
        if start > cuts[-1] and (end - cuts[-1] > archive.batch_size or held > _PARTITIONS_PER_GRANULE):
            cuts.append(start)
            held = 1
        pieces = -(-(end - cuts[-1]) // archive.batch_size)
        cuts += [start + (end - start) * piece // pieces for piece in range(1, pieces)]
    slices = (targets.slice(a, b - a) for a, b in pairwise([*cuts, targets.num_rows]) if b > a)
    return [Granule(archive.name, archive.release, dict(parameters), part) for part in slices]


@dataclass(frozen=True)
class Search:
    """The sky around a granule's targets, and the catalogue that is searched.

    Parameters
    ----------
    archive
        At the granule's release.
    endpoint
        Its address.
    radius_arcsec
        Farthest distance of a match, arcseconds.
    paths
        Of the targets on the sky.
    near
        What is within the radius, and a margin, of these.
    """

    archive: Archive
    endpoint: str
    radius_arcsec: float
    paths: Paths
    near: Near


def search_of(archive: Archive, span: Span, granule: Granule, settings: Settings, margin_arcsec: float = 0.0) -> Search:
    """Return where to search for a granule's targets; its parameter radius_arcsec says how far."""
    radius = granule.parameters["radius_arcsec"]
    archive, paths = archive.at_release(granule.release), Paths(granule.targets, span)
    near = Near(paths.ra, paths.dec, paths.reach(radius + margin_arcsec))
    return Search(archive, archive.endpoint_url(settings), radius, paths, near)


def nothing(endpoint: str | None, remark: str | None = None) -> FetchResult:
    """Return the result of a search that found nothing."""
    empty = {name: TABLES[name].empty() for name in ("sources", "matches", "lightcurves")}
    return FetchResult(**empty, endpoint=endpoint, remark=remark)


def measurements(archive: Archive, sources: pa.Table, row: Ints, mjd: Floats, band: pa.Array, **more: Any) -> pa.Table:
    """Return rows of the table lightcurves, with fluxes in mJy.

    Parameters
    ----------
    archive
        Has the time scale and reference position of mjd.
    sources
        Rows of the table sources.
    row
        Of each measurement, the row of its source.
    mjd, band, more
        Values of each measurement: times, names of bands, and the other columns by their names.
    """
    source = pa.array(row)
    ra, dec = (sources[name].to_numpy()[row] for name in ("ra", "dec"))
    common = {
        "band": band,
        "source_id": sources["source_id"].take(source),
        "hpx29": sources["hpx29"].take(source),
        "mjd": mjd,
        "bmjd_tdb": to_bmjd_tdb(mjd, ra, dec, scale=archive.time_scale.lower(), frame=archive.time_frame),
        "unit": pa.repeat("mJy", len(mjd)),
    }
    return pa.table({**common, **more})


def only_matched(pairs: Pairs) -> tuple[Ints, Pairs]:
    """Return the sources that have a pair, by their rows, and the pairs with rows of these."""
    kept, place = np.unique(pairs[1], return_inverse=True)
    return kept, (pairs[0], place, pairs[2])


def sources_and_matches(
    targets: pa.Table, source_id: pa.Array, ra: Floats, dec: Floats, pairs: Pairs, **more: pa.Array
) -> tuple[pa.Table, pa.Table]:
    """Return rows of tables sources and matches for pairs of a target and a source, as of lake.science.sky.match."""
    row, source, separation = pairs
    # Those without a position have no pixel: lake/commit/sound.py leaves them out.
    known = np.isfinite(ra) & np.isfinite(dec)
    pixel = pa.array(hpx29(np.where(known, ra, 0.0), np.where(known, dec, 0.0)), mask=~known)
    sources = pa.table({"source_id": source_id, "hpx29": pixel, "ra": np.mod(ra, 360.0), "dec": dec, **more})
    matches = pa.table(
        {
            "target_id": targets["target_id"].take(pa.array(row)),
            "source_id": source_id.take(pa.array(source)),
            "hpx29": pixel.take(pa.array(source)),
            "separation_arcsec": separation,
            "rank": ranks(row),
        }
    )
    return sources, matches
