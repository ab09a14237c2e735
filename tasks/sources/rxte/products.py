"""Read RXTE's standard products, one observation at a time; tasks.sources.rxte.rows makes rows of the lake of them.

An observation gives one source (a target's light curve is that of all that match it), one exposure, and a row for each
bin of each product that there is. A product that is absent is named in the exposure's details: absence is no error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lake.errors import GranuleRejected
from lake.science.sky import separation_arcsec
from lake.science.times import DAY_S, met_to_mjd, to_bmjd_tdb
from lake.text import counted
from tasks.services.fits import Data, Floats
from tasks.sources.base import Origin
from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte.fits import LightCurve, read_light_curve
from tasks.sources.rxte.mission import PRODUCTS, Observation, product_of

# Of column left_out of table sources.
NO_PRODUCTS = "no_standard_products"


@dataclass(frozen=True)
class Extracted:
    """What was read of an observation, before it is converted to rows.

    Parameters
    ----------
    observation, granule, origin
        Which observation, as what granule, and what archive and release the rows are of.
    curves
        Its light curves, each of another band, `distinct`; none is a valid answer, too.
    ra, dec
        Position of the source, ICRS degrees.
    epochs
        Gain epochs, in order.
    exposure
        What table exposures says of it.
    left_out
        Why there is no light curve, where there is none.
    remark
        For the ledger.
    """

    observation: Observation
    granule: str
    origin: Origin
    curves: list[LightCurve]
    ra: float
    dec: float
    epochs: list[int]
    exposure: Mapping[str, Any]
    left_out: str | None
    remark: str | None

    @property
    def n(self) -> int:
        """Return how many bins it has."""
        return sum(len(curve.mjd) for curve in self.curves)


def barytime_difference(curve: LightCurve, ra: float | None = None, dec: float | None = None) -> Floats | None:
    """Subtract the file's BARYTIME from bmjd_tdb, seconds, bin by bin; None if the file has no BARYTIME.

    Parameters
    ----------
    ra, dec
        Direction of the source, ICRS degrees; None: of the header, as FXBARY took it.
    """
    ra, dec = curve.ra if ra is None else ra, curve.dec if dec is None else dec
    if curve.barytime_s is None or ra is None or dec is None:
        return None
    read = met_to_mjd(curve.seconds, *curve.mjdref)
    ours = to_bmjd_tdb(read, ra, dec, scale="tt", frame="geocentre")
    return np.asarray((ours - met_to_mjd(curve.barytime_s, *curve.mjdref)) * DAY_S)


def read_observation(files: Mapping[str, Data], observation: Observation, granule: str) -> Extracted:
    """Read the products of one observation.

    Parameters
    ----------
    files
        Light curves by their files' names, which say what they are, or by names of bands; an empty mapping is a valid
        answer, of which the absence is recorded. Files of other kinds are left alone, and named in details.
    observation
        What is known of it before.
    granule
        Id of the granule.

    Raises
    ------
    GranuleRejected
        If a file is broken or of another observation, or nobody says where the telescope pointed.
    OSError
        If a file cannot be read.
    """
    chosen, left_alone = _choose(files, observation)
    curves = [read_light_curve(files[name], PRODUCTS[band], name) for band, name in sorted(chosen.items())]
    curves = [distinct(curve, chosen[curve.product.band]) for curve in curves]
    absent = [band for band in PRODUCTS if band not in chosen]
    more = {"absent": absent, "not_read": left_alone, "files": chosen}
    return extracted(curves, observation, granule, rxte.ORIGIN, more, NO_PRODUCTS)


def extracted(
    curves: list[LightCurve],
    observation: Observation,
    granule: str,
    origin: Origin,
    more: Mapping[str, Any],
    nothing: str,
) -> Extracted:
    """Put together what is known of one observation.

    Parameters
    ----------
    curves, observation, granule, origin
        As in Extracted.
    more
        What else the exposure's details are to say.
    nothing
        Why there is no light curve, where there is none: column left_out of table sources.

    Raises
    ------
    GranuleRejected
        If nobody says where the telescope pointed, or the times are not of the mission.
    """
    ra, dec = _position(curves, observation)
    epochs = _epochs(curves, observation)
    return Extracted(
        observation,
        granule,
        origin,
        curves,
        ra,
        dec,
        epochs,
        _exposure(curves, observation, epochs, more),
        None if curves else nothing,
        _remark(curves, nothing),
    )


def _choose(files: Mapping[str, Data], observation: Observation) -> tuple[dict[str, str], list[str]]:
    """Return the file of each band, and the files that belong to none."""
    chosen: dict[str, str] = {}
    left_alone = []
    for name in sorted(files):
        known = (observation.id.stem, PRODUCTS[name]) if name in PRODUCTS else product_of(name)
        if known is None or known[1].band in chosen:
            left_alone.append(name)  # such as good time intervals; or unpacked beside its packed self
        elif known[0] != observation.id.stem:
            raise GranuleRejected(f"{name} is not of observation {observation.obsid}")
        else:
            chosen[known[1].band] = name
    return chosen, left_alone


def _position(curves: list[LightCurve], observation: Observation) -> tuple[float, float]:
    pointings = [(curve.ra, curve.dec) for curve in curves]
    for ra, dec in ((observation.ra, observation.dec), *pointings):
        if ra is not None and dec is not None:
            return ra, dec
    raise GranuleRejected(f"neither xtemaster nor a file says where {observation.obsid} pointed")


def _epochs(curves: list[LightCurve], observation: Observation) -> list[int]:
    """Return the gain epochs of an observation, in order: one, unless it spans an edge; none without a time."""
    times = np.concatenate([[], *(curve.mjd for curve in curves)])
    if not times.size and observation.mjd_start is not None:
        times = rxte.utc_to_tt([observation.mjd_start])
    try:
        return [int(epoch) for epoch in np.unique(rxte.gain_epoch(times))]
    except ValueError as error:
        raise GranuleRejected(f"{observation.obsid}: {error}") from error


def _exposure(
    curves: list[LightCurve], observation: Observation, epochs: list[int], more: Mapping[str, Any]
) -> dict[str, Any]:
    """Make what table exposures says of an observation."""
    starts = [curve.mjd_start for curve in curves if curve.mjd_start is not None]
    stops = [curve.mjd_stop for curve in curves if curve.mjd_stop is not None]
    if not starts and observation.mjd_start is not None:
        starts = [float(rxte.utc_to_tt(observation.mjd_start))]
    # PCA's time on source before HEXTE's, which turns to the background every now and then.
    ontimes = [
        curve.ontime_s
        for curve in sorted(curves, key=lambda curve: curve.product.instrument != "pca")
        if curve.ontime_s is not None
    ]
    pointing = next(((c.ra, c.dec) for c in curves if c.ra is not None and c.dec is not None), None)
    pcus = next((curve.pcus for curve in curves if curve.pcus), ())
    if observation.id.is_merged:  # its header is that of the first observation
        ontimes, pcus = [], ()
    found = [curve.product.band for curve in curves]
    details: dict[str, Any] = {
        "target_name": observation.target_name,
        "is_slew": observation.id.is_slew,
        "is_scan": observation.id.is_scan,
        "epoch": epochs[0] if epochs else None,
        "epochs": epochs,
        "pcus": list(pcus) or None,
        "pcu_count": len(pcus) or None,
        "found": found,
        "exposure_from": "xtemaster" if observation.exposure_s is not None else "ONTIME" if ontimes else None,
        "path": None if observation.id.is_merged else observation.paths[0],
        "energies": {curve.product.band: curve.energies(epochs[0]) for curve in curves if epochs},
        "products": {curve.product.band: curve.details for curve in curves},
        **more,
    }
    if pointing and observation.ra is not None and observation.dec is not None:
        details["offset_arcsec"] = round(float(separation_arcsec(*pointing, observation.ra, observation.dec)), 3)
    ra, dec = pointing or (observation.ra, observation.dec)
    return {
        "mjd_start": min(starts, default=None),
        "mjd_stop": max(stops, default=None),
        "exposure_s": observation.exposure_s if observation.exposure_s is not None else next(iter(ontimes), None),
        "ra": ra,
        "dec": dec,
        "details": json.dumps(details),
    }


def _remark(curves: list[LightCurve], nothing: str) -> str | None:
    """Join the remarks for the ledger in one line."""
    if not curves:
        return nothing.replace("_", " ")
    bands_by_remark: dict[str, list[str]] = {}
    for curve in curves:
        for remark in curve.remarks:
            bands_by_remark.setdefault(remark, []).append(curve.product.band)
    parts = [f"{remark} ({', '.join(bands)})" for remark, bands in bands_by_remark.items()]
    return "; ".join(parts) or None


def distinct(curve: LightCurve, name: str) -> LightCurve:
    """Sort a light curve by time, each bin once.

    Raises
    ------
    GranuleRejected
        If a bin comes twice with different values.
    """
    if (curve.seconds[1:] > curve.seconds[:-1]).all():
        return curve
    columns = {one: getattr(curve, one) for one in ("seconds", "mjd", "rate", "error", "counts", "fracexp")}
    if curve.barytime_s is not None:
        columns["barytime_s"] = curve.barytime_s
    order = np.argsort(curve.seconds, kind="stable")
    again = np.append(False, np.diff(curve.seconds[order]) == 0)
    for at in np.flatnonzero(again):
        if any(not np.array_equal(v[order[at]], v[order[at - 1]], equal_nan=True) for v in columns.values()):
            raise GranuleRejected(f"{name}: the bin at TIME {curve.seconds[order[at]]} comes twice, and differs")
    kept = order[~again]
    remarks = (*curve.remarks, f"{counted(again.sum(), 'bin')} came twice") if again.any() else curve.remarks
    return replace(curve, **{one: values[kept] for one, values in columns.items()}, remarks=remarks)
