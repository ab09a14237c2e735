"""VIRAC2, the public release, from ESO's TAP service: the same light curves as the tiles', by ranges of sourceid.

A sourceid begins with the pixel that its source is in, so a tile is some ranges of them, and a range is a granule.
The list of sources says how many rows each has: light curves are requested a million rows at a time, and staged as
they come. A request whose answer is cut short is repeated in halves, down to a single source.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.commit.ledger import Attempt, canonical
from lake.commit.sound import sound
from lake.commit.staging import Manifest, stage
from lake.errors import ConfigurationError, GranuleRejected, TruncatedAnswer
from lake.model.schema import TABLES
from lake.science.photometry import flux_err
from lake.science.sky import hpx29
from lake.science.times import EarthTimes
from lake.settings import Settings
from lake.text import counted
from tasks.services.tap import Service
from tasks.services.values import dated
from tasks.sources.statistics import statistics_of_sorted
from tasks.sources.virac import columns
from tasks.sources.virac import tiles as virac
from tasks.sources.virac.tile import BANDS, SOURCE_NSIDE, SOURCES_PER_PIXEL
from tasks.sources.virac.tiles import AST_RES_CHISQ_MAX, LEFT_OUT, NAME, Selection, constant, vega_flux

if TYPE_CHECKING:
    from upath import UPath

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

RELEASE = "VIRAC2"
SOURCES, LIGHTCURVES = "VVVX_VIRAC_V2_SOURCES", "VVVX_VIRAC_V2_LC"

PHOT_FLAG = columns.PHOT_FLAG

# Why a source that has Ks detections enough has no light curve: the table of light curves knows nothing of it.
NO_ROWS = "no_rows_in_lc"

# Light curves are asked for so many rows at a time, as far as the list of sources foretells. It may be wrong: what
# comes to more than MAXREC counts as cut short. ESO's own limit is 15 million rows a job, of which a VOTable would
# take some 10 GB to read.
ROWS_ASKED, MAXREC = 1_000_000, 2_000_000

# Up to so many rows, or ids, a query is synchronous: a job costs a second or more.
_SYNC = 20_000

_ASTROMETRY = {
    "ra": "ra", "de": "dec", "ra_error": "ra_err", "de_error": "dec_err", "ref_epoch": "ref_epoch",
    "parallax": "parallax", "parallax_error": "parallax_err", "pmra": "pm_ra", "pmra_error": "pm_ra_err",
    "pmde": "pm_dec", "pmde_error": "pm_dec_err", "chisq": "astfit_chisq", "uwe": "uwe",
}  # fmt: skip
_DETECTIONS = {band: (f"{band.lower()}_n_det", f"phot_{band.lower()}_n_epochs") for band in BANDS}
_OF_SOURCES = (
    "sourceid", *_ASTROMETRY, "astfit_params", "duplicate", *(name for pair in _DETECTIONS.values() for name in pair)
)  # fmt: skip
_OF_LIGHTCURVES = (
    "sourceid", "mjdobs", "filter", "mag", "emag", "phot_flag", "ambiguous_match", "ast_res_chisq", "objtype", "catid",
    "chi",
)  # fmt: skip

# Least and greatest value of what is measured.
_RANGES = {"mag": (-30.0, 60.0), "emag": (0.0, np.inf), "ast_res_chisq": (0.0, np.inf), "chi": (-np.inf, np.inf)}

_MADE = ("sources", "exposures", "statistics")

ORIGIN = replace(
    virac.ORIGIN,
    title="VIRAC2, time series of VVV and VVVX",
    release=RELEASE,
    notes="The public release. mjd is mjdobs, as published; whether of the start or the middle of a pawprint ESO's "
    "table does not say (MJD-OBS is the start, and an exposure takes 4 to 10 s). Magnitudes are Vega, as published. "
    "Table LC has detections only, so detected is true in every row that has a magnitude: pawprints without a "
    "detection, and what ESO has in tables REJECTED_LC and REJECTED_SOURCES, are not in it. good: phot_flag is 0, not "
    "ambiguous, astrometric residual within 5 sigma (ast_res_chisq below 28.74). quality: ambiguous_match in bit 0, "
    "phot_flag other than 0 "
    "in bit 1, objtype in bits 8 to 15. exposure_id is catid; of exposures there is what the rows of LC say. Sources "
    "with too few Ks detections (ks_n_det) are in sources, with the reason in left_out, and have no light curve. "
    "Positions are of ref_epoch.",
)


def ranges(tiles: Iterable[int | tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges of sourceid, both ends included, of parts of the sky; no id is in two of them.

    Parameters
    ----------
    tiles
        Tiles as nside and RING pixel, or RING pixels of nside 1024. A range does not go beyond its tile, so that it
        is no larger, as a granule, than where the survey's own density puts a tile.

    Raises
    ------
    ConfigurationError
        If there is no such tile.
    """
    found: list[tuple[int, int]] = []
    seen: set[int] = set()
    for tile in tiles:
        pixels = np.array([pixel for pixel in _pixels(tile) if pixel not in seen], np.int64)
        seen.update(pixels.tolist())
        ends = [0, *(np.flatnonzero(np.diff(pixels) > 1) + 1).tolist(), len(pixels)]
        for first, stop in pairwise(ends):
            if stop > first:
                run = int(pixels[first]), int(pixels[stop - 1])
                found.append((run[0] * SOURCES_PER_PIXEL, (run[1] + 1) * SOURCES_PER_PIXEL - 1))
    return sorted(found)


