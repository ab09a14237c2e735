"""VIRAC: light curves of VVV and VVVX stars (ZYJHKs, VISTA), from HDF5 tiles.

A tile is a granule. Of each source that has enough detections in Ks, every detection and every covered pawprint without
one becomes a row; of each other source, the entry in table sources says why there is none. A tile is read some million
rows at a time, so memory does not grow with the tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.commit.sound import sound
from lake.errors import ConfigurationError, GranuleRejected
from lake.science.photometry import AB_ZERO_POINT_JY, flux_err
from lake.science.sky import hpx29
from lake.science.times import EarthTimes
from lake.text import counted
from tasks.services.values import possible
from tasks.sources.base import Band, Origin
from tasks.sources.statistics import statistics_of_sorted
from tasks.sources.virac.columns import AMBIGUOUS, ODD_VALUES, as_json, objtype_bits, or_null, without_odd
from tasks.sources.virac.options import MIN_KS
from tasks.sources.virac.tile import BANDS, Columns, Tile
from tasks.sources.virac.views import VIEWS

Ints = NDArray[np.int64]

NAME = "virac"
RELEASE = "ts_tables"

# AB less Vega magnitude of each band: C. Gonzalez-Fernandez et al. 2018, MNRAS 474, 5459, and CASU's page on VISTA's
# photometric properties. The flux of Vega magnitude 0 follows from it: Ks 675 Jy.
AB_MINUS_VEGA = {"Z": 0.502, "Y": 0.600, "J": 0.916, "H": 1.366, "Ks": 1.827}

# Effective wavelengths, nm: SVO Filter Profile Service, Paranal/VISTA.
_WAVELENGTH_NM = {"Z": 876.2, "Y": 1018.4, "J": 1246.4, "H": 1631.0, "Ks": 2133.7}

# Astrometric residuals within 5 sigma of 2 degrees of freedom: L. C. Smith et al. 2025, MNRAS 536, 3707. Chi squared
# has P(> x) = exp(-x / 2) there, and 5 sigma is P = 5.733e-7.
AST_RES_CHISQ_MAX = 28.74

# Of a source with MIN_KS detections in Ks, or fewer.
LEFT_OUT = "ks_detections_le_min"

# Rows that are read at once, and made into Arrow tables at once; and cells of the table of sources and pawprints that
# finds which were covered. With 60 bytes a row of arrays that is some 0.5 GB.
_ROWS_READ, _ROWS_MADE, _CELLS = 2_000_000, 131_072, 25_000_000
_SOURCES_COUNTED = 20_000

# What a magnitude can be: the limits of column mag.
_MAGNITUDES = (-30.0, 60.0)

_FLOATS = ("chi", "x", "y", "sky", "cnf_ctr", "diff_fit_ap", "ext")


@dataclass(frozen=True)
class Selection:
    """The bands and sources to take of a tile.

    Parameters
    ----------
    min_ks
        Sources with more Ks detections than this.
    bands
        Bands whose rows are wanted.
    """

    min_ks: int = MIN_KS
    bands: tuple[str, ...] = BANDS

    def __post_init__(self) -> None:
        unknown = [band for band in self.bands if band not in BANDS]
        if unknown or not self.bands:
            raise ConfigurationError(f"VIRAC has no band {', '.join(unknown)!r}", hint=f"it has {', '.join(BANDS)}")
        if self.min_ks < 0:
            raise ConfigurationError(f"min_ks cannot be {self.min_ks}", hint="give 0 or more; default: 20")

    def as_parameters(self) -> dict[str, Any]:
        """Return it as the parameters of a granule."""
        return {"bands": sorted(set(self.bands)), "min_ks": self.min_ks}


class Extraction:
    """The rows of a tile.

    Parameters
    ----------
    tile
        The open tile.
    granule
        Id of the granule.
    cut
        What is wanted.

    Raises
    ------
    GranuleRejected
        If the tile contradicts itself; from lightcurves, also in the midst of them.
    """

    def __init__(self, tile: Tile, granule: str, cut: Selection) -> None:
        self.tile, self.granule, self.cut = tile, granule, cut
        self.detections = self.non_detections = self.expected_detections = self.expected_covered = 0
        self.odd_values = 0
        self._statistics: list[pa.Table] = []
        self._remarks: list[str] = []
        self._hpx29 = hpx29(tile.sources["ra"], tile.sources["dec"])
        self._lengths, self._ks = self._count()
        self.kept = self._ks > cut.min_ks

    def _count(self) -> tuple[Ints, Ints]:
        """Count the detections of each source: all, and those in Ks."""
        n, paws = len(self.tile), self.tile.pawprints
        lengths, ks = np.zeros(n, np.int64), np.zeros(n, np.int64)
        for start in range(0, n, _SOURCES_COUNTED):
            arrays = self.tile.ragged("catindexid", slice(start, start + _SOURCES_COUNTED))
            sizes = _sizes(arrays)
            lengths[start : start + len(arrays)] = sizes
            is_ks = paws.band[paws.places(_flat(arrays))] == BANDS.index("Ks")
            of = np.repeat(np.arange(len(arrays)), sizes)
            ks[start : start + len(arrays)] = np.bincount(of[is_ks], minlength=len(arrays))
        return lengths, ks

    @property
    def remark(self) -> str | None:
        """Return the remark on a sound tile for the ledger, as far as it has been read."""
        n = int((~self.kept).sum())
        remarks = (
            [f"{n} of {counted(len(self.kept), 'source')} left out: no more than {self.cut.min_ks} Ks detections"]
            if n
            else []
        )
        remarks += self._remarks
        if self.odd_values:
            remarks.append(f"{ODD_VALUES}: {self.odd_values}")
        return "; ".join(remarks) or None

    def tables(self) -> dict[str, pa.Table]:
        """Return the tables of sources and exposures."""
        tables, self._remarks = sound({"sources": self._sources(), "exposures": self._exposures()})
        return tables

    def statistics(self) -> dict[str, pa.Table]:
        """Return the statistics of the light curves that have been made."""
        return {"statistics": pa.concat_tables(self._statistics)} if self._statistics else {}

    def _keys(self, n: int) -> dict[str, pa.Array]:
        return {
            name: constant(value, n)
            for name, value in (("archive", NAME), ("release", RELEASE), ("granule", self.granule))
        }

    def _sources(self) -> pa.Table:
        found = self.tile.sources
        names = {
            "ra": "ra", "dec": "dec", "ra_error": "ra_err", "dec_error": "dec_err", "parallax": "parallax",
            "parallax_error": "parallax_err", "pmra": "pm_ra", "pmra_error": "pm_ra_err", "pmdec": "pm_dec",
            "pmdec_error": "pm_dec_err", "ref_epoch": "ref_epoch", "chisq": "astfit_chisq", "uwe": "uwe",
        }  # fmt: skip
        columns = {
            theirs: pa.array(found[name].astype(np.float64), from_pandas=True)
            for name, theirs in names.items()
            if name in found
        }
        if "astfit_params" in found:
            columns["astfit_params"] = pa.array(found["astfit_params"].astype(np.int32))
        if "duplicate" in found:
            columns["duplicate"] = pa.array(found["duplicate"].astype(bool))
        left_out = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(len(self.kept), np.int8), mask=self.kept), pa.array([LEFT_OUT])
        )
        keys = {name: array.cast(pa.string()) for name, array in self._keys(len(self.tile)).items()}
        return pa.table(
            {**keys, "source_id": self._ids(), "hpx29": self._hpx29, **columns, "left_out": left_out.cast(pa.string())}
        )

    def _ids(self) -> pa.Array:
        return pa.array(self.tile.sources["sourceid"].astype(np.int64)).cast(pa.string())

    @cached_property
    def _exposure_ids(self) -> pa.Array:
        """Ids of the pawprints: their number is the tile's own, so that tiles do not share any."""
        tile = f"n{self.tile.nside}_{self.tile.pixel}/"
        return pa.array([f"{tile}{number}" for number in self.tile.pawprints.columns["catindexid"].tolist()])

    def _exposures(self) -> pa.Table:
        paws = self.tile.pawprints
        n = len(paws)
        exptime = paws.columns.get("exptime")
        details = as_json(
            {name: paws.columns[name].tolist() for name in ("filename", "tile", "tileloc") if name in paws.columns}
        )
        columns = {
            name: pa.array(paws.columns[theirs].astype(np.float32), from_pandas=True)
            for name, theirs in (("seeing_arcsec", "seeing"), ("sky_level", "skylevel"), ("ellipticity", "ellipticity"))
            if theirs in paws.columns
        }
        return pa.table(
            {
                **{name: array.cast(pa.string()) for name, array in self._keys(n).items()},
                "exposure_id": self._exposure_ids,
                "band": pa.array(BANDS).take(pa.array(paws.band)),
                "mjd_start": paws.columns["mjdobs"],
                "exposure_s": pa.nulls(n, pa.float64()) if exptime is None else exptime.astype(np.float64),
                "details": details or pa.nulls(n, pa.string()),
                **columns,
            }
        )

    def lightcurves(self) -> Iterator[pa.Table]:
        """Yield the light curves of the sources that are kept, sorted as the table is within some million rows.

        Raises
        ------
        GranuleRejected
            If the arrays of a source do not fit each other, or in the end not all rows have come.
        """
        self.detections = self.non_detections = self.expected_detections = self.expected_covered = 0
        self.odd_values = 0
        self._statistics.clear()
        ends = np.cumsum(self._lengths)
        start = 0
        while start < len(self.tile):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + _ROWS_READ, side="right")))
            if self.kept[start:stop].any():
                yield from self._some(start, stop)
            start = stop
        if (self.detections, self.detections + self.non_detections) != (
            self.expected_detections, self.expected_covered,
        ):  # fmt: skip
            raise GranuleRejected(
                f"{counted(self.detections, 'detection')} and {self.non_detections} non-detections were made of "
                f"{counted(self.expected_detections, 'detection')} in "
                f"{counted(self.expected_covered, 'covered pawprint')}"
            )

    def _some(self, start: int, stop: int) -> Iterator[pa.Table]:
        """Yield the light curves of the sources from start to stop."""
        arrays = {name: self.tile.ragged(name, slice(start, stop)) for name in self.tile.series}
        sizes = {name: _sizes(array) for name, array in arrays.items()}
        kept = np.flatnonzero(self.kept[start:stop])
        self._check_sizes(start, kept, sizes)
        self.expected_detections += int(sizes["catindexid"][kept].sum())
        self.expected_covered += int(sizes["catindexidcovered"][kept].sum())
        ids = self._ids().slice(start, stop - start)
        names = np.array(ids.take(pa.array(kept)).to_pylist(), dtype=np.str_)
        order = kept[np.lexsort((names, self._hpx29[start:stop][kept]))]
        covered = np.cumsum(sizes["catindexidcovered"][order])
        most = max(1, _CELLS // max(1, len(self.tile.pawprints)))
        first = 0
        while first < len(order):
            before = covered[first - 1] if first else 0
            last = int(np.searchsorted(covered, before + _ROWS_MADE, side="right"))
            last = min(max(first + 1, last), first + most)
            chosen = order[first:last]
            part = {name: _flat(array[chosen]) for name, array in arrays.items()}
            counts = {name: sizes[name][chosen] for name in ("catindexid", "catindexidcovered")}
            made = self._rows(start + chosen, ids.take(pa.array(chosen)), counts, part)
            self._statistics.append(statistics_of_sorted(made))
            yield made
            first = last

    def _check_sizes(self, start: int, kept: Ints, sizes: Mapping[str, Ints]) -> None:
        for name, size in sizes.items():
            if name == "catindexidcovered":
                continue
            other = kept[size[kept] != sizes["catindexid"][kept]]
            if len(other):
                one = other[0]
                raise GranuleRejected(
                    f"source {self.tile.sources['sourceid'][start + one]} has "
                    f"{counted(sizes['catindexid'][one], 'detection')}, "
                    f"but {counted(size[one], 'value')} of {name}"
                )

    def _rows(self, sources: Ints, ids: pa.Array, counts: Mapping[str, Ints], arrays: Columns) -> pa.Table:
        """Return the rows of some sources, detections and non-detections, in the order of band and time."""
        paws, n_paws = self.tile.pawprints, len(self.tile.pawprints)
        number = np.arange(len(sources))
        cells = {
            name: np.repeat(number, counts[name]) * n_paws + paws.places(arrays[name])
            for name in ("catindexid", "catindexidcovered")
        }
        # A cell for each source and pawprint: whatever the order of the arrays, rows come out sorted, and once.
        seen = np.zeros(len(sources) * n_paws, bool)
        seen[cells["catindexidcovered"]] = True
        rows = np.flatnonzero(seen)
        detection = cells["catindexid"]
        self._check_covered(sources, seen, detection)
        self._check_once(sources, "catindexidcovered", cells["catindexidcovered"], len(rows))
        place_of = np.empty(len(seen), np.int64)
        place_of[rows] = np.arange(len(rows))
        at = place_of[detection]
        detected = np.zeros(len(rows), bool)
        detected[at] = True
        n_detected = int(np.count_nonzero(detected))
        self._check_once(sources, "catindexid", detection, n_detected)
        self.detections += n_detected
        self.non_detections += len(rows) - n_detected
        source = rows // n_paws
        paw = rows - source * n_paws
        table = self._measurements(len(rows), at, paws.band[paw], arrays)
        detected = detected & table.pop("measured")
        mjd = paws.columns["mjdobs"][paw]
        found = self.tile.sources
        columns = {
            **self._keys(len(rows)),
            "source_id": pa.DictionaryArray.from_arrays(pa.array(source.astype(np.int32)), ids),
            "hpx29": self._hpx29[sources][source],
            "band": pa.DictionaryArray.from_arrays(pa.array(paws.band[paw].astype(np.int32)), pa.array(BANDS)),
            "mjd": mjd,
            "bmjd_tdb": self._clock.to_bmjd_tdb(paw, found["ra"][sources], found["dec"][sources], source),
            "unit": constant("mJy", len(rows)),
            "detected": detected,
            "exposure_id": pa.DictionaryArray.from_arrays(pa.array(paw.astype(np.int32)), self._exposure_ids),
            **table,
        }
        if "exptime" in paws.columns:
            exptime = possible(paws.columns["exptime"], "exposure_s").astype(np.float32)  # counted with the exposures
            columns["exposure_s"] = or_null(exptime[paw])
        made = pa.table(columns)
        if set(self.cut.bands) < set(BANDS):
            wanted = np.isin(paws.band[paw], [BANDS.index(band) for band in self.cut.bands])
            made = made.filter(pa.array(wanted))
        return made

    def _check_covered(self, sources: Ints, seen: NDArray[np.bool_], detection: Ints) -> None:
        is_covered, n_paws = seen[detection], len(self.tile.pawprints)
        if not is_covered.all():
            uncovered = detection[~is_covered][0]
            raise GranuleRejected(
                f"source {self.tile.sources['sourceid'][sources[uncovered // n_paws]]} has a detection in a pawprint "
                f"that does not cover it: catindexid {self.tile.pawprints.columns['catindexid'][uncovered % n_paws]}"
            )

    def _check_once(self, sources: Ints, name: str, cells: Ints, distinct: int) -> None:
        if distinct < len(cells):
            ordered = np.sort(cells)
            one = ordered[1:][ordered[1:] == ordered[:-1]][0]
            source = self.tile.sources["sourceid"][sources[one // len(self.tile.pawprints)]]
            raise GranuleRejected(f"source {source} has a pawprint twice in {name}")

    @cached_property
    def _clock(self) -> EarthTimes:
        try:
            return EarthTimes(self.tile.pawprints.columns["mjdobs"], ORIGIN.time_scale.lower())
        except ValueError as error:
            raise GranuleRejected(f"catIndex/mjdobs: {error}") from error

    def _sound(self, values: NDArray[Any], low: float, high: float) -> NDArray[Any]:
        """Replace impossible values, such as a magnitude of 99.99, by NaN, and count them."""
        values, n = without_odd(values, low, high)
        self.odd_values += n
        return values

    def _measurements(self, n: int, at: Ints, band: NDArray[np.int8], arrays: Columns) -> dict[str, Any]:
        """Return the columns of detections, NULL elsewhere; and where there is a flux."""
        mag = self._sound(arrays["hfad_mag"], *_MAGNITUDES).astype(np.float64)
        mag_err = self._sound(arrays["hfad_emag"], 0.0, np.inf).astype(np.float64)
        flux = vega_flux(mag, band[at])
        values = {"flux": flux, "flux_err": flux_err(flux, mag_err), "mag": mag, "mag_err": mag_err}
        residual = self._sound(arrays["ast_res_chisq"], 0.0, np.inf)
        values |= {name: self._sound(arrays[name], -np.inf, np.inf) for name in _FLOATS if name in arrays}
        values["ast_res_chisq"] = residual
        columns = {}
        for name, value in values.items():
            column = np.full(n, np.nan, np.float32)
            column[at] = value.astype(np.float32, copy=False)
            columns[name] = or_null(column)
        ambiguous = arrays["ambiguous_match"] != 0
        word, has_type = np.where(ambiguous, AMBIGUOUS, 0).astype(np.int64), np.ones(len(at), bool)
        if "objtype" in arrays:
            bits, has_type = objtype_bits(arrays["objtype"])
            word |= bits
            self.odd_values += int(np.count_nonzero(~has_type))
        quality, known = np.zeros(n, np.int64), np.zeros(n, bool)
        quality[at], known[at] = word, has_type
        measured, good = np.zeros(n, bool), np.zeros(n, bool)
        measured[at] = np.isfinite(mag)
        good[at] = ~ambiguous & (residual < AST_RES_CHISQ_MAX) & np.isfinite(mag)
        return {**columns, "measured": measured, "good": pa.array(good), "quality": pa.array(quality, mask=~known)}


def vega_flux(mag: NDArray[np.float64], band: NDArray[np.int8]) -> NDArray[np.float64]:
    """Convert Vega magnitudes to flux, mJy, in bands given by their index in BANDS."""
    return np.asarray(_ZERO_POINTS_MJY[band] * np.exp(mag * (-0.4 * np.log(10))))


def _sizes(arrays: NDArray[np.object_]) -> Ints:
    return np.fromiter(map(len, arrays), np.int64, len(arrays))


def _flat(arrays: Sequence[NDArray[Any]] | NDArray[np.object_]) -> NDArray[Any]:
    return np.concatenate(arrays) if len(arrays) else np.empty(0, np.int64)


def constant(value: str, n: int) -> pa.Array:
    """Repeat a text n times, as a dictionary."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value]))


def _band(name: str) -> Band:
    offset = AB_MINUS_VEGA[name]
    source = "C. Gonzalez-Fernandez et al. 2018, MNRAS 474, 5459"
    return Band(
        name, f"VISTA {name}, PSF photometry of a pawprint", "mJy", mag_system="Vega",
        zero_point_jy=AB_ZERO_POINT_JY * 10 ** (-0.4 * offset), zero_point_source=f"AB less Vega = {offset}: {source}",
        ab_minus_mag=offset, ab_source=source, wavelength_nm=_WAVELENGTH_NM[name], svo_id=f"Paranal/VISTA.{name}",
    )  # fmt: skip


ORIGIN = Origin(
    name=NAME,
    views=VIEWS,
    title="VIRAC time series of VVV and VVVX",
    release=RELEASE,
    endpoint="https://archive.eso.org/tap_cat",
    probe="/capabilities",
    time_scale="UTC",
    time_frame="topocentre",
    bands=tuple(_band(name) for name in BANDS),
    cadence="frozen",
    licence="Tiles: of the VIRAC team; public VIRAC2: ESO, https://archive.eso.org/cms/eso-data-access-policy.html",
    acknowledgement="Based on data products from observations made with ESO Telescopes at the La Silla or Paranal "
    "Observatories under ESO programmes 179.B-2002 and 198.B-2004.",
    bibcode="2025MNRAS.536.3707S",
    access="HDF5 tiles in a folder or at s3://, or VIRAC2 from ESO's TAP service, or from LIGHTLAKE_ENDPOINTS__VIRAC.",
    matching="None: a tile is extracted whole. Macros cone and sources_in_cone find its sources by position.",
    quality="good: detected, not ambiguous, astrometric residual within 5 sigma (ast_res_chisq below 28.74). quality: "
    "ambiguous_match in bit 0, objtype in bits 8 to 15.",
    corrections="Magnitudes are the tile's, Vega; fluxes are made from them with VISTA's zero points. A pawprint that "
    "covers a source without a detection is a row with detected = false and no flux; there are no limiting magnitudes. "
    "The tile's own aggregates and indices of variability are not copied: table statistics has the lake's.",
    notes="mjd is mjdobs of the pawprint, as published; whether of its start or middle the tiles do not say (ESO's MJD-"
    "OBS is the start, and an exposure takes 4 to 10 s). Sources with too few Ks detections are in sources, with the "
    "reason in left_out, and have no light curve. Positions are those of the tile's source list.",
)
_ZERO_POINTS_MJY = np.array([1e3 * (band.zero_point_jy or np.nan) for band in ORIGIN.bands])
