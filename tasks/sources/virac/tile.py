"""Read a VIRAC tile, ts_tables/n{nside}_{pixel}.hdf5, whole arrays at a time, and check that its parts agree.

catIndex has a row for each pawprint catalogue (an image of one detector), sourceList one for each source, and
timeSeries ragged arrays, one element for each source. A detection names its pawprint by catindexid, which need not be
the number of its row. Whatever does not fit is a GranuleRejected that says what; what may be the disk's fault is an
OSError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hpgeom
import numpy as np
from numpy.typing import NDArray

from lake.errors import GranuleRejected
from lake.text import counted
from tasks.services.bounds import Failed, in_memory

Ints = NDArray[np.int64]
Columns = dict[str, NDArray[Any]]

BANDS = ("H", "J", "Ks", "Y", "Z")
"""In the order of the lake's rows."""

# sourceid // 10**6 is the RING pixel of this nside that the source is in (18 of 18 real sources).
SOURCE_NSIDE, SOURCES_PER_PIXEL = 1024, 1_000_000

# A position may have moved on since its sourceid was given: so far beyond its pixel it may be.
_STRAY_ARCSEC = 30.0

# Detection-aligned arrays. Without the first the tile makes no sense; of the others a tile may lack some.
REQUIRED = ("hfad_mag", "hfad_emag", "chi", "ast_res_chisq", "ambiguous_match")
_IDS = ("catindexid", "catindexidcovered")
OPTIONAL = ("cnf_ctr", "diff_fit_ap", "ext", "objtype", "sky", "x", "y")

# A link may lead to a link, so many times.
_LINKS = 16

_NAME = re.compile(r"n(256|512|1024)_(0|[1-9][0-9]*)\.(?:hdf5|h5)")
_DISK = re.compile(r"errno = (5|11|12|13|23|24|28|110|116|121)\b")


def tile_of(name: str) -> tuple[int, int]:
    """Return nside and RING pixel of a tile from the name of its file.

    Raises
    ------
    GranuleRejected
        If it is not the name of a tile.
    """
    match = _NAME.fullmatch(name)
    if match is None or int(match[2]) >= 12 * int(match[1]) ** 2:
        raise GranuleRejected(f"{name} is not the name of a tile: n{{nside}}_{{RING pixel}}.hdf5")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Pawprints:
    """The pawprints of a tile, in the order of band and time.

    Parameters
    ----------
    row
        Place here of each catindexid, from the least on; -1 where there is none.
    first
        The least catindexid.
    band
        Index of the band in BANDS.
    columns
        catindexid, mjdobs, and what else catIndex has.
    """

    row: Ints
    first: int
    band: NDArray[np.int8]
    columns: Columns

    def __len__(self) -> int:
        return len(self.band)

    def places(self, catindexid: NDArray[Any]) -> Ints:
        """Return the index of each catindexid.

        Raises
        ------
        GranuleRejected
            If one is not in catIndex.
        """
        offset = catindexid.astype(np.int64) - self.first
        inside = (offset >= 0) & (offset < len(self.row))
        if not inside.all() or (self.row[offset] < 0).any():
            bad = offset[~inside] if not inside.all() else offset[self.row[offset] < 0]
            raise GranuleRejected(f"catindexid {bad[0] + self.first} is not in catIndex")
        return self.row[offset]


