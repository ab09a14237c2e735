"""Light curves of TESS, Kepler and K2 in FITS, read robustly, and as rows of the lake.

Times are of the middle of a cadence, BTJD or BKJD, which is TDB at the barycentre already: MJD(TDB) is a sum away.
Cadences without a time are left out, as lightkurve does, and counted; all others are kept, good or not. Whatever a file
lacks is missing, never 0; whatever it contradicts itself in is a GranuleRejected that says what.

A cadence's number and the position's errors have no column in the lake and stay behind; the first and last number are
in the exposure's details.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.commit.sound import named
from lake.errors import GranuleRejected
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from lake.science.times import DAY_S
from lake.text import counted
from tasks.services.fits import Floats, Hdu, Header, Table, check_sums, hdus, naming, unpacked
from tasks.sources.tess_kepler import mast_products as facts
from tasks.sources.tess_kepler.mast_products import PIPELINES, Curve, Flux, Pipeline, Product

if TYPE_CHECKING:
    from upath import UPath

# How files spell electrons per second: the real files, and lightkurve's read_generic_lightcurve.
_ELECTRONS = {"e-/s", "electron/s", "electron / s", "electrons/s", "electron.s**-1"}
_ZERO = re.compile(r"T?BJD *- *(\d+(?:\.\d*)?)")

# Keywords that go into an exposure's details as they are, by the names they have there: of both headers of a file.
_DETAILS = {
    "camera": "CAMERA",
    "ccd": "CCD",
    "channel": "CHANNEL",
    "module": "MODULE",
    "output": "OUTPUT",
    "crowdsap": "CROWDSAP",
    "flfrcsap": "FLFRCSAP",
    "frames": "NUM_FRM",
    "frame_exposure_s": "INT_TIME",
    "deadc": "DEADC",
    "tess_mag": "TESSMAG",
    "kepler_mag": "KEPMAG",
    "ticver": "TICVER",
    "data_rel": "DATA_REL",
    "procver": "PROCVER",
    "version": "VERSION",
    "date": "DATE",
    "date_obs": "DATE-OBS",
    "date_end": "DATE-END",
}


def read_product(data: bytes | Path | UPath, name: str) -> Product:
    """Read a light curve of TESS, Kepler or K2, packed by gzip or not.

    Parameters
    ----------
    data
        The file, or where it is.
    name
        The file's name: for messages, and if it is a name that MAST gives, it must be true.

    Raises
    ------
    GranuleRejected
        If it is not whole, no light curve that is known, not what its name says, or its times are not barycentric TDB.
    OSError
        If it cannot be read.
    """
    with naming(name):
        body = unpacked(data)
        parts = list(hdus(body))
        for number, hdu in enumerate(parts):
            if len(hdu.data) < hdu.size:
                raise GranuleRejected(
                    f"it is cut short: {len(hdu.data)} of {counted(hdu.size, 'byte')} of HDU {number}"
                )
        pipeline = _pipeline(parts)
        if pipeline.is_own:
            check_sums(body, parts)
        return _product(parts, pipeline, name)


def tables_of(products: Sequence[Product], archive: str, release: str) -> dict[str, pa.Table]:
    """Convert light curves to tables of the lake, except the granule.

    Parameters
    ----------
    products
        Light curves, of one source or several; none is a valid answer, too. Where files differ in the position of a
        source, that of the latest observation is taken.
    archive, release
        Columns of these names.

    Returns
    -------
    dict
        Tables sources, lightcurves and exposures.
    """
    keys = {"archive": archive, "release": release}
    latest = sorted(products, key=lambda product: product.mjd_start or 0.0)
    places = {product.source_id: (product.ra, product.dec) for product in latest}
    ra, dec = (np.array([place[axis] for place in places.values()], np.float64) for axis in (0, 1))
    pixels = dict(zip(places, np.atleast_1d(hpx29(ra, dec)).tolist(), strict=True)) if places else {}
    sources = {
        **{key: pa.array([value] * len(places), pa.string()) for key, value in keys.items()},
        "source_id": pa.array(list(places), pa.string()),
        "hpx29": pa.array(pixels.values(), pa.int64()),
        "ra": ra,
        "dec": dec,
    }
    curves = [
        _rows(product, flux, keys, pixels[product.source_id])
        for product in products
        for flux in product.pipeline.fluxes
        if flux.band in product.curves
    ]
    nothing = TABLES["lightcurves"].empty().drop_columns("granule")
    return {
        "sources": pa.table(sources),
        "lightcurves": pa.concat_tables(curves).unify_dictionaries() if curves else nothing,
        "exposures": _exposures(products, keys),
    }


def remark_of(products: Sequence[Product]) -> str | None:
    """Summarise the remarks on light curves in one line for the ledger; None without any."""
    ids_by_remark: dict[str, list[str]] = {}
    for product in products:
        for remark in product.remarks:
            ids_by_remark.setdefault(remark, []).append(product.exposure_id)
    undated = sum(product.undated for product in products)
    whose = named(product.exposure_id for product in products if product.undated)
    parts = [f"{remark} ({', '.join(ids)})" for remark, ids in ids_by_remark.items()]
    return (
        "; ".join([f"{counted(undated, 'cadence')} without TIME left out{whose}", *parts] if undated else parts) or None
    )


def _pipeline(parts: list[Hdu]) -> Pipeline:
    """Identify the pipeline of a file, by the rules of lightkurve's detect_filetype, without its guesses from names."""
    primary = parts[0].header
    tables = [hdu.header for hdu in parts if hdu.header.text("XTENSION") == "BINTABLE"]
    telescop = primary.text("TELESCOP") or (tables[0].text("TELESCOP") if tables else "")
    creator, cadence_d = primary.text("CREATOR"), tables[0].number("TIMEDEL") if tables else None
    names = {str(value).strip().upper() for one in tables for key, value in one.values.items() if key[:5] == "TTYPE"}
    if "MIT/QLP" in primary.text("ORIGIN"):
        found = facts.QLP
    elif any(one.text("EXTNAME") == "BESTAPER" for one in tables) and "ARCLENGTH" in names:
        found = facts.K2SFF
    elif any("EVEREST" in note for note in primary.notes):
        found = facts.EVEREST
    elif telescop not in ("TESS", "KEPLER"):
        raise GranuleRejected(f"TELESCOP is {telescop or 'absent'}, not TESS or Kepler")
    elif telescop == "TESS" and "LIGHTCURVEEXPORTER" in creator:
        is_ffi = cadence_d is not None and cadence_d * DAY_S > facts.FFI_CADENCE_S
        found = facts.TESS_SPOC if is_ffi else facts.SPOC
    elif telescop == "KEPLER" and "FLUXEXPORTER" in creator:
        found = facts.K2_SOC if primary.text("MISSION") == "K2" else facts.KEPLER_SOC
    else:
        raise GranuleRejected(f"CREATOR is {creator or 'absent'}: no light curve of {', '.join(PIPELINES)}")
    if telescop not in ("", found.mission.telescop):
        raise GranuleRejected(f"TELESCOP is {telescop}, not {found.mission.telescop}")
    return found


