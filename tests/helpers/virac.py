"""VIRAC tiles for tests: tiny ones, changed ones, and what they must give, found one source at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import hpgeom
import numpy as np
import pyarrow as pa

from deployments.sandbox import virac as sandbox
from lake.science.times import to_bmjd_tdb
from lake.store.storage import decoded
from tasks.sources.virac.tile import open_tile
from tasks.sources.virac.tiles import Extraction, Selection

PIXELS = {1024: 9_000_000, 512: 2_400_001, 256: 600_003}
TINY: dict[str, Any] = {"n_sources": 16, "n_pawprints": 70, "epochs": (34, 44), "seed": 5}

# AB less Vega of VISTA, Gonzalez-Fernandez et al. 2018, MNRAS 474, 5459.
AB_MINUS_VEGA = {"Z": 0.502, "Y": 0.600, "J": 0.916, "H": 1.366, "Ks": 1.827}

FLOATS = ("chi", "ast_res_chisq", "x", "y", "sky", "cnf_ctr", "diff_fit_ap", "ext")
OPTIONAL = {
    "timeSeries": ("cnf_ctr", "diff_fit_ap", "ext", "objtype", "sky", "x", "y"),
    "catIndex": ("filename", "tile", "tileloc", "seeing", "exptime", "skylevel", "ellipticity"),
}
SOURCES = {
    "ra": "ra",
    "dec": "dec",
    "ra_error": "ra_err",
    "dec_error": "dec_err",
    "parallax": "parallax",
    "parallax_error": "parallax_err",
    "pmra": "pm_ra",
    "pmra_error": "pm_ra_err",
    "pmdec": "pm_dec",
    "pmdec_error": "pm_dec_err",
    "ref_epoch": "ref_epoch",
    "chisq": "astfit_chisq",
    "uwe": "uwe",
    "astfit_params": "astfit_params",
    "duplicate": "duplicate",
}

Row = dict[str, Any]


def tile(folder: Path, nside: int = 1024, change: Callable[[h5py.File], None] | None = None, **more: Any) -> Path:
    """Write a tiny tile, changed or not."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / sandbox.tile_name(nside, PIXELS[nside])
    sandbox.write_tile(path, nside=nside, pixel=PIXELS[nside], **(TINY | more))
    if change is not None:
        with h5py.File(path, "r+") as file:
            change(file)
    return path


def put(file: h5py.File, name: str, values: Any, **more: Any) -> None:
    """Write a column anew, in its own type or another."""
    del file[name]
    file.create_dataset(name, data=values, **more)


def put_ragged(file: h5py.File, name: str, rows: Sequence[Any], kind: str) -> None:
    """Write ragged arrays anew."""
    name = f"timeSeries/{name}"
    del file[name]
    dataset = file.create_dataset(name, (len(rows),), h5py.vlen_dtype(np.dtype(kind)))
    for number, row in enumerate(rows):
        dataset[number] = np.asarray(row, kind)


def best(file: h5py.File) -> int:
    """Number of the source with the most detections, which no cut leaves out."""
    return max(range(len(file["sourceList/ra"])), key=lambda n: len(file["timeSeries/catindexid"][n]))


def extracted(path: Path, granule: str = "g", **cut: Any) -> tuple[dict[str, pa.Table], list[pa.Table]]:
    """Extract a tile: its tables, statistics among them, and the parts of its light curves."""
    with open_tile(path) as opened:
        extraction = Extraction(opened, granule, Selection(**cut))
        tables = extraction.tables()
        parts = list(extraction.lightcurves())
        return {**tables, **extraction.statistics()}, parts


