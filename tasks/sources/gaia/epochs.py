"""Gaia's epoch photometry: what its DataLink service sends, and the light curves of the lake made of it."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.parsers.expat import ExpatError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.commit.sound import named
from lake.science.photometry import AB_ZERO_POINT_JY, magnitude_err
from lake.science.times import MJD_OFFSET, to_bmjd_tdb
from tasks.services.bounds import Budget, open_zip, parsed_votable
from tasks.services.values import dated, possible, undated_remark
from tasks.sources.gaia.layouts import (
    EMPTY,
    NOISY,
    REJECTED_BY_PHOTOMETRY,
    REJECTED_BY_VARIABILITY,
    each_once,
    has_arrays,
    source_in,
    transits,
)

if TYPE_CHECKING:
    from astropy.table import Table


class ZeroPoints(NamedTuple):
    """Magnitudes of one electron per second."""

    vega: float
    ab: float


ZERO_POINT_SOURCE = "Gaia EDR3 passbands, table of zero points (Riello et al. 2021, A&A 649, A3)"
ZERO_POINTS = {
    "G": ZeroPoints(25.6873668671, 25.8010446445),
    "BP": ZeroPoints(25.3385422158, 25.3539555559),
    "RP": ZeroPoints(24.7478955012, 25.1039837393),
}

# Light curves count days from JD(TCB) 2455197.5: Gaia DR3 documentation, data model.
EPOCH_MJD = 2455197.5 - MJD_OFFSET  # 55197.0

QUALITY_NOTE = (
    "Bits of quality: 0 rejected by photometry, 1 rejected by variability, 2 noisy, 8 to 19 unavailable and 20 to 31 "
    "rejected CCDs (SM, AF1 to AF9, BP, RP), from 32 on the archive's other_flags; good has none of the first three."
)

# No transit is older than Gaia's launch, 2013 December 19 (Gaia Collaboration 2016, A&A 595, A1): a time of 0 is none.
LAUNCH_MJD = 56645.0


def read(body: bytes, ids: Sequence[int], budget: Budget, broken: dict[int, str] | None = None) -> pa.Table:
    """Read an answer of DataLink: a zip of VOTables, or one VOTable.

    Parameters
    ----------
    body
        The answer.
    ids
        Sources that were asked for; others are left out.
    budget
        What it may come to, unpacked and in memory.
    broken
        Receives the sources that cannot be read, and why; the others are read. None: a broken source is an error.

    Returns
    -------
    pa.Table
        Columns of EMPTY: time in days since 2455197.5 (BJD, TCB), flux in electrons per second, mag Vega.

    Raises
    ------
    ValueError
        If it is neither, or is damaged, or has none of the layouts.
    """
    parts = [EMPTY]
    for name, content in _members(body, budget):
        try:
            votable = parsed_votable(content, budget)
        except (ExpatError, ValueError, IndexError, zlib.error) as error:
            if not _noted(f"{name} is no VOTable, or part of one: {error}", source_in(name), ids, broken):
                raise ValueError(f"{name} is no VOTable, or part of one: {error}") from error
            continue
        for info in votable.infos + [info for resource in votable.resources for info in resource.infos]:
            if info.name == "QUERY_STATUS" and str(info.value).upper() != "OK":
                raise ValueError(f"{name} says {info.value}: {info.content or 'no more'}")
        for table in votable.iter_tables():
            params = {param.name: param.value for param in table.params}
            parts += _sound_parts(table.to_table(), name, params, ids, broken)
    rows = each_once(pa.concat_tables(parts))
    wanted = set(ids) - set(broken or ())
    return rows.filter(pc.is_in(rows["source_id"], value_set=pa.array(sorted(wanted), pa.int64())))


def _sound_parts(
    table: Table, name: str, params: Mapping[str, Any], ids: Sequence[int], broken: dict[int, str] | None
) -> list[pa.Table]:
    """Read the measurements of a table; of a table of several sources, those of each source that can be read."""
    try:
        return [transits(table, name, params)]
    except ValueError as error:
        is_arrays = "source_id" in table.colnames and "g_transit_time" in table.colnames and has_arrays(table)
        if is_arrays and len(table) > 1 and broken is not None:
            rows = (table[n : n + 1] for n in range(len(table)))
            return [part for row in rows for part in _sound_parts(row, name, params, ids, broken)]
        whose = int(table["source_id"][0]) if is_arrays else source_in(name)
        if not _noted(f"{name}: {error}", whose, ids, broken):
            raise
        return []


def _noted(reason: str, source: int | None, ids: Sequence[int], broken: dict[int, str] | None) -> bool:
    """Note that a source is broken; return False if it is not known which of the requested ones it is."""
    if broken is None or source is None or source not in ids:
        return False
    broken.setdefault(source, reason)
    return True


def _members(body: bytes, budget: Budget) -> Iterator[tuple[str, bytes]]:
    if not body.startswith(b"PK"):
        yield "the answer", body
        return
    try:
        with open_zip(io.BytesIO(body), budget) as archive:
            for name in archive.names:
                yield name, archive.read(name)
    except zipfile.BadZipFile as error:
        raise ValueError(f"the answer is a damaged zip: {error}") from error


def lightcurves(epochs: pa.Table, sources: pa.Table) -> pa.Table:
    """Convert epoch photometry to rows of table lightcurves.

    Rejected and noisy transits stay, with good false. A transit without a flux in a band is covered, not detected,
    if its time is known. MJD is time + 55197.0: the archive's zero is JD 2455197.5, Gaia DR3 documentation,
    sect. 20.7.1.

    Parameters
    ----------
    epochs
        Columns of EMPTY.
    sources
        Rows of table sources.
    """
    epochs = epochs.filter(pc.and_(pa.array(dated(_mjd(epochs))), _in_band(epochs)))
    place = pc.index_in(epochs["source_id"].cast(pa.string()), value_set=sources["source_id"].combine_chunks())
    mjd = _mjd(epochs)
    rate, rate_err = (epochs[name].to_numpy() for name in ("flux", "flux_error"))
    band = epochs["band"].to_numpy()
    # mJy of one electron per second: the flux of that AB magnitude.
    factor = np.empty(len(band))
    for name, points in ZERO_POINTS.items():
        factor[band == name] = AB_ZERO_POINT_JY * 1e3 * 10 ** (-0.4 * points.ab)
    quality = epochs["quality"].to_numpy()
    detected = ~np.isnan(rate)
    mag_err = magnitude_err(possible(rate, "flux"), possible(rate_err, "flux_err"))
    return pa.table(
        {
            "band": epochs["band"],
            "source_id": epochs["source_id"].cast(pa.string()),
            "hpx29": sources["hpx29"].take(place),
            "mjd": mjd,
            "bmjd_tdb": to_bmjd_tdb(
                mjd,
                sources["ra"].take(place).to_numpy(),
                sources["dec"].take(place).to_numpy(),
                scale="tcb",
                frame="barycentre",
            ),
            "flux": rate * factor,
            "flux_err": rate_err * factor,
            "unit": pa.array(["mJy"] * len(band), pa.string()),
            "mag": epochs["mag"],
            "mag_err": np.where(np.isnan(possible(epochs["mag"].to_numpy(), "mag")), np.nan, mag_err),
            "detected": detected,
            "good": detected & (quality & (REJECTED_BY_PHOTOMETRY | REJECTED_BY_VARIABILITY | NOISY) == 0),
            "quality": quality,
            "exposure_id": epochs["transit_id"].cast(pa.string()),
        }
    )


def out_of_time(epochs: pa.Table) -> str | None:
    """Remark on transits with impossible times; those without a time are no measurements."""
    known = epochs.filter(pc.is_valid(epochs["time"]))
    whose = known["source_id"].cast(pa.string())
    return undated_remark(_mjd(known), lambda mask: whose.filter(pa.array(mask)).to_pylist())


def out_of_band(epochs: pa.Table) -> str | None:
    """Remark on transits in unknown bands."""
    odd = epochs.filter(pc.invert(_in_band(epochs)))
    examples = named(odd["band"].cast(pa.string()).to_pylist())
    return f"measurements in bands that nobody knows, left out: {odd.num_rows}{examples}" if odd.num_rows else None


def _in_band(epochs: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(epochs["band"], value_set=pa.array(ZERO_POINTS))


def _mjd(epochs: pa.Table) -> NDArray[np.float64]:
    """Return the MJD of transits; 0 for those before the launch, such as sentinels."""
    mjd = np.asarray(epochs["time"].to_numpy() + EPOCH_MJD, np.float64)
    return np.where(mjd < LAUNCH_MJD, 0.0, mjd)