def _table(parts: list[Hdu], pipeline: Pipeline) -> Table:
    """Return the table of the light curve."""
    wanted = [flux.column for flux in pipeline.fluxes]
    needed = {pipeline.time} | ({pipeline.quality} if pipeline.quality else set())
    if pipeline.is_own:
        needed |= {pipeline.cadence, *wanted, *(flux.error for flux in pipeline.fluxes if flux.error)}
    seen = []
    for header, data, size, *_ in parts:
        if header.text("XTENSION") != "BINTABLE":
            continue
        extname = header.text("EXTNAME")
        seen.append(extname or "a table without a name")
        names = [header.text(f"TTYPE{n + 1}") for n in range(int(header.values.get("TFIELDS", 0)))]
        if extname == pipeline.extname or (pipeline.extname is None and pipeline.time in names):
            table = Table(header, names, data, size)
            missing = sorted(name for name in needed if table.widths.get(name) != 1)
            if missing or not set(wanted) & set(names):
                raise GranuleRejected(f"its table has no column of numbers {', '.join(missing or wanted)}")
            return table
    raise GranuleRejected(
        f"it has no table {pipeline.extname or pipeline.time}, but {', '.join(seen) or 'none at all'}"
    )


def _product(parts: list[Hdu], pipeline: Pipeline, name: str) -> Product:
    """Read the light curve of a file."""
    table = _table(parts, pipeline)
    header, primary, mission = table.header, parts[0].header, pipeline.mission
    target, sequence = (_whole(primary, header, key) for key in (mission.id_keyword, mission.sequence.upper()))
    if (of_name := facts.named(name)) is not None:
        sequence = of_name.sequence if sequence is None else sequence
        # Campaigns in two parts have three digits in names: only a sector is the same in both.
        same = (of_name.pipeline, of_name.target, of_name.sequence) == (pipeline, target, sequence)
        if not (same if mission is facts.TESS else (of_name.pipeline, of_name.target) == (pipeline, target)):
            raise GranuleRejected(
                f"it is of {mission.catalogue} {target}, {mission.sequence} {sequence}, {pipeline.name}"
            )
    if target is None or sequence is None:
        raise GranuleRejected(f"it has no {mission.id_keyword if target is None else mission.sequence.upper()}")
    place = [_number(primary, header, key) for key in ("RA_OBJ", "DEC_OBJ")]
    ra, dec = (math.nan if one is None else one for one in place)
    if not (0 <= ra <= 360 and -90 <= dec <= 90):
        raise GranuleRejected(f"RA_OBJ, DEC_OBJ are {place[0]}, {place[1]}")
    remarks = _check_clock(table, primary, pipeline)
    time = table.column(pipeline.time)
    low, high = mission.first_mjd - mission.offset_mjd, mission.last_mjd - mission.offset_mjd
    # A few times that cannot be are no times; if none can be, it is the clock that is wrong.
    known, possible = np.isfinite(time), (time >= low) & (time <= high)
    order = np.flatnonzero(possible if possible.any() else known)
    if (np.diff(time[order]) <= 0).any():
        order = order[np.argsort(time[order], kind="stable")]
        if (again := np.flatnonzero(np.diff(time[order]) == 0)).size:
            raise GranuleRejected(f"the cadence at {pipeline.time} {time[order[again[0]]]} comes twice")
    dated = time[order]
    if dated.size and not low <= dated[0] <= dated[-1] <= high:
        raise GranuleRejected(f"{pipeline.time} is {dated[0]} to {dated[-1]}: {mission.name} did not observe then")

    def column(key: str | None) -> Floats:
        return table.column(key)[order] if key and table.widths.get(key) == 1 else np.full(len(order), np.nan)

    curves: dict[str, Curve] = {}
    for flux in pipeline.fluxes:
        if table.widths.get(flux.column) == 1:
            _check_unit(table, flux)
            values = column(flux.column)
            if infinite := int(np.isinf(values).sum()):
                remarks.append(f"{infinite} infinite values of {flux.column} taken for missing")
            unknown = ~np.isfinite(values)
            values[unknown] = np.nan
            curves[flux.band] = Curve(values, np.where(unknown, np.nan, column(flux.error)))
    quality, cadence = (_flags(column(name)) for name in (pipeline.quality, pipeline.cadence))
    cadence_d, exposure_d = header.number("TIMEDEL"), header.number("EXPOSURE")
    if cadence_d is not None and not 0 < cadence_d < 1:
        raise GranuleRejected(f"TIMEDEL is {cadence_d}")
    ends = [_finite(header.number(key)) for key in ("TSTART", "TSTOP")]
    if dated.size:
        ends = [float(edge) if end is None else end for end, edge in zip(ends, dated[[0, -1]], strict=True)]
    start, stop = (None if end is None else end + mission.offset_mjd for end in ends)
    said = {key: _said(primary, header, keyword) for key, keyword in _DETAILS.items()}
    numbers = cadence[~np.isnan(cadence)]
    details = {
        "file": name,
        "mission": mission.name,
        "pipeline": pipeline.name,
        mission.sequence: sequence,
        **{key: value for key, value in said.items() if value is not None},
        "cadences": [int(numbers.min()), int(numbers.max())] if numbers.size else None,
        "undated": len(time) - len(order),
        "aperture": _aperture(parts),
    }
    return Product(
        name,
        pipeline,
        target,
        sequence,
        ra,
        dec,
        dated,
        cadence,
        quality,
        _is_good(quality, pipeline),
        curves,
        column(pipeline.background),
        column(pipeline.x),
        column(pipeline.y),
        None if cadence_d is None else cadence_d * DAY_S,
        start,
        stop,
        None if exposure_d is None else exposure_d * DAY_S,
        len(time) - len(order),
        details,
        tuple(remarks),
    )


