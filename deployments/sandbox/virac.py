"""Stand-in for VIRAC's time series: tiles ``n{nside}_{ring pixel}.hdf5``, and ways of breaking them.

A tile has a catalogue of pawprints, a list of sources, and ragged arrays with the detections of each source. All of it
depends on the arguments only. Light curves are made and written a slice of sources at a time, so memory is bounded.
"""

from __future__ import annotations

import functools
import itertools
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import erfa
import h5py
import hpgeom
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Columns = dict[str, Array]
Layout = Literal["contiguous", "chunked+gzip"]
Ids = Literal["rows", "shuffled"]
Filters = Literal["S2", "padded", "str"]

BANDS = ("Ks", "Z", "Y", "J", "H")
RANGES = {1024: (8_770_584, 9_393_125), 512: (2_087_427, 2_717_350), 256: (511_225, 750_011)}
"""First and last RING pixel of the tiles, by nside."""
SERIES = {
    "catindexid": "i4", "catindexidcovered": "i4", "hfad_mag": "f4", "hfad_emag": "f4", "chi": "f4",
    "ast_res_chisq": "f4", "ambiguous_match": "?", "cnf_ctr": "f4", "diff_fit_ap": "f4", "ext": "f4", "objtype": "i4",
    "sky": "f4", "x": "f4", "y": "f4",
}  # fmt: skip
"""Types of the elements of the ragged arrays of ``timeSeries``."""
PERCENTILES = (0, 1, 5, 16, 25, 75, 84, 95, 99, 100)

# By band, in the order of BANDS: limit and sky level at median seeing, colour against Ks, exposure time.
_LIMIT, _SKY = np.array([18.1, 20.3, 19.9, 19.3, 18.5]), np.array([5200.0, 190.0, 470.0, 1200.0, 4600.0])
_COLOUR, _EXPTIME = np.array([0.0, 2.2, 1.6, 0.9, 0.3]), np.array([4.0, 10.0, 10.0, 6.0, 4.0])
_OF_YEARS = (0.05, 0.08, 0.15, 0.24, 0.15, 0.12, 0.05, 0.08, 0.06, 0.02)  # 2010 to 2019
_ALTERNATIVES = {f"{band}_b_ivw_mean_mag": f"{band}_ivw_mean_mag" for band in ("ks", "j", "h")} | {
    "ks_b_ivw_err_mag": "ks_ivw_err_mag", "ks_n_b_phot": "ks_n_detections"
}  # fmt: skip
_LEVELS = 3  # a tile has 4^3 cells; pawprints that cover a cell mostly cover those beside it
_SLICE = 1_500_000  # sources times epochs that are made at once


def tile_name(nside: int, pixel: int) -> str:
    """Name of the file of a tile."""
    return f"n{nside}_{pixel}.hdf5"


