"""Light curves of TESS, Kepler and K2 in a folder or below an s3:// prefix: find the files of some targets.

In the layout of MAST's bucket stpubdata only the folders of targets are looked into. What lies otherwise is found by
files' names, and by the positions in their primary headers.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from lake.errors import GranuleRejected
from lake.science.sky import match
from lake.settings import Settings
from tasks.services.fits import hdus, naming
from tasks.services.request_counters import Threads
from tasks.services.store import Entry, Store
from tasks.sources.tess_kepler import mast_products as facts
from tasks.sources.tess_kepler.mast_bucket import CONNECTIONS, Bucket
from tasks.sources.tess_kepler.mast_files import SERVICE, Found
from tasks.sources.tess_kepler.mast_products import PIPELINES, Named, named

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Position = tuple[float, float]

# Bytes of a file that hold its primary header; if not, as many again by the factor.
_HEAD, _MORE = 4 * 2880, 16

# Positions that a process remembers.
_REMEMBERED = 1 << 18


def find(
    url: str,
    settings: Settings,
    ids: Mapping[str, Collection[int]],
    places: tuple[Floats, Floats],
    radius_arcsec: float,
    archive: str = SERVICE,
) -> list[Found]:
    """Find the files of some targets.

    Parameters
    ----------
    url
        A folder, or an s3:// prefix: stpubdata, a part or a copy of it, or any tree of files that are called as MAST
        calls them.
    ids
        Numbers of targets by their catalogue: TIC, KIC, EPIC.
    places
        Positions of targets that are asked for by position, ICRS degrees. Every file is looked into, once in a process
        unless it changes: on S3 that is refused where there are more than `mast_bucket.MOST`.
    radius_arcsec
        Farthest distance from such a position, arcseconds.
    archive
        Name for messages and hints.

    Returns
    -------
    list
        In order of pipeline, target, sequence and name, each name once. A source is near a position if any of its
        files is. Files have their positions if any target is asked for by position.

    Raises
    ------
    ArchiveError
        If there is no such place, it cannot be read, or an s3:// prefix is too large for what is asked.
    """
    bucket = Bucket.at(url, settings, archive)
    wanted = {catalogue: set(numbers) for catalogue, numbers in ids.items()}
    positions: dict[str, Position | None] = {}
    if len(places[0]):
        entries = bucket.walk()
        positions = _positions(bucket, entries)
        for one in _near(positions, places, radius_arcsec):
            wanted.setdefault(_catalogue(one), set()).add(one.target)
    else:
        entries = list(_by_id(bucket, wanted))
    found: dict[str, Found] = {}
    for entry in entries:
        what = named(entry.name)
        if what is None or what.target not in wanted.get(_catalogue(what), ()):
            continue
        ra, dec = positions.get(entry.path) or (None, None)
        cadence_s = nominal_cadence_s(what, entry.name)
        found.setdefault(
            entry.name.removesuffix(".gz"), Found(entry.path, entry.name, what, cadence_s, entry.size, ra, dec)
        )
    order = list(PIPELINES)
    return sorted(
        found.values(),
        key=lambda one: (order.index(one.named.pipeline.name), one.named.target, one.named.sequence or 0, one.name),
    )


def nominal_cadence_s(what: Named, name: str) -> float | None:
    """Return the nominal cadence of a file, s, by its name, as MAST's searches have it.

    Full frame images were taken every 1800 s to sector 26, every 600 s to sector 55, and every 200 s from then on
    (TESS mission page at MAST).
    """
    if what.pipeline is facts.SPOC:
        return 20.0 if "fast" in name else 120.0
    if what.pipeline.mission is facts.TESS:
        return (
            None if what.sequence is None else 1800.0 if what.sequence < 27 else 600.0 if what.sequence < 56 else 200.0
        )
    return 60.0 if "_slc" in name else 1800.0


def _catalogue(what: Named) -> str:
    return what.pipeline.mission.catalogue


def _by_id(bucket: Bucket, wanted: Mapping[str, Collection[int]]) -> Iterator[Entry]:
    """Yield the files in the folders of targets, and those that lie outside of the layout."""
    for pipeline in PIPELINES.values():
        targets = sorted(wanted.get(pipeline.mission.catalogue, ()))
        if targets:
            for files, _ in bucket.each(bucket.folders(pipeline, targets)):
                yield from files
    if bucket.is_local or not bucket.bases():
        yield from bucket.walk(bucket.bases())


def _positions(bucket: Bucket, entries: Sequence[Entry]) -> dict[str, Position | None]:
    """Read the positions in files, by path."""

    def position(entry: Entry) -> Position | None:
        return bucket.tried(partial(_position, bucket.store, *entry))

    with Threads(1 if bucket.is_local else CONNECTIONS) as pool:
        return dict(zip((entry.path for entry in entries), pool.map(position, entries), strict=True))


def _near(
    positions: Mapping[str, Position | None], places: tuple[Floats, Floats], radius_arcsec: float
) -> Iterator[Named]:
    """Yield the sources near some positions: those of which any file is near."""
    paths = [path for path, position in positions.items() if position is not None]
    at = np.array([positions[path] for path in paths], np.float64).reshape(-1, 2)
    _, rows, _ = match(*places, at[:, 0], at[:, 1], radius_arcsec)
    for row in np.unique(rows):
        if what := named(paths[row]):
            yield what


# The size and the time of change distinguish versions.
@lru_cache(maxsize=_REMEMBERED)
def _position(store: Store, path: str, size: int, mtime: int) -> Position | None:
    """Read RA_OBJ and DEC_OBJ of a file's primary header, ICRS degrees; None if it has none."""
    for length in (_HEAD, _HEAD * _MORE):
        try:
            with naming(path):
                body = store.beginning(path, length)
                if body.startswith(b"\x1f\x8b"):
                    body = zlib.decompressobj(31).decompress(body, length)
                header = next(hdus(body)).header
            ra, dec = header.number("RA_OBJ"), header.number("DEC_OBJ")
            return None if ra is None or dec is None or not (0 <= ra <= 360 and -90 <= dec <= 90) else (ra, dec)
        except (GranuleRejected, zlib.error) as error:
            problem = str(error)
    logger.warning("%s/%s cannot be found by position: %s", store.url, path, problem)
    return None