def _is_good(quality: Floats, pipeline: Pipeline) -> NDArray[np.bool_]:
    if pipeline.quality is None:
        return np.ones(len(quality), bool)
    known = ~np.isnan(quality)
    flags = np.where(known, quality, 0).astype(np.int64)
    return np.asarray(known & (flags & pipeline.mission.mask == 0))


def _check_clock(table: Table, primary: Header, pipeline: Pipeline) -> list[str]:
    """Check that times are the mission's, TDB at the barycentre, or raise GranuleRejected; return what was assumed."""
    header, mission, assumed = table.header, pipeline.mission, []
    for keyword, wanted in (("TIMEREF", "SOLARSYSTEM"), ("TIMESYS", "TDB"), ("TIMEUNIT", "D")):
        text = header.text(keyword) or primary.text(keyword)
        if text != wanted and (text or pipeline.is_own):
            raise GranuleRejected(f"{keyword} is {text or 'absent'}, not {wanted}")
        assumed += [] if text else [f"{keyword} is absent, {wanted} assumed"]
    unit = header.text(f"TUNIT{table.names.index(pipeline.time) + 1}")
    found = _ZERO.match(unit)
    if not found and unit not in ("", "D", "DAY", "DAYS"):
        raise GranuleRejected(f"the unit of {pipeline.time} is {unit}, not d")
    stated = {
        "BJDREFI, BJDREFF": header.number("BJDREF"),
        f"the unit of {pipeline.time}": float(found[1]) if found else None,
    }
    if stated["BJDREFI, BJDREFF"] is None and (pipeline.is_own or not found):
        raise GranuleRejected("BJDREFI is absent")
    for what, zero in stated.items():
        if zero is not None and zero != mission.bjdref:
            raise GranuleRejected(f"times count from {zero} in {what}, not from {mission.bjdref}")
    pixr = header.number("TIMEPIXR")
    if pixr not in (None, 0.5):
        raise GranuleRejected(f"TIMEPIXR is {pixr}: times are not of the middle of a cadence")
    return assumed