class Tile:
    """An open tile."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.nside, self.pixel = tile_of(path.name)
        self._file, self._path = file, path
        self.pawprints = self._pawprints()
        self.sources = self._sources()
        self.series = {name: self._dataset("timeSeries", name, len(self), ragged=True) for name in (*_IDS, *REQUIRED)}
        for name in OPTIONAL:
            if self._has("timeSeries", name):
                self.series[name] = self._dataset("timeSeries", name, len(self), ragged=True)

    def __len__(self) -> int:
        return len(self.sources["sourceid"])

    def ragged(self, name: str, rows: slice) -> NDArray[np.object_]:
        """Return the arrays of some sources, in one read.

        Raises
        ------
        GranuleRejected
            If they cannot be decoded.
        """
        with self._reading(f"timeSeries/{name}"):
            values: NDArray[np.object_] = self.series[name][rows]
        return values

    @contextmanager
    def _reading(self, where: str) -> Iterator[None]:
        """Raise errors of HDF5 as what they are: a damaged tile, or a failing disk."""
        try:
            yield
        except OSError as error:
            raise _rejected(error, self._path) from error
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise GranuleRejected(f"{where} cannot be read: {_first_line(error)}") from error

    def _has(self, group: str, name: str) -> bool:
        with self._reading(group):
            found = self._found(group)
            return isinstance(found, h5py.Group) and name in found

    def _found(self, path: str, links: int = _LINKS) -> h5py.HLObject | None:
        """Return the object at a path in the file, without following links out of it or in circles."""
        here: h5py.HLObject = self._file["/"]
        for part in filter(None, path.split("/")):
            link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
            if isinstance(link, h5py.ExternalLink):
                raise GranuleRejected(f"{path} is a link to another file, {link.filename}")
            if isinstance(link, h5py.SoftLink):
                if not links:
                    raise GranuleRejected(f"{path} is a link that leads nowhere")
                # A path from here, unless it begins at the root.
                found = self._found(link.path if link.path.startswith("/") else f"{here.name}/{link.path}", links - 1)
            else:
                found = None if link is None else here[part]
            if found is None:
                return None
            here = found
        return here

    def _dataset(self, group: str, name: str, n: int | None = None, *, ragged: bool = False) -> h5py.Dataset:
        where = f"{group}/{name}"
        if not self._has("/", group) or not self._has(group, name):
            raise GranuleRejected(f"{where} is missing")
        with self._reading(where):
            found = self._found(where)
            if isinstance(found, h5py.Dataset) and (found.is_virtual or found.external):
                raise GranuleRejected(f"{where} has its data in other files")
            if not isinstance(found, h5py.Dataset) or found.ndim != 1:
                raise GranuleRejected(f"{where} is not a column")
            inner, rows = h5py.check_vlen_dtype(found.dtype), len(found)
        in_memory(_rejection(where)).expects(rows * found.dtype.itemsize)
        if ragged and (inner is None or np.dtype(inner).kind not in ("iu" if name in _IDS else "iufb")):
            kind = "whole numbers" if name in _IDS else "numbers"
            raise GranuleRejected(f"{where} has no arrays of {kind}, but {found.dtype if inner is None else inner}")
        if inner is not None and not np.dtype(inner).isnative:
            raise GranuleRejected(f"{where} has arrays of {inner} in another byte order, which h5py misreads")
        if n is not None and rows != n:
            raise GranuleRejected(f"{where} has {counted(rows, 'row')}, not {n}")
        return found

    def _column(self, group: str, name: str, kinds: str, n: int | None = None) -> NDArray[Any]:
        dataset = self._dataset(group, name, n)
        with self._reading(f"{group}/{name}"):
            values: NDArray[Any] = dataset[:]
        kind = values.dtype.kind
        if kind not in kinds or (kind == "O" and h5py.check_string_dtype(dataset.dtype) is None):
            raise GranuleRejected(f"{group}/{name} has the type {dataset.dtype}")
        if kind in "SO":
            # Many rows share a value, such as a filter.
            given = values.tolist()
            texts = {
                value: (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip(" \0")
                for value in set(given)
            }
            return np.array([texts[value] for value in given], dtype=np.str_)
        return values.astype(values.dtype.newbyteorder("="), copy=False)  # Arrow takes no other

    def _columns(self, group: str, required: dict[str, str], optional: dict[str, str]) -> Columns:
        columns: Columns = {}
        for name, kinds in required.items():
            columns[name] = self._column(group, name, kinds, len(next(iter(columns.values()))) if columns else None)
        n = len(next(iter(columns.values())))
        present = {name: kinds for name, kinds in optional.items() if self._has(group, name)}
        return columns | {name: self._column(group, name, kinds, n) for name, kinds in present.items()}

    def _pawprints(self) -> Pawprints:
        columns = self._columns(
            "catIndex",
            {"catindexid": "iu", "mjdobs": "f", "filter": "SO"},
            {
                "filename": "SO",
                "tile": "SO",
                "tileloc": "iu",
                "seeing": "f",
                "exptime": "f",
                "skylevel": "f",
                "ellipticity": "f",
            },
        )
        ids, mjd, names = columns["catindexid"].astype(np.int64), columns["mjdobs"], columns.pop("filter")
        if not len(ids):
            return Pawprints(np.empty(0, np.int64), 0, np.empty(0, np.int8), columns)
        if len(np.unique(ids)) < len(ids):
            raise GranuleRejected("catIndex/catindexid has values more than once")
        if int(ids.max()) - int(ids.min()) > 100_000_000:
            raise GranuleRejected(f"catIndex/catindexid runs from {ids.min()} to {ids.max()}")
        if not np.isfinite(mjd).all():
            raise GranuleRejected(
                f"catIndex/mjdobs is {mjd[~np.isfinite(mjd)][0]} in {counted((~np.isfinite(mjd)).sum(), 'row')}"
            )
        if mjd.dtype.itemsize < 8:
            raise GranuleRejected(f"catIndex/mjdobs has the type {mjd.dtype}, which is not good to a minute")
        unknown = sorted(set(names.tolist()) - set(BANDS))
        if unknown:
            raise GranuleRejected(f"catIndex/filter {unknown[0]!r} is none of {', '.join(BANDS)}")
        band = np.searchsorted(BANDS, names).astype(np.int8)
        order = np.lexsort((ids, mjd, band))
        row = np.full(int(ids.max() - ids.min()) + 1, -1, np.int64)
        row[ids[order] - ids.min()] = np.arange(len(ids))
        return Pawprints(row, int(ids.min()), band[order], {name: values[order] for name, values in columns.items()})

    def _sources(self) -> Columns:
        floats = (
            "ra_error",
            "dec_error",
            "parallax",
            "parallax_error",
            "pmra",
            "pmra_error",
            "pmdec",
            "pmdec_error",
            "chisq",
            "uwe",
            "ref_epoch",
        )
        columns = self._columns(
            "sourceList",
            {"sourceid": "iu", "ra": "f", "dec": "f"},
            dict.fromkeys(floats, "f") | {"astfit_params": "iu", "duplicate": "iub"},
        )
        ids, ra, dec = columns["sourceid"].astype(np.int64), columns["ra"], columns["dec"]
        on_sky = np.isfinite(ra) & (np.abs(dec) <= 90)
        if not on_sky.all():
            raise GranuleRejected(
                f"sourceList: source {ids[~on_sky][0]} is at ra {ra[~on_sky][0]}, dec {dec[~on_sky][0]}"
            )
        if len(np.unique(ids)) < len(ids):
            raise GranuleRejected("sourceList/sourceid has values more than once")
        self._check_pixels(ids, ra, dec)
        return columns

    def _check_pixels(self, ids: Ints, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> None:
        ring = ids // SOURCES_PER_PIXEL
        outside = (ring < 0) | (ring >= 12 * SOURCE_NSIDE**2)
        if not outside.any():
            nest = hpgeom.ring_to_nest(SOURCE_NSIDE, ring)
            outside = hpgeom.nest_to_ring(self.nside, nest // (SOURCE_NSIDE // self.nside) ** 2) != self.pixel
        if outside.any():
            raise GranuleRejected(f"sourceid {ids[outside][0]} is of a pixel outside tile n{self.nside}_{self.pixel}")
        # Most are in their pixel. Of the rest, a circle around the position must reach it.
        strays = np.flatnonzero(hpgeom.angle_to_pixel(SOURCE_NSIDE, ra, dec, nest=False) != ring)
        for one in strays:
            reached = hpgeom.query_circle(
                SOURCE_NSIDE, ra[one], dec[one], _STRAY_ARCSEC / 3600, inclusive=True, nest=False
            )
            if ring[one] not in reached:
                raise GranuleRejected(f"source {ids[one]} is at {ra[one]:.6f} {dec[one]:+.6f}, not in its pixel")


@contextmanager
def open_tile(path: Path) -> Iterator[Tile]:
    """Open a tile.

    Raises
    ------
    GranuleRejected
        If the file is not a sound tile.
    OSError
        If the file is gone, or the disk fails.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise _rejected(error, path) from error
    with file:
        yield Tile(file, path)


def _rejected(error: OSError, path: Path) -> Exception:
    """Convert an error of HDF5: a damaged file is rejected, a failing disk stays an OSError."""
    if error.errno is not None or _DISK.search(str(error)) or not path.is_file():
        return error
    return GranuleRejected(
        "the file is empty" if not path.stat().st_size else f"it cannot be read: {_first_line(error)}"
    )


def _rejection(where: str) -> Failed:
    return lambda message, **_: GranuleRejected(f"{where}: {message}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
