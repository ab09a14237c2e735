"""RXTE's observations as granules: read their files, stage many at a time, and commit them.

An observation is done when its rows are in the lake. A remote mirror is read by several threads; a local one by one
thread, since reading takes most of the time.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lake.commit.commit import commit_together
from lake.commit.ledger import Attempt, Select, canonical
from lake.commit.staging import Manifest, Tables, lost, stage_together
from lake.errors import ArchiveError, ConfigurationError, GranuleRejected
from lake.query import Lake
from lake.settings import load_settings
from lake.store.memory import peak_rss_mb, release_freed_memory
from lake.store.storage import Storage, is_local, path_of
from tasks.register import register_archive
from tasks.services.request_counters import count_requests, summarise
from tasks.sources.base import Band, Origin, granules_per_task
from tasks.sources.granule_status import GranuleStatus, granule_status
from tasks.sources.observed import granule_id
from tasks.sources.protocol import Receipts
from tasks.sources.rxte import energies
from tasks.sources.rxte import heasoft as rxte_heasoft
from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte import standard2 as rxte_standard2
from tasks.sources.rxte.cut import ChannelCut
from tasks.sources.rxte.files import CONNECTIONS, Mirror
from tasks.sources.rxte.fits import read_light_curve
from tasks.sources.rxte.mission import PRODUCTS, Observation, gain_epoch, product_of, utc_to_tt
from tasks.sources.rxte.products import Extracted, distinct, extracted, read_observation
from tasks.sources.rxte.rows import Reading, readings
from tasks.worker import current_log, lake_at

if TYPE_CHECKING:
    from upath import UPath

# Of column left_out of table sources.
NO_GOOD_TIME, NO_STANDARD_2 = "no_good_time", "no_standard2_data"

# Observations of a task, which one transaction commits: some seconds of work with a local mirror.
TOGETHER = {"products": 250, "standard2": 50, "heasoft": 4}

# HEASoft's tools have this part of a task's time, so that a hanging tool costs only its own observation.
_OF_TASK = 0.9

# Errors of one file, which must not affect the others of its batch.
_OF_ONE = (GranuleRejected, ArchiveError, OSError, ArithmeticError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class Extraction:
    """Which light curves to extract from each observation.

    Parameters
    ----------
    bands
        Standard products, by their names in the lake; none: all.
    cut
        Channels to be extracted anew, instead of standard products.

    Raises
    ------
    ConfigurationError
        If a band is unknown.
    """

    bands: tuple[str, ...] = ()
    cut: ChannelCut | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.bands) - set(PRODUCTS))
        if unknown:
            raise ConfigurationError(f"RXTE has no band {', '.join(unknown)}", hint=f"it has {', '.join(PRODUCTS)}")
        object.__setattr__(self, "bands", tuple(sorted(set(self.bands))))

    @property
    def origin(self) -> Origin:
        """Return the archive and release of its rows."""
        return rxte.ORIGIN if self.cut is None else self.cut.origin

    @property
    def together(self) -> int:
        """Return how many observations a task carries at most."""
        return TOGETHER["products" if self.cut is None else self.cut.method]

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters that identify it."""
        return {"bands": list(self.bands)} if self.cut is None else self.cut.as_parameters()

    def granule(self, obsid: str) -> str:
        """Return the id of an observation's granule."""
        return granule_id(self.origin, self.parameters, obsid)


def extraction_of(method: str, bands: Sequence[str] | None = None, **cut: Any) -> Extraction:
    """Make an extraction, after checking that it is possible.

    Parameters
    ----------
    method
        products, heasoft or standard2.
    bands
        Standard products; none: all.
    cut
        Parameters of ChannelCut; None means the default.

    Raises
    ------
    ConfigurationError
        If parameters contradict each other, or HEASoft is required and not installed.
    """
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in cut.items() if value is not None
    }
    if method not in ("heasoft", "standard2"):
        if given:
            raise ConfigurationError(
                f"standard products take no {', '.join(sorted(given))}", hint="give method heasoft or standard2"
            )
        return Extraction(tuple(bands or ()))
    if bands:
        raise ConfigurationError(
            f"method {method} takes no bands", hint="give chmin and chmax, or emin_kev and emax_kev"
        )
    if method == "heasoft":
        rxte_heasoft.find_tools()
        return Extraction(cut=ChannelCut("heasoft", **given))
    return Extraction(cut=ChannelCut("standard2", **given))


def register(lake: Lake, extraction: Extraction) -> bool:
    """Describe the archive, its bands and the energies of channels to the lake; say whether it shows this release."""
    origin = extraction.origin
    if extraction.cut is not None:
        # Each cut brings a band; those of others stay.
        known = lake.sql("SELECT * EXCLUDE (archive) FROM bands WHERE archive = ? ORDER BY band", [origin.name])
        mine = {band.band for band in origin.bands}
        others = tuple(Band(**row) for row in known.to_pylist() if row["band"] not in mine)
        origin = replace(origin, bands=(*others, *origin.bands))
    return register_archive(lake, origin, channels=energies.channels())