def _check_unit(table: Table, flux: Flux) -> None:
    for column in (flux.column, flux.error):
        if column in table.names:
            unit = str(table.header.values.get(f"TUNIT{table.names.index(column) + 1}") or "").strip()
            is_electrons = unit.lower() in _ELECTRONS
            if is_electrons != (flux.unit == facts.ELECTRONS):
                raise GranuleRejected(f"the unit of {column} is {unit!r}, not {flux.unit!r}")


def _flags(values: Floats) -> Floats:
    """Convert values to whole numbers, NaN for others."""
    return np.where(np.abs(values) < 2**53, values, np.nan)


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _number(first: Header, second: Header, keyword: str) -> float | None:
    """Return a number of the first header that has it."""
    value = first.number(keyword)
    return _finite(second.number(keyword) if value is None else value)


def _whole(first: Header, second: Header, keyword: str) -> int | None:
    value = _number(first, second, keyword)
    if value is not None and (value < 0 or value % 1):
        raise GranuleRejected(f"{keyword} is {value}")
    return None if value is None else int(value)


def _said(primary: Header, header: Header, keyword: str) -> Any:
    """Return a keyword of the table, or else of the file; None if it is missing or no number."""
    value = header.values.get(keyword)
    value = primary.values.get(keyword) if value is None else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _aperture(parts: list[Hdu]) -> dict[str, Any] | None:
    """Return the pixels of the aperture, row by row, as the flag words the file has; None if there are none."""
    for header, data, *_ in parts:
        if header.text("EXTNAME") == "APERTURE" and header.values.get("BITPIX") == 32 and data:
            shape = [int(header.values[f"NAXIS{axis}"]) for axis in (2, 1)]
            corner = [header.number(keyword) for keyword in ("CRVAL1P", "CRVAL2P")]
            pixels = np.frombuffer(data, ">i4").reshape(shape).tolist()
            return {"pixels": pixels, "corner": corner, "n": header.number("NPIXSAP")}
    return None


def _rows(product: Product, flux: Flux, keys: Mapping[str, str], pixel: int) -> pa.Table:
    """Make the rows of table lightcurves of one band."""
    n, curve = len(product.time), product.curves[flux.band]
    detected = ~np.isnan(curve.flux)
    numbers = {
        "flux": curve.flux,
        "flux_err": curve.error,
        "cadence_s": np.full(n, np.nan if product.cadence_s is None else product.cadence_s),
        "background": product.background,
        "x": product.x,
        "y": product.y,
    }
    same = {**keys, "exposure_id": product.exposure_id, "unit": flux.unit}
    # What the table is sorted by is plain: dictionaries cannot be sorted.
    plain = {"source_id": product.source_id, "band": flux.band}
    return pa.table(
        {
            **{name: _same(value, n) for name, value in same.items()},
            **{name: _same(value, n).cast(pa.string()) for name, value in plain.items()},
            "hpx29": np.full(n, pixel, np.int64),
            "mjd": product.mjd,
            "bmjd_tdb": product.mjd,
            "detected": detected,
            "good": detected & product.is_good,
            "quality": pa.array(product.quality, from_pandas=True).cast(pa.int64()),
            **{name: pa.array(values.astype(np.float32), from_pandas=True) for name, values in numbers.items()},
        }
    )


def _same(value: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value]))


def _exposures(products: Sequence[Product], keys: Mapping[str, str]) -> pa.Table:
    """Make table exposures: a row per file, without band, since both kinds of flux belong to it."""
    texts = {
        **{name: [value] * len(products) for name, value in keys.items()},
        "exposure_id": [product.exposure_id for product in products],
        "details": [json.dumps(product.details) for product in products],
    }
    numbers = ("mjd_start", "mjd_stop", "exposure_s")
    return pa.table(
        {name: pa.array(values, pa.string()) for name, values in texts.items()}
        | {name: pa.array([getattr(product, name) for product in products], pa.float64()) for name in numbers}
    )