def write_tile(
    path: Path,
    *,
    nside: int,
    pixel: int,
    n_sources: int,
    n_pawprints: int = 1_200,
    epochs: tuple[int, int] = (200, 600),
    few: float = 0.1,
    seed: int = 0,
    layout: Layout = "contiguous",
    gzip_series: bool = False,
    catindexid: Ids = "rows",
    filters: Filters = "S2",
    with_variability: bool = True,
    with_z_counts: bool = True,
    alternative_names: bool = False,
) -> None:
    """Write a tile under a temporary name, then rename it.

    Parameters
    ----------
    path
        The file; one that is there is replaced.
    nside, pixel
        The tile: HEALPix nside and RING pixel. ValueError if it is not in `RANGES`.
    n_sources
        Number of sources, which may be 0.
    n_pawprints
        Rows of the catalogue: mostly Ks, pairs of exposures, ordered by survey tile and time.
    epochs
        Fewest and most pawprints that cover a source. All but a few of them detect it, unless it is faint.
    few
        Share of sources with 0 to 40 Ks detections, and not many epochs in all. The first ones have 20, 21, 0 and 1.
    seed
        Seed of everything random, with `nside` and `pixel`.
    layout, gzip_series
        How datasets are stored, "contiguous" or "chunked+gzip", and whether ``timeSeries`` is too. Its chunks hold
        references to the arrays, which HDF5 does not compress.
    catindexid
        "rows" if ids are row numbers of the catalogue; "shuffled" for ids in no order, starting at 10,000.
    filters
        Type of ``filter``: "S2", "padded" with one or two blanks to four bytes, or "str" of variable length.
    with_variability, with_z_counts, alternative_names
        Whether there is a group ``variabilityIndices`` (of sources with at least 10 Ks detections), a column
        ``z_n_detections``, and aggregates a second time as other releases name them (``ks_b_ivw_mean_mag`` ...).
    """
    if nside not in RANGES or not RANGES[nside][0] <= pixel <= RANGES[nside][1]:
        raise ValueError(f"{tile_name(nside, pixel)} is not in the survey")
    if not (0 < epochs[0] <= epochs[1] <= n_pawprints and n_sources <= 400_000):  # running numbers are below 10^6
        raise ValueError(f"no tile of {n_sources} sources with {epochs} epochs of {n_pawprints} pawprints")
    rng = np.random.default_rng([seed, nside, pixel])
    catalogue = _pawprints(rng, n_pawprints, catindexid)
    sources, stars = _sources(rng, nside, pixel, n_sources, epochs, few)
    # Cells take runs of pawprints in a random order, so that neighbours share most of theirs if there are not many.
    cells, deep = 4**_LEVELS, epochs[1]
    begin = (np.arange(cells) * ((n_pawprints - deep) / (cells - 1))).round().astype(int)
    paired = (2 * rng.permutation(-(-n_pawprints // 2))[:, None] + [0, 1]).ravel()
    pool = np.sort(paired[paired < n_pawprints][begin[:, None] + np.arange(deep)], axis=1)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with h5py.File(part, "w") as file:
            _put(file, "catIndex", {**catalogue, "filter": _filters(catalogue["filter"], filters)}, layout)
            series = file.create_group("timeSeries")
            stored = _storage(layout if gzip_series else "contiguous", n_sources)
            for name, kind in SERIES.items():
                series.create_dataset(name, (n_sources,), h5py.vlen_dtype(np.dtype(kind)), **stored)
            found: list[tuple[Columns, Columns]] = []
            for start in range(0, max(n_sources, 1), step := max(1, _SLICE // deep)):  # once at least, for the names
                these = {name: values[start : start + step] for name, values in stars.items()}
                curves, counts, paws = _curves(rng, these, pool, catalogue)
                for name, flat in curves.items():
                    much = counts["covered" if name == "catindexidcovered" else "detected"]
                    if len(much):
                        dest = np.s_[start : start + len(much)]
                        series[name].write_direct(_ragged(flat, much, SERIES[name]), dest_sel=dest)
                found.append(_statistics(curves, counts["seen"], paws, catalogue["mjdobs"]))
            both = [{name: np.concatenate([one[n][name] for one in found]) for name in found[0][n]} for n in (0, 1)]
            varied = both[0]["ks_n_detections"] >= 10 if with_variability else np.zeros(n_sources, bool)
            if not with_z_counts:
                del both[0]["z_n_detections"]
            if alternative_names:
                both[0] |= {new: both[0][old] for new, old in _ALTERNATIVES.items()}
            _put(file, "sourceList", {**sources, "has_variabilityIndices": varied, **both[0]}, layout)
            if with_variability:
                indices = {"sourceid": sources["sourceid"], **both[1]}
                _put(file, "variabilityIndices", {name: v[varied] for name, v in indices.items()}, layout)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_tiles(folder: Path, n: int, *, seed: int, n_sources: int, broken: float = 0.0, **more: Any) -> dict[str, str]:
    """Write `n` tiles of all three nside that do not overlap, in every layout, some of them broken.

    What is returned has, by file name, the key of `BREAKAGES`, or "" if the tile is good.

    Parameters
    ----------
    folder
        Where to, made if need be.
    n, n_sources, seed
        How many tiles, sources of a tile, and seed of everything random.
    broken
        Share of tiles that are broken after writing, in all ways of `BREAKAGES` in turn.
    more
        Other arguments of `write_tile`, which take the place of those mixed here.
    """
    rng = np.random.default_rng([seed, n])
    folder.mkdir(parents=True, exist_ok=True)
    bad = dict(zip(rng.permutation(n)[: round(broken * n)].tolist(), itertools.cycle(BREAKAGES), strict=False))
    written = {}
    for number, (nside, pixel) in zip(range(n), _places(rng), strict=False):
        options: dict[str, Any] = {
            "layout": ("contiguous", "chunked+gzip")[number % 2], "gzip_series": number % 4 == 3,
            "catindexid": ("rows", "shuffled")[number // 2 % 2], "filters": ("S2", "padded", "str")[number // 3 % 3],
            "with_variability": number % 5 > 0, "with_z_counts": number % 7 > 0, "alternative_names": number % 3 == 2,
        }  # fmt: skip
        path = folder / tile_name(nside, pixel)
        write_tile(path, nside=nside, pixel=pixel, n_sources=n_sources, seed=seed, **(options | more))
        if kind := bad.get(number, ""):
            BREAKAGES[kind](path)
        written[path.name] = kind
    if len(written) < n:
        raise ValueError(f"the survey has no room for {n} tiles, only for {len(written)}")
    return written


def _places(rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Tiles in the survey's part of the Galaxy, each in a pixel of nside 256 of its own."""
    lon, lat = np.meshgrid(np.arange(-65.5, 10.9, 0.15), np.arange(-10.4, 5.2, 0.15))
    ra, dec = erfa.g2icrs(np.radians(lon.ravel()), np.radians(lat.ravel()))
    spare = rng.permutation(np.unique(hpgeom.angle_to_pixel(256, np.degrees(ra), np.degrees(dec))))
    for nside in itertools.cycle(RANGES):
        within = (nside // 256) ** 2
        fine = hpgeom.nest_to_ring(nside, spare * within + rng.integers(0, within, len(spare)))
        fits = np.nonzero((fine >= RANGES[nside][0]) & (fine <= RANGES[nside][1]))[0]
        if not len(fits):
            return
        yield nside, int(fine[fits[0]])
        spare = np.delete(spare, fits[0])


def _pawprints(rng: np.random.Generator, n: int, ids: Ids) -> Columns:
    visits = -(-n // 2)
    year = rng.choice(10, visits, p=_OF_YEARS)
    # Seasons are 170 nights, and a night in Chile is from about 0 to 10 h UT.
    time = 55_260 + (365.25 * year).astype(int) + rng.integers(0, 170, visits) + rng.uniform(0, 0.42, visits)
    band = rng.choice(5, visits, p=(0.92, 0.02, 0.02, 0.02, 0.02))
    band[:4] = [1, 2, 3, 4][:visits]  # no band is missing, however few pawprints there are
    mjd = np.round((time[:, None] + [0, 0.00042]).ravel()[:n], 8)
    band, field = np.repeat(band, 2)[:n], np.repeat(rng.integers(0, 3, visits), 2)[:n]
    order = np.lexsort((mjd, field))
    mjd, band, field = mjd[order], band[order], field[order]
    day = (np.datetime64("1858-11-17") + mjd.astype(int)).astype(str).tolist()
    files = [f"v{date.replace('-', '')}_{int(t % 1 * 86400):05d}_st" for date, t in zip(day, mjd.tolist(), strict=True)]
    seeing = 0.45 + rng.gamma(3.0, 0.11, n)
    return {
        "catindexid": (np.arange(n) if ids == "rows" else 10_000 + rng.permutation(n)).astype("i4"),
        "filename": np.array(files, "S20"), "filter": band.astype("i1"),
        "tile": np.array([b"b333", b"b334", b"b347"])[field], "tileloc": (1 + rng.integers(0, 96, n)).astype("i4"),
        "mjdobs": mjd, "seeing": seeing.astype("f4"), "exptime": _EXPTIME[band].astype("f4"),
        "skylevel": (_SKY[band] * rng.lognormal(0, 0.15, n)).astype("f4"),
        "ellipticity": (0.05 + rng.gamma(1.5, 0.03, n)).astype("f4"),
    }  # fmt: skip


def _filters(band: Array, kind: Filters) -> Array:
    if kind == "padded":  # NumPy fills with NUL what is left of the four bytes
        return np.array([BANDS[b] + " " * (1 + row % 2) for row, b in enumerate(band.tolist())], "S4")
    return np.array(BANDS, "S2" if kind == "S2" else h5py.string_dtype())[band]


def _sources(
    rng: np.random.Generator, nside: int, pixel: int, n: int, epochs: tuple[int, int], few: float
) -> tuple[Columns, Columns]:
    """Columns of the list of sources, and what their light curves are made from."""
    bits = 2 * (29 - int(np.log2(nside)))
    within = np.sort(rng.integers(0, 1 << bits, n))
    spot = (int(hpgeom.ring_to_nest(nside, pixel)) << bits) + within
    ra, dec = hpgeom.pixel_to_angle(2**29, spot)
    lon, lat = np.degrees(erfa.icrs2g(np.radians(ra), np.radians(dec)))
    ks = 11 + 7 * np.sqrt(rng.random(n))
    mags = ks[:, None] + _COLOUR * rng.lognormal(0, 0.2, (n, 1))
    limit = np.full(n, -1)
    if n_few := min(n, max(4, round(few * n))) if few else 0:
        limit[rng.permutation(n)[:n_few]] = np.append([20, 21, 0, 1], rng.integers(0, 41, n_few))[:n_few]
    stars = {
        "mags": mags, "limit": limit, "epochs": rng.integers(epochs[0], epochs[1] + 1, n),
        "cell": within >> (bits - 2 * _LEVELS), "period": 0.2 * 2500 ** rng.random(n),
        "swing": np.where(rng.random(n) < 0.03, rng.uniform(0.1, 0.8, n), 0.0), "phase": rng.random(n),
        "crowded": rng.random(n) < 0.1, "xy": rng.uniform(1, 2048, (n, 2)),
    }  # fmt: skip
    error = 0.3 + 0.05 * 10 ** (0.3 * (ks - 11))
    columns: Columns = {
        "sourceid": hpgeom.angle_to_pixel(1024, ra, dec, nest=False) * 10**6 + np.cumsum(rng.integers(1, 3, n)),
        "ra": ra, "dec": dec, "l": lon % 360, "b": lat, "ra_error": error, "dec_error": error,
        "parallax": rng.normal(0.1, error), "pmra": rng.normal(-2.5, 3.0, n), "pmdec": rng.normal(-4.5, 3.0, n),
        "parallax_error": error, "pmra_error": 0.5 * error, "pmdec_error": 0.5 * error,
        "chisq": rng.gamma(50.0, 10.0, n), "uwe": rng.lognormal(-0.1, 0.15, n),
        "astfit_params": np.where(rng.random(n) < 0.97, 5, 2), "duplicate": rng.random(n) < 0.01,
    }  # fmt: skip
    kinds = dict.fromkeys(columns, "f4") | dict.fromkeys(("ra", "dec", "l", "b"), "f8")
    kinds |= {"sourceid": "i8", "astfit_params": "i4", "duplicate": "i4"}
    return {name: v.astype(kinds[name]) for name, v in columns.items()}, stars


def _curves(
    rng: np.random.Generator, stars: Columns, pool: Array, catalogue: Columns
) -> tuple[Columns, dict[str, Array], dict[str, Array]]:
    """Flat columns of a slice of sources, their lengths, and source, band and pawprint of what is in them."""
    m, deep = (rows := pool[stars["cell"]]).shape
    band = catalogue["filter"][rows]
    draw = rng.random((m, deep))
    covered = draw <= np.take_along_axis(np.sort(draw, axis=1), stars["epochs"][:, None] - 1, axis=1)
    few = stars["limit"] >= 0
    covered[few] = True
    magnitude = np.take_along_axis(stars["mags"], band.astype(np.intp), axis=1)
    faint = magnitude - _LIMIT[band] + 1.2 * (catalogue["seeing"][rows] - 0.78)
    detected = covered & (rng.random((m, deep)) < 0.992 / (1 + np.exp(faint / 0.25)))
    ks = band[few] == 0
    detected[few] = np.where(ks, np.cumsum(ks, axis=1) <= stars["limit"][few][:, None], detected[few])
    covered[few] = detected[few] | (rng.random((int(few.sum()), deep)) < 0.03)
    src, slot = np.nonzero(detected)
    paw, b, clean, n = rows[src, slot], band[src, slot], magnitude[src, slot], len(src)
    error = np.hypot(0.012, 0.03 * 10 ** (0.4 * (clean - _LIMIT[b] + 1.6))) * rng.lognormal(0, 0.2, n)
    error *= catalogue["seeing"][paw] / 0.78
    wave = np.sin(2 * np.pi * (catalogue["mjdobs"][paw] / stars["period"][src] + stars["phase"][src]))
    mag = clean + stars["swing"][src] * wave + error * rng.standard_normal(n)
    # Magnitudes and their errors have all the digits of four bytes. What DoPhot prints has few: x, y and sky 0.01,
    # diff_fit_ap 0.001, chi 0.01 (which the published light curves confirm).
    astrometric = 2 * rng.standard_exponential(n)
    astrometric[rng.random(n) < 0.001] = np.nan  # detections that took no part in the astrometric fit
    x, y = np.round(stars["xy"][src] + rng.normal(0, 3, (n, 2)), 2).T
    flat = {
        "catindexid": catalogue["catindexid"][paw], "catindexidcovered": catalogue["catindexid"][rows[covered]],
        "hfad_mag": mag, "hfad_emag": error, "ast_res_chisq": astrometric,
        "chi": np.round(np.where(rng.random(n) < 0.01, 6.0, 1.0) * rng.lognormal(0, 0.25, n), 2),
        "ambiguous_match": stars["crowded"][src] & (rng.random(n) < 0.05),
        "cnf_ctr": np.round(rng.uniform(80, 110, n)), "diff_fit_ap": np.round(rng.normal(0, 0.02, n), 3),
        "ext": np.round(rng.normal(0, 30, n), 2), "objtype": np.where(rng.random(n) < 0.9, 1, 7),
        "sky": np.round(catalogue["skylevel"][paw] * rng.normal(1, 0.01, n), 2), "x": x, "y": y,
    }  # fmt: skip
    curves = {name: flat[name].astype(kind, copy=False) for name, kind in SERIES.items()}
    of, where = np.nonzero(covered)
    seen = np.bincount(5 * of + band[of, where], minlength=5 * m)
    counts = {"detected": detected.sum(axis=1), "covered": covered.sum(axis=1), "seen": seen}
    return curves, counts, {"source": src, "band": b, "row": paw}


def _statistics(curves: Columns, seen: Array, paws: Columns, mjd: Array) -> tuple[Columns, Columns]:
    """Columns of the list of sources that sum up each band, and those of ``variabilityIndices`` for all sources."""
    group, size = 5 * paws["source"] + paws["band"], len(seen)
    order = np.lexsort((mjd[paws["row"]], group))
    group, mag, weight = group[order], curves["hfad_mag"][order].astype("f8"), curves["hfad_emag"][order] ** -2.0
    good, n, pair = curves["chi"][order] < 5, np.bincount(group, minlength=size), np.diff(group) == 0

    def total(values: Array, of: Array = group) -> Array:
        return np.bincount(of, values, minlength=size)

    with np.errstate(divide="ignore", invalid="ignore"):
        mean, ivw = total(mag) / n, total(weight * mag) / total(weight)
        off, (median, *percentiles) = mag - mean[group], _percentiles(mag, group, n, 50, *PERCENTILES)
        (mad,) = _percentiles(np.abs(mag - median[group]), group, n, 50)
        deviation = np.sqrt(total(off**2) / n)
        scaled = np.sqrt(n / (n - 1))[group] * (mag - ivw[group]) * np.sqrt(weight)
        product, of = (scaled[1:] * scaled[:-1])[pair], group[1:][pair]
        columns = {
            "n_detections": n, "n_observations": seen, "med_mag": median, "mean_mag": mean, "ivw_mean_mag": ivw,
            "chilt5_ivw_mean_mag": total(weight * good * mag) / total(weight * good), "std_mag": deviation,
            "mad_mag": mad, "ivw_err_mag": total(weight) ** -0.5, "chilt5_ivw_err_mag": total(weight * good) ** -0.5,
            "n_ambiguous": total(curves["ambiguous_match"][order]), "n_chilt5": total(good),
        }  # fmt: skip
        indices = {  # stetson_i and stetson_j are sums over successive pairs: users divide by their number
            "stdev": deviation, "mad": mad, "kurtosis": total(off**4) / n / deviation**4 - 3,
            "skew": total(off**3) / n / deviation**3, "n_epochs": n, "stetson_i": total(product, of),
            "eta": total(np.diff(mag)[pair] ** 2, of) / (n - 1) / deviation**2,
            "stetson_j": total(np.sign(product) * np.sqrt(np.abs(product)), of),
            "stetson_k": total(np.abs(scaled)) / np.sqrt(n * total(scaled**2)),
            **{f"p{percent}": v for percent, v in zip(PERCENTILES, percentiles, strict=True)},
        }  # fmt: skip

    def named(band: int, columns: Columns) -> Columns:
        clean = {name: np.where(np.isinf(v), np.nan, v)[band::5] for name, v in columns.items()}
        return {f"{BANDS[band].lower()}_{k}": v.astype("i4" if k.startswith("n_") else "f4") for k, v in clean.items()}

    others = {name: columns[name] for name in columns if name not in {"n_ambiguous", "n_chilt5"}}
    return named(0, columns) | {k: v for b in range(1, 5) for k, v in named(b, others).items()}, named(0, indices)


def _percentiles(values: Array, group: Array, counts: Array, *percents: int) -> list[Array]:
    """Percentiles of each group's values, which are in 0 to 64; NaN of groups without any."""
    ordered = np.append(np.sort(64.0 * group + values) - np.repeat(64.0 * np.arange(len(counts)), counts), np.nan)
    first, last = np.cumsum(counts) - counts, np.maximum(counts - 1, 0)
    found = []
    for percent in percents:
        low = (percent / 100 * last).astype(int)
        below, above = ordered[first + low], ordered[first + np.minimum(low + 1, last)]
        found.append(np.where(counts > 0, below + (percent / 100 * last - low) * (above - below), np.nan))
    return found


def _ragged(flat: Array, counts: Array, kind: str) -> Array:
    rows, ends = np.empty(len(counts), h5py.vlen_dtype(np.dtype(kind))), np.cumsum(counts).tolist()
    for row, (start, end) in enumerate(itertools.pairwise([0, *ends])):
        rows[row] = flat[start:end]  # assigning a list at once fails if all have the same length
    return rows


def _storage(layout: Layout, n: int) -> dict[str, Any]:
    return {} if layout == "contiguous" or not n else {"chunks": (min(n, 4096),), "compression": "gzip"}


def _put(file: h5py.File, group: str, columns: Columns, layout: Layout) -> None:
    for name, values in columns.items():
        kind = h5py.string_dtype() if values.dtype.kind == "O" else values.dtype  # NumPy forgets that it is text
        file.create_dataset(f"{group}/{name}", data=values, dtype=kind, **_storage(layout, len(values)))


def _break(path: Path, kind: str) -> None:
    match kind:
        case "truncated" | "empty":
            os.truncate(path, path.stat().st_size // 2 if kind == "truncated" else 0)
        case "not_hdf5":
            path.write_bytes(b"<html><title>503 Service Unavailable</title></html>\n" * 100)
        case "damaged_heap":
            with path.open("r+b") as raw, mmap.mmap(raw.fileno(), 0) as data:
                # Elements of ragged arrays are in collections with this signature; those of timeSeries come last.
                data[(at := data.rfind(b"GCOL")) : at + 4] = b"\0\0\0\0"
        case _:
            with h5py.File(path, "r+") as file:
                _change(file, kind, file["timeSeries/catindexid"][:])


def _change(file: h5py.File, kind: str, ids: Array) -> None:
    """Change a value of a tile, at the source with the most detections, which no cut leaves out."""
    catalogue, sources, series = file["catIndex"], file["sourceList"], file["timeSeries"]
    row = max(range(len(ids)), key=lambda n: len(ids[n]))
    last, covered = ids[row][-1], series["catindexidcovered"][row]
    pawprint = int(np.nonzero(catalogue["catindexid"][:] == last)[0][0])
    match kind:
        case "no_time_series" | "no_hfad_mag":
            del file["timeSeries" if kind == "no_time_series" else "timeSeries/hfad_mag"]
        case "wrong_dtype" | "wrong_rank":
            del series["hfad_mag"]
            series["hfad_mag"] = np.full((len(ids), 3)[: 1 if kind == "wrong_dtype" else 2], 14.0, "f4")
        case "unequal_lengths":
            series["hfad_mag"][row] = series["hfad_mag"][row][:-1]
        case "unknown_catindexid":
            unknown = catalogue["catindexid"][:].max() + 1
            series["catindexid"][row] = np.where(ids[row] == last, unknown, ids[row])
            series["catindexidcovered"][row] = np.where(covered == last, unknown, covered)
        case "not_covered":
            series["catindexidcovered"][row] = covered[covered != last]
        case "foreign_sourceid":
            sources["sourceid"][row] = (12 * 1024**2 - 1 - sources["sourceid"][row] // 10**6) * 10**6 + 1
        case "duplicate_sourceid":
            for name in ("sourceid", "ra", "dec"):  # in the same place, so that this is all that is wrong
                sources[name][row - 1] = sources[name][row]
        case "damaged_chunk":
            values = sources["ra"][:]
            del sources["ra"]
            chunks = sources.create_dataset("ra", data=values, **_storage("chunked+gzip", len(values)))
            chunks.id.write_direct_chunk((0,), b"\xa5" * 100)
        case "unknown_filter":
            catalogue["filter"][pawprint] = b"Nb"
        case "nonfinite_position":
            sources["ra"][row] = np.nan
        case "nonfinite_mjdobs":
            catalogue["mjdobs"][pawprint] = np.inf
        case "row_count":
            for name in list(series):
                kind_of, rows = series[name].dtype, series[name][:-1]
                del series[name]
                series.create_dataset(name, (len(rows),), kind_of).write_direct(rows)


BREAKAGES: Mapping[str, Callable[[Path], None]] = {
    kind: functools.partial(_break, kind=kind) for kind in (
        "truncated", "empty", "not_hdf5", "damaged_heap", "damaged_chunk", "no_time_series", "no_hfad_mag",
        "wrong_dtype", "wrong_rank", "unequal_lengths", "unknown_catindexid", "not_covered", "foreign_sourceid",
        "duplicate_sourceid", "unknown_filter", "nonfinite_position", "nonfinite_mjdobs", "row_count",
    )
}  # fmt: skip
"""Ways of breaking a good tile, which has more than one source, after it is written."""