def as_pulled_before(lake: Lake, extraction: Extraction) -> tuple[Extraction, bool]:
    """Return an extraction with all bands of standard products that any run asked for; and whether there was a run.

    The products of an observation are committed as one: with fewer bands than before, the other bands would be
    deleted, while the ledger would still call them done.
    """
    origin = extraction.origin
    asked = lake.sql(
        "SELECT DISTINCT parameters, status IN ('done', 'empty') AS is_done FROM ledger "
        "WHERE archive = ? AND release = ?",
        [origin.name, origin.release],
    )
    if extraction.cut is not None:
        return extraction, not asked.num_rows
    parameters = [json.loads(row["parameters"]) for row in asked.to_pylist() if row["is_done"]]
    choices = [extraction.bands, *(one["bands"] for one in parameters if "bands" in one)]
    return Extraction(tuple(chain.from_iterable(choices)) if all(choices) else ()), not asked.num_rows


def waiting(
    lake: Lake, observations: Sequence[Observation], extraction: Extraction, *, select: Select = "pending"
) -> GranuleStatus[Observation]:
    """Return which observations are to be extracted: see tasks.sources.granule_status.

    Those in the lake have their position there: a commit searches for the rows to replace only near these.
    """
    origin = extraction.origin
    pieces = {extraction.granule(observation.obsid): observation for observation in observations}
    now = granule_status(lake, origin.name, [origin.release], pieces, select=select)
    rows = lake.sql(
        "SELECT source_id, ra, dec FROM sources WHERE archive = $archive AND release = $release "
        "AND source_id IN (SELECT unnest($obsids))",
        {"archive": origin.name, "release": origin.release, "obsids": [one.obsid for one in now.waiting]},
    )
    places = {row["source_id"]: {"ra": row["ra"], "dec": row["dec"]} for row in rows.to_pylist()}
    return replace(now, waiting=[replace(one, **places.get(one.obsid, {})) for one in now.waiting])


@dataclass(frozen=True)
class Part:
    """Observations that one task stages, and one transaction commits.

    Parameters
    ----------
    url
        Of the lake.
    folder
        Parent of the staging folders of all parts.
    observations, extraction
        Which observations, and what to extract from them.
    """

    url: str
    folder: str
    observations: tuple[Observation, ...]
    extraction: Extraction

    @classmethod
    def each(
        cls, url: str, folder: UPath, observations: Sequence[Observation], extraction: Extraction, workers: int
    ) -> Iterator[Part]:
        """Yield observations as parts; if there are few, all workers get some."""
        size = granules_per_task(len(observations), extraction.together, workers)
        for first in range(0, len(observations), size):
            yield cls(url, str(folder), tuple(observations[first : first + size]), extraction)

    @property
    def obsids(self) -> list[str]:
        """Return the ObsIDs."""
        return [observation.obsid for observation in self.observations]

    @property
    def title(self) -> str:
        """Return its observations in a few words."""
        return summarise(self.obsids)

    @property
    def size(self) -> int:
        """Return how many observations it has."""
        return len(self.observations)

    def staged(self, granules: Sequence[tuple[Attempt, Mapping[str, pa.Table]]], name: str = "") -> Staged:
        """Stage their attempts and tables; return them with the ObsIDs."""
        key = "\n".join(attempt.granule for attempt, _ in granules)
        folder = path_of(self.folder) / f"{name}{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"
        return self.obsids, stage_together(folder, granules, self.extraction.origin.band_units)


Staged = tuple[list[str], Manifest]


def fetch(part: Part, last_try: bool) -> Staged:
    """Read observations and stage them, as failed or rejected if they cannot be read.

    Passing errors have been retried by then, file by file, so the batch as a whole is not retried for them.

    Raises
    ------
    ArchiveError
        If nothing is at the archive's address.
    ConfigurationError
        If HEASoft is required and not installed.
    """
    extraction, log, settings, storage = part.extraction, current_log(), load_settings(), Storage.from_url(part.url)
    tools = rxte_heasoft.find_tools() if extraction.cut and extraction.cut.method == "heasoft" else None
    logs = (Path(storage.root) if is_local(storage.root) else settings.cache_dir.expanduser()) / "logs"
    limit_s = _OF_TASK * settings.task_timeout_s / len(part.observations)
    parameters = canonical(extraction.parameters)

    def one(mirror: Mirror, observation: Observation) -> tuple[Attempt, Extracted | None]:
        granule, started_at = extraction.granule(observation.obsid), datetime.now(UTC)
        with count_requests(granule, log) as done:
            read: Extracted | Exception
            try:
                read = _read(mirror, observation, extraction, granule, tools, logs / rxte.NAME, limit_s)
            except _OF_ONE as error:
                read = error
            attempt = Attempt(
                extraction.origin.name,
                extraction.origin.release,
                granule,
                status="done",
                started_at=started_at,
                parameters=parameters,
                endpoint=f"{mirror.url}/{observation.paths[0]}",
                seconds=done.seconds,
                **done.facts(),
            )
        return (lost(attempt, read), None) if isinstance(read, Exception) else (attempt, read)

    release_freed_memory()
    with Mirror(settings) as mirror:
        if mirror.is_local:
            read = [one(mirror, observation) for observation in part.observations]
        else:
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                read = list(pool.map(partial(one, mirror), part.observations))
    made = iter(readings([found for _, found in read if found is not None]))
    obsids, manifest = part.staged([_made(attempt, next(made) if found else None) for attempt, found in read])
    return obsids, manifest.with_details(peak_rss_mb=peak_rss_mb())