def rows_of(parts: Sequence[pa.Table]) -> list[Row]:
    """All rows of parts, in plain Python."""
    return [row for part in parts for row in decoded(part).to_pylist()]


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Rows in the order of table lightcurves, and of the pawprint where that leaves a choice."""
    return sorted(rows, key=lambda r: (*(r[k] for k in ("hpx29", "source_id", "band", "mjd")), _number(r)))


def _number(row: Row) -> int:
    return int(row["exposure_id"].split("/")[1])


def _missing(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def expected(path: Path, granule: str = "g", min_ks: int = 20, bands: Sequence[str] = sandbox.BANDS) -> Any:
    """What a tile must give, the slow way: rows of light curves, sources and exposures."""
    name = path.name.removesuffix(".hdf5")
    same = {"archive": "virac", "release": "ts_tables", "granule": granule}
    with h5py.File(path, "r") as file:
        catalogue = {key: file["catIndex"][key][:] for key in file["catIndex"]}
        listed = {key: file["sourceList"][key][:] for key in file["sourceList"]}
        series = file["timeSeries"]
        pawprints: dict[int, Row] = {}
        for place, number in enumerate(catalogue["catindexid"].tolist()):
            pawprints[number] = {key: _text(values[place]) for key, values in catalogue.items()}
        rows, sources, places = [], [], []
        for n in range(len(listed["sourceid"])):
            one = {"source_id": str(int(listed["sourceid"][n])), **same}
            one["hpx29"] = int(hpgeom.angle_to_pixel(2**29, listed["ra"][n], listed["dec"][n]))
            found = {number: k for k, number in enumerate(series["catindexid"][n].tolist())}
            n_ks = len([number for number in found if pawprints[number]["filter"] == "Ks"])
            kept = n_ks > min_ks
            about = {theirs: _missing(listed[key][n]) for key, theirs in SOURCES.items() if key in listed}
            if "duplicate" in about:
                about["duplicate"] = bool(about["duplicate"])
            sources.append({**one, **about, "left_out": None if kept else "ks_detections_le_min"})
            arrays = {key: series[key][n] for key in series} if kept else {}
            for number in arrays["catindexidcovered"].tolist() if kept else []:
                pawprint = pawprints[number]
                if pawprint["filter"] in bands:
                    row = {**one, **_row(arrays, found.get(number), pawprint["filter"])}
                    row |= {"mjd": pawprint["mjdobs"], "exposure_id": f"{name}/{number}", "unit": "mJy"}
                    places.append((row["mjd"], listed["ra"][n], listed["dec"][n]))
                    rows.append(row | ({"exposure_s": pawprint["exptime"]} if "exptime" in pawprint else {}))
    times = to_bmjd_tdb(*zip(*places, strict=True), scale="utc", frame="topocentre") if places else np.empty(0)
    rows = [{**row, "bmjd_tdb": time} for row, time in zip(rows, times.tolist(), strict=True)]
    exposures = {
        f"{name}/{number}": {
            **same,
            "exposure_id": f"{name}/{number}",
            "band": pawprint["filter"],
            "mjd_start": pawprint["mjdobs"],
            "exposure_s": pawprint.get("exptime"),
            "details": {key: pawprint[key] for key in ("filename", "tile", "tileloc") if key in pawprint} or None,
            **{
                theirs: pawprint[key]
                for key, theirs in (
                    ("seeing", "seeing_arcsec"),
                    ("skylevel", "sky_level"),
                    ("ellipticity", "ellipticity"),
                )
                if key in pawprint
            },
        }
        for number, pawprint in pawprints.items()
    }
    return in_order(rows), sources, exposures


def _text(value: Any) -> Any:
    value = value.decode() if isinstance(value, bytes) else value
    return value.strip() if isinstance(value, str) else value.item()


def _row(arrays: dict[str, Any], place: int | None, band: str) -> Row:
    here = place is not None
    row: Row = {name: _missing(arrays[name][place]) if here else None for name in FLOATS if name in arrays}
    row |= {"band": band, "detected": here, "good": False, "quality": None}
    row |= dict.fromkeys(("mag", "mag_err", "flux", "flux_err"))
    if here:
        mag, error = _missing(arrays["hfad_mag"][place]), _missing(arrays["hfad_emag"][place])
        ambiguous, chisq = bool(arrays["ambiguous_match"][place]), row["ast_res_chisq"]
        row |= {"mag": mag, "mag_err": error, "detected": mag is not None}
        row["quality"] = int(ambiguous) + (256 * int(arrays["objtype"][place]) if "objtype" in arrays else 0)
        row["good"] = not ambiguous and chisq is not None and chisq < 28.74 and mag is not None
        if mag is not None:
            row["flux"] = 3631e3 * 10 ** (-0.4 * (AB_MINUS_VEGA[band] + mag))
            if error is not None:
                row["flux_err"] = row["flux"] * error * 0.4 * math.log(10)
    return row


def assert_same_rows(rows: Sequence[Row], wanted: Sequence[Row]) -> None:
    """Compare light curves: to the bit, but for what is computed."""
    assert [_name(row) for row in rows] == [_name(row) for row in wanted]
    for row, other in zip(rows, wanted, strict=True):
        assert row.keys() == other.keys()
        for key, value in other.items():
            if key in ("flux", "flux_err") and value is not None:
                assert math.isclose(row[key], value, rel_tol=2e-7), (key, row, other)
            elif key == "bmjd_tdb":
                assert abs(row[key] - value) < 1e-9, (row, other)
            else:
                assert row[key] == value, (key, row, other)


def _name(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("hpx29", "source_id", "band", "mjd", "exposure_id"))


def assert_same_exposures(table: pa.Table, wanted: dict[str, Row]) -> None:
    """Compare exposures: each pawprint once."""
    found = {
        row["exposure_id"]: {**row, "details": row["details"] and json.loads(row["details"])}
        for row in table.to_pylist()
    }
    assert table.num_rows == len(found)
    assert found == wanted