def _pixels(tile: int | tuple[int, int]) -> list[int]:
    """Return the RING pixels of nside 1024 of a tile, ascending."""
    nside, pixel = tile if isinstance(tile, tuple) else (SOURCE_NSIDE, tile)
    if nside < 1 or SOURCE_NSIDE % nside or not 0 <= pixel < 12 * nside**2:
        raise ConfigurationError(
            f"nside {nside} has no RING pixel {pixel} that is a tile", hint=f"nside divides {SOURCE_NSIDE}"
        )
    finer = (SOURCE_NSIDE // nside) ** 2
    nest = int(hpgeom.ring_to_nest(nside, pixel)) * finer + np.arange(finer)
    pixels: list[int] = np.sort(hpgeom.nest_to_ring(SOURCE_NSIDE, nest)).tolist()
    return pixels


def halves(low: int, high: int) -> list[tuple[int, int]]:
    """Split a range into two.

    Raises
    ------
    ValueError
        If there is one id only.
    """
    if low >= high:
        raise ValueError(f"the range {low} to {high} cannot be split")
    middle = (low + high) // 2
    return [(low, middle), (middle + 1, high)]


def granule_id(low: int, high: int, cut: Selection) -> str:
    """Return the granule id of a range: the same for the same range and cut."""
    key = "\n".join((NAME, RELEASE, canonical({**cut.as_parameters(), "low": low, "high": high})))
    return f"{NAME}-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"


def harvest_range(
    low: int, high: int, settings: Settings, cut: Selection, granule: str | None = None
) -> dict[str, pa.Table]:
    """Fetch a small range at once.

    Parameters
    ----------
    low, high
        First and last sourceid.
    settings
        Endpoint (virac) and time-outs.
    cut
        What is wanted.
    granule
        Id of the granule; by default granule_id's.

    Returns
    -------
    dict[str, pa.Table]
        sources, lightcurves, exposures and statistics, in the lake's schema.

    Raises
    ------
    ArchiveError
        If the service does not answer, or not as it should.
    TruncatedAnswer
        If it cuts short even the answer on a single source.
    GranuleRejected
        If what it says does not fit together.
    """
    answer = Range(low, high, granule or granule_id(low, high, cut), settings, cut)
    parts = [TABLES["lightcurves"].cast(part) for part in answer.lightcurves()]
    tables = {**answer.tables(), **answer.afterwards()}
    found = {name: TABLES[name].cast(tables.get(name, TABLES[name].empty())) for name in _MADE}
    empty = TABLES["lightcurves"].empty()
    return {**found, "lightcurves": pa.concat_tables([empty, *(part.cast(empty.schema) for part in parts)])}


def stage_range(
    low: int, high: int, granule: str, attempt: Attempt, folder: UPath, settings: Settings, cut: Selection
) -> Manifest:
    """Fetch a range and stage it, a million rows at a time.

    Parameters
    ----------
    attempt
        Circumstances of the granule; its id, status, reason and endpoint are filled in here.
    folder
        Staging folder of this granule alone.
    low, high, granule, settings, cut
        As in harvest_range, and so are the errors.
    """
    answer = Range(low, high, granule, settings, cut)
    status = "done" if len(answer) else "empty"
    attempt = replace(attempt, granule=granule, status=status, reason=answer.remark, endpoint=answer.service.url)
    staged = stage(
        folder, attempt, answer.tables(), ORIGIN.band_units,
        lightcurves=answer.lightcurves(), afterwards=answer.afterwards,
    )  # fmt: skip
    return staged.with_details(reason=answer.remark)


class Range:
    """The rows of a range. The list of sources is fetched at once, light curves as they are iterated.

    Parameters and errors are those of harvest_range.
    """

    def __init__(self, low: int, high: int, granule: str, settings: Settings, cut: Selection) -> None:
        self.granule, self.cut = granule, cut
        endpoint = settings.endpoints.get(NAME, ORIGIN.endpoint)
        self.service = Service(NAME, endpoint, settings.timeout_s, settings.task_timeout_s)
        found = self._list(low, high)
        self._left_out: Counter[str] = Counter()
        self._odd_values = 0
        self._remarks: list[str] = []
        found = self._without(found, "sources without a place", ~np.isnan(columns.places(found)[0]))
        self._found = found.take(pc.sort_indices(found["sourceid"]))
        self._number = columns.ints(self._found, "sourceid", SOURCES)
        self._ids = pa.array(self._number).cast(pa.string())
        self._ra, self._dec = columns.places(self._found)
        self._hpx29 = hpx29(self._ra, self._dec)
        # Place of each source in the order of the lake's rows, where ids are texts.
        order = np.lexsort((np.array(self._ids.to_pylist(), np.str_), self._hpx29))
        self._rank = np.empty(len(order), np.int64)
        self._rank[order] = np.arange(len(order))
        detections = {band: self._count(*names) for band, names in _DETECTIONS.items()}
        self._foretold = np.add.reduce(list(detections.values()))
        self.kept: Flags = detections["Ks"] > cut.min_ks
        self._seen = np.zeros(len(self), bool)
        self._statistics: list[pa.Table] = []
        self._exposures: list[tuple[Ints, NDArray[np.int8], Floats]] = []

    def __len__(self) -> int:
        return len(self._number)

    @property
    def remark(self) -> str | None:
        """Return the remark on a sound range, for the ledger."""
        n = int((~self.kept).sum())
        remarks = (
            [f"{n} of {counted(len(self), 'source')} left out: no more than {self.cut.min_ks} Ks detections"]
            if n
            else []
        )
        remarks += [f"{what}, left out: {count}" for what, count in self._left_out.items()] + self._remarks
        if self._odd_values:
            remarks.append(f"{columns.ODD_VALUES}: {self._odd_values}")
        return "; ".join(remarks) or None

    def _without(self, found: pa.Table, what: str, kept: Flags) -> pa.Table:
        """Return the rows of an answer that have all required values; GranuleRejected if none has."""
        if kept.all():
            return found
        if not kept.any():
            raise GranuleRejected(f"{len(kept)} {what}, such as {found['sourceid'][0]}, and no other")
        self._left_out[what] += int((~kept).sum())
        return found.filter(pa.array(kept))

    def _list(self, low: int, high: int) -> pa.Table:
        adql = f"SELECT {', '.join(_OF_SOURCES)} FROM {SOURCES} WHERE sourceid BETWEEN {low} AND {high}"
        try:
            return self.service.query(adql, maxrec=MAXREC, asynchronous=high - low >= _SYNC)
        except TruncatedAnswer:
            if low == high:
                raise
        return pa.concat_tables([self._list(*half) for half in halves(low, high)])

    def _count(self, *names: str) -> Ints:
        """Return the first of some counts that is not NULL; 0 without any."""
        counts = pc.coalesce(*(columns.cast(self._found, name, pa.int64()) for name in names), pa.scalar(0, pa.int64()))
        return np.asarray(counts.to_numpy())

    def tables(self) -> dict[str, pa.Table]:
        """Return the sources."""
        return {"sources": self._sources(np.zeros(len(self), bool))}

    def afterwards(self) -> dict[str, pa.Table]:
        """Return exposures and statistics, once the light curves have been iterated, and check what was missing."""
        later = {"exposures": self._exposures_table()} if self._exposures else {}
        if self._statistics:
            later["statistics"] = pa.concat_tables(self._statistics)
        missing = self.kept & ~self._seen
        return {**later, "sources": self._sources(missing)} if missing.any() else later

    def _keys(self, n: int) -> dict[str, pa.Array]:
        keys = {"archive": NAME, "release": RELEASE, "granule": self.granule}
        return {name: constant(value, n) for name, value in keys.items()}

    def _sources(self, missing: Flags) -> pa.Table:
        found = self._found
        reason = np.where(missing, 1, 0).astype(np.int8)
        left_out = pa.DictionaryArray.from_arrays(
            pa.array(reason, mask=self.kept & ~missing), pa.array([LEFT_OUT, NO_ROWS])
        )
        table = pa.table(
            {
                **{name: array.cast(pa.string()) for name, array in self._keys(len(self)).items()},
                "source_id": self._ids,
                "hpx29": self._hpx29,
                **{mine: columns.cast(found, theirs, pa.float64()) for theirs, mine in _ASTROMETRY.items()},
                "astfit_params": found["astfit_params"],
                "duplicate": pc.not_equal(columns.cast(found, "duplicate", pa.int64()), 0),
                "left_out": left_out.cast(pa.string()),
            }
        )
        tables, self._remarks = sound({"sources": table})
        return tables["sources"]

    def _exposures_table(self) -> pa.Table:
        catid, band, mjd = columns.distinct(*(np.concatenate(arrays) for arrays in zip(*self._exposures, strict=True)))
        return pa.table(
            {
                **{name: array.cast(pa.string()) for name, array in self._keys(len(catid)).items()},
                "exposure_id": pa.array(catid).cast(pa.string()),
                "band": pa.array(BANDS).take(pa.array(band)),
                "mjd_start": mjd,
            }
        )

    def lightcurves(self) -> Iterator[pa.Table]:
        """Yield the light curves of the sources that are kept; each part is sorted as the table is."""
        ends = np.cumsum(self._foretold)
        start = 0
        while start < len(self):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + ROWS_ASKED, side="right")))
            yield from self._some(start, stop)
            start = stop
        if self.kept.any() and not self._seen[self.kept].any():
            raise GranuleRejected(
                f"{SOURCES} has {counted(self.kept.sum(), 'source')} with more than "
                f"{self.cut.min_ks} Ks detections, but "
                f"{LIGHTCURVES} has no row of any"
            )

    def _some(self, start: int, stop: int) -> Iterator[pa.Table]:
        """Yield the light curves of the sources from start to stop, in halves if the service cuts them short."""
        kept = np.flatnonzero(self.kept[start:stop]) + start
        if not len(kept):
            return
        start, stop = int(kept[0]), int(kept[-1]) + 1
        adql = (
            f"SELECT {', '.join(_OF_LIGHTCURVES)} FROM {LIGHTCURVES} "
            f"WHERE sourceid BETWEEN {self._number[start]} AND {self._number[stop - 1]}"
        )
        large = bool(self._foretold[start:stop].sum() > _SYNC)
        try:
            found = self.service.query(adql, maxrec=MAXREC, asynchronous=large)
        except TruncatedAnswer:
            if stop - start == 1:
                raise
            found = None
        if found is None:
            middle = (start + stop) // 2
            yield from self._some(start, middle)
            yield from self._some(middle, stop)
        elif (made := self._rows(start, stop, found)).num_rows:
            self._statistics.append(statistics_of_sorted(made))
            yield made

    def _rows(self, start: int, stop: int, found: pa.Table) -> pa.Table:
        """Convert an answer on the sources from start to stop to rows of the lake, sorted."""
        if not found.num_rows:
            return TABLES["lightcurves"].empty()
        found = self._without(found, f"rows of {LIGHTCURVES} without a sourceid", columns.is_known(found, "sourceid"))
        found = self._without(found, f"rows of {LIGHTCURVES} without a time", dated(columns.floats(found, "mjdobs")))
        found = self._without(
            found, f"rows of {LIGHTCURVES} in no band of {', '.join(BANDS)}", columns.bands(found) >= 0
        )
        number = columns.ints(found, "sourceid", LIGHTCURVES)
        source = np.searchsorted(self._number, number)
        unknown = self._number[np.minimum(source, len(self) - 1)] != number
        if unknown.any():
            raise GranuleRejected(f"{LIGHTCURVES} has rows of source {number[unknown][0]}, which {SOURCES} has not")
        self._seen[source] = True
        band = columns.bands(found)
        mjd = columns.floats(found, "mjdobs")
        wanted = np.flatnonzero(self.kept[source] & np.isin(band, [BANDS.index(name) for name in self.cut.bands]))
        rows = wanted[np.lexsort((mjd[wanted], band[wanted], self._rank[source[wanted]]))]
        found = found.drop_columns(["filter"]).take(pa.array(rows))
        source, band, mjd = source[rows], band[rows], mjd[rows]
        has_catid = columns.is_known(found, "catid")
        catid = np.asarray(columns.cast(found, "catid", pa.int64()).fill_null(-1).to_numpy())
        self._exposures.append(columns.distinct(catid[has_catid], band[has_catid], mjd[has_catid]))
        exposures, exposure = np.unique(catid, return_inverse=True)
        times, time = np.unique(mjd, return_inverse=True)
        mag, mag_err, chi_ast, chi = (self._sound(found, name) for name in ("mag", "emag", "ast_res_chisq", "chi"))
        flux = vega_flux(mag, band)
        quality, usable, n_odd = columns.quality(found)
        self._odd_values += n_odd
        values = {
            "flux": flux, "flux_err": flux_err(flux, mag_err), "mag": mag, "mag_err": mag_err,
            "chi": chi, "ast_res_chisq": chi_ast,
        }  # fmt: skip
        return pa.table(
            {
                **self._keys(len(rows)),
                "source_id": pa.DictionaryArray.from_arrays(
                    pa.array((source - start).astype(np.int32)), self._ids.slice(start, stop - start)
                ),
                "hpx29": self._hpx29[source],
                "band": pa.DictionaryArray.from_arrays(pa.array(band), pa.array(BANDS)),
                "mjd": mjd,
                "bmjd_tdb": EarthTimes(times, ORIGIN.time_scale.lower()).to_bmjd_tdb(
                    time, self._ra[start:stop], self._dec[start:stop], source - start
                ),
                "unit": constant("mJy", len(rows)),
                "detected": np.isfinite(mag),
                "good": usable & (chi_ast < AST_RES_CHISQ_MAX) & np.isfinite(mag),
                "quality": quality,
                "exposure_id": pa.DictionaryArray.from_arrays(
                    pa.array(exposure.astype(np.int32), mask=~has_catid), pa.array(exposures).cast(pa.string())
                ),
                **{name: pa.array(value.astype(np.float32), from_pandas=True) for name, value in values.items()},
            }
        )

    def _sound(self, found: pa.Table, name: str) -> Floats:
        values, n = columns.without_odd(columns.floats(found, name), *_RANGES[name])
        self._odd_values += n
        return values