def _made(attempt: Attempt, reading: Reading | Exception | None) -> tuple[Attempt, Tables]:
    """Return an attempt as it ended, with its tables."""
    if reading is None:
        return attempt, {}
    if isinstance(reading, Exception):
        return lost(attempt, reading), {}
    status = "done" if reading.tables["lightcurves"].num_rows else "empty"
    if (status, reading.remark) != (attempt.status, attempt.reason):
        attempt = replace(attempt, status=status, reason=reading.remark)
    return attempt, reading.tables


def mark_failed(part: Part, error: BaseException) -> Staged:
    """Stage observations as failed."""
    origin, parameters = part.extraction.origin, canonical(part.extraction.parameters)
    attempts = [
        Attempt(
            origin.name,
            origin.release,
            part.extraction.granule(obsid),
            status="failed",
            started_at=datetime.now(UTC),
            parameters=parameters,
        )
        for obsid in part.obsids
    ]
    return part.staged([(lost(attempt, error), {}) for attempt in attempts], "lost-")


def commit(url: str, fetched: Staged) -> Receipts:
    """Commit what is staged; return the receipt of each ObsID."""
    obsids, manifest = fetched
    return list(zip(obsids, commit_together(lake_at(url).catalog, manifest), strict=True))


def _read(
    mirror: Mirror,
    observation: Observation,
    extraction: Extraction,
    granule: str,
    tools: rxte_heasoft.Tools | None,
    logs: Path,
    limit_s: float,
) -> Extracted:
    if extraction.cut is None:
        listed = mirror.light_curves(observation)
        if listed is None:
            raise _absent(mirror, observation)
        wanted = extraction.bands or PRODUCTS
        paths = {path.rpartition("/")[2]: path for path in listed}
        products = {name: product_of(name) for name in paths}
        files = {
            name: mirror.read(paths[name]) for name, known in products.items() if known and known[1].band in wanted
        }
        return read_observation(files, observation, granule)
    folder = mirror.folder(observation)
    if folder is None:
        raise _absent(mirror, observation)
    if observation.mjd_start is None:
        raise GranuleRejected(f"the start of {observation.obsid} is unknown, and so is its gain epoch")
    try:
        epoch = int(gain_epoch(utc_to_tt([observation.mjd_start]))[0])
    except ValueError as error:
        raise GranuleRejected(f"{observation.obsid}: {error}") from error
    if tools is not None:
        return _by_heasoft(mirror, folder, observation, extraction.cut, epoch, granule, tools, logs, limit_s)
    return _by_standard2(mirror, folder, observation, extraction.cut, epoch, granule)


def _absent(mirror: Mirror, observation: Observation) -> ArchiveError:
    asked = " or ".join(observation.paths)
    return ArchiveError(
        f"there is no observation {observation.obsid}: no {asked}",
        archive=rxte.NAME,
        endpoint=mirror.url,
        hint="is the mirror whole?",
    )


def _by_standard2(
    mirror: Mirror, folder: str, observation: Observation, cut: ChannelCut, epoch: int, granule: str
) -> Extracted:
    paths = [path for path in mirror.files(f"{folder}/pca") if rxte_standard2.is_standard2(path)]
    curves = []
    if paths:
        filters = [path for path in mirror.files(f"{folder}/{rxte.STDPROD}") if path.endswith((".xfl", ".xfl.gz"))]
        data = {path.rpartition("/")[2]: mirror.read(path) for path in paths}
        curve = rxte_standard2.light_curve(data, cut, epoch, mirror.read(filters[0]) if filters else None)
        curves = [distinct(curve, cut.band)]
    return extracted(curves, observation, granule, cut.origin, {"files": paths}, NO_STANDARD_2)


def _by_heasoft(
    mirror: Mirror,
    folder: str,
    observation: Observation,
    cut: ChannelCut,
    epoch: int,
    granule: str,
    tools: rxte_heasoft.Tools,
    logs: Path,
    limit_s: float,
) -> Extracted:
    with tempfile.TemporaryDirectory(prefix="lightlake-") as name:
        here = mirror.fetch(folder, Path(name) / observation.obsid)
        done = rxte_heasoft.extract(tools, here, observation, cut, epoch, Path(name), logs, limit_s)
    more = {"method": "heasoft", "log": str(done.log), "remark": done.remark}
    curves = []
    if done.data is not None:
        name = f"{observation.obsid} {cut.band}"
        curves = [distinct(read_light_curve(done.data, cut, name), name)]
    read = extracted(curves, observation, granule, cut.origin, more, NO_GOOD_TIME)
    return replace(read, remark=done.remark or read.remark)
