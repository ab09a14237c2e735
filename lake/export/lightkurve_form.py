"""Convert light curves of a lake to those of the package lightkurve."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
from astropy import units as u
from astropy.time import Time

from lake.errors import ConfigurationError
from lake.export.astropy_forms import curves, parsed, qtable, times
from lake.export.context import Context, Row
from lake.export.units import single_unit
from lake.science.sky import hpx29_to_radec

# The page that helps with errors from here.
HELP_TOPIC = "how-to/python"

# How an exposure's details call the part of a mission that it is of, as lightkurve's keywords do in capitals.
_SEQUENCES = ("sector", "quarter", "campaign")

# What becomes a column beside time, flux and flux_err, where the archive has it.
_BESIDE = (
    "mjd", "quality", "good", "detected", "mag", "mag_err", "exposure_s", "counts", "background", "x", "y", "rank",
    "separation_arcsec",
)  # fmt: skip


def collection(table: pa.Table, context: Context) -> Any:
    """Convert measurements to a LightCurveCollection: a light curve for each target, source and band, and sector.

    Times are MJD (TDB) at the barycentre. NULL is NaN, since lightkurve drops masks.

    Raises
    ------
    ConfigurationError
        If another clock is asked for, a flux has several units or one that astropy does not know, or rows have no time.
    """
    if context.clock != "barycentre":
        raise ConfigurationError("lightkurve takes times at the barycentre", hint="leave clock out")
    library = _library()
    return library.LightCurveCollection([_curve(rows, about, context, library) for rows, about in curves(table)])


def _library() -> Any:
    with warnings.catch_warnings():
        # Of a part of it that models images of stars.
        warnings.filterwarnings("ignore", ".*tpfmodel", UserWarning)
        import lightkurve
    return lightkurve


def _curve(rows: pa.Table, about: dict[str, Any], context: Context, library: Any) -> Any:
    name = f"{about['archive']} {about['band']} of source {about['source_id']}"
    if "bmjd_tdb" not in rows.column_names or rows["bmjd_tdb"].null_count:
        raise ConfigurationError(
            f"{name}: rows have no time at the barycentre", hint="leave them out by SQL: WHERE bmjd_tdb IS NOT NULL"
        )
    rows = rows.sort_by([("bmjd_tdb", "ascending")])
    details = context.details.get((about["archive"], about.get("release", ""), about.get("exposure_id", "")), {})
    data = {"time": times(rows, context), "flux": _flux(rows, "flux", name), "flux_err": _flux(rows, "flux_err", name)}
    beside = [one for one in _BESIDE if one in rows.column_names and rows[one].null_count < rows.num_rows]
    table = qtable(rows.select([*beside, *(["unit"] if "background" in beside else [])]), Context(clock="archive"))
    data |= {column: _unmasked(table[column]) for column in beside}
    made = _class_of(details, library)(data)
    _set_format(made.time, details)
    made.meta |= _meta(rows, about, details, context)
    return made


def _flux(rows: pa.Table, column: str, name: str) -> u.Quantity:
    unit = single_unit(rows, "flux")
    known = parsed(unit)
    named = [
        one for one in (rows["unit"].unique().to_pylist() if "unit" in rows.column_names else []) if one is not None
    ]
    if known is None and (named or unit):
        raise ConfigurationError(
            f"{name}: lightkurve cannot carry fluxes in {', '.join(named) or unit}", hint="use form='astropy'"
        )
    return u.Quantity(rows[column].cast(pa.float64()).fill_null(np.nan).to_numpy(), known)


def _unmasked(values: Any) -> Any:
    """Return numbers with NaN where they are masked; others keep their mask."""
    if isinstance(values, u.Quantity) and hasattr(values, "mask"):
        return values.filled(np.nan)
    if hasattr(values, "mask") and values.dtype.kind == "f":
        return values.filled(np.nan)
    return values


def _class_of(details: Row, library: Any) -> Any:
    """Return lightkurve's class for an exposure, by what its details call the part of the mission."""
    if "sector" in details:
        return library.TessLightCurve
    if "quarter" in details or "campaign" in details:
        return library.KeplerLightCurve
    return library.LightCurve


def _set_format(time: Time, details: Row) -> None:
    """Show times as the mission does; the instants stay."""
    if "sector" in details:
        time.format = "btjd"
    elif "quarter" in details or "campaign" in details:
        time.format = "bkjd"


def _meta(rows: pa.Table, about: dict[str, Any], details: Row, context: Context) -> dict[str, Any]:
    ra, dec = hpx29_to_radec([about["hpx29"]]) if "hpx29" in about else ([None], [None])
    digits = str(about["source_id"]).split()[-1]
    meta: dict[str, Any] = {
        "LABEL": " ".join(str(one) for one in (about.get("name") or about["source_id"], about["band"])),
        "TARGETID": int(digits) if digits.isascii() and digits.isdecimal() else about["source_id"],
        "OBJECT": about["source_id"],
        "RA": None if ra[0] is None else float(ra[0]),
        "DEC": None if dec[0] is None else float(dec[0]),
        "FLUX_ORIGIN": about["band"],
        "AUTHOR": details.get("pipeline", about["archive"]),
        "MISSION": _mission(details) or about["archive"],
        **{name.upper(): details[name] for name in _SEQUENCES if name in details},
        "UNIT": single_unit(rows, "flux"),
        **about,
    }
    if (band := context.bands.get((about["archive"], about["band"]))) is not None:
        meta["BAND"] = {name: value for name, value in band.items() if value is not None}
    return meta


def _mission(details: Row) -> str | None:
    """Return the mission as lightkurve writes it: K2 and TESS in capitals."""
    mission = details.get("mission")
    if mission is None:
        return None
    return str(mission).upper() if "quarter" not in details else str(mission).capitalize()
