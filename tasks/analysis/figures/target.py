"""The figure of a target of a lake: its measurements, its words, and where they are from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from astropy import units as u
from astropy.coordinates import SkyCoord

from lake.errors import ConfigurationError
from lake.export.citations import citation_of
from lake.query import Lake
from lake.text import counted
from tasks.analysis.figures.bands import Style, styles
from tasks.analysis.figures.light_curve import About, light_curve
from tasks.analysis.figures.points import Fold, Look, points

# Endpoints on this machine: simulated archives, above all.
_NEARBY = re.compile(r"/|file:|https?://(127\.|localhost|\[::1\])")

_COLUMNS = (
    "archive, release, band, source_id, mjd, bmjd_tdb, flux, flux_err, mag, mag_err, mag_system, unit, detected, good, "
    "exposure_s"
)
_NORMALISED = (
    "archive, release, band, source_id, mjd, bmjd_tdb, flux, flux_err, NULL::FLOAT AS mag, NULL::FLOAT AS mag_err, "
    "NULL::VARCHAR AS mag_system, unit, detected, good, exposure_s"
)


def target_figure(lake: Lake, target: int | str, look: Look, archive: str | None = None) -> dict[str, Any]:
    """Draw the light curves that a lake has of a target.

    Parameters
    ----------
    lake
        The lake, open for reading.
    target
        Its id, or any of its names.
    look
        How they are drawn.
    archive
        Only this archive; None: all.

    Returns
    -------
    dict
        A Vega-Lite specification with its data: see `tasks.analysis.figures.light_curve`.

    Raises
    ------
    ConfigurationError
        If the lake has no such target.
    """
    target_id = lake.target_id(target)
    rows = measurements(lake, target_id, look, archive)
    if look.fold is not None and look.fold.epoch_mjd != look.fold.epoch_mjd:
        look = _from_the_first(rows, look, look.fold.period_d)
    return light_curve(points(rows, look), words(lake, target_id, rows), look, band_styles(lake))


def measurements(lake: Lake, target_id: int, look: Look, archive: str | None = None) -> pa.Table:
    """Read the measurements of a target, good or not, in the columns that `points` takes."""
    view, columns = ("normalised", _NORMALISED) if look.axis == "normalised" else ("target_lightcurves", _COLUMNS)
    return lake.sql(
        f"SELECT {columns} FROM {view} WHERE target_id = $target AND ($archive IS NULL OR archive = $archive) "
        "ORDER BY archive, band, mjd",
        {"target": target_id, "archive": archive},
    )


def words(lake: Lake, target_id: int, rows: pa.Table) -> About:
    """Return title, subtitle and citations of a target's figure."""
    (target,) = lake.sql(
        "SELECT name, ra, dec, redshift FROM targets WHERE target_id = $id", {"id": target_id}
    ).to_pylist()
    labels = lake.sql(
        "SELECT DISTINCT coalesce(label, sample) AS label FROM labels WHERE target_id = $id ORDER BY 1",
        {"id": target_id},
    )["label"].to_pylist()
    place = SkyCoord(target["ra"] * u.deg, target["dec"] * u.deg).to_string("hmsdms", precision=1)
    subtitle = [f"{place} (ICRS)"]
    if target["redshift"] is not None:
        subtitle.append(f"z = {target['redshift']:.4g}")
    subtitle += labels
    asked = lake.sql("SELECT DISTINCT archive, endpoint FROM ledger WHERE status = 'done'").to_pylist()
    nearby = {one["archive"] for one in asked if _NEARBY.match(one["endpoint"] or "")}
    drawn = rows.group_by(["archive", "release"]).aggregate([("source_id", "count_distinct")]).to_pylist()
    known = {
        one["archive"]: one for one in lake.sql("SELECT archive, title, bibcode, licence FROM archives").to_pylist()
    }
    sources = []
    for one in sorted(drawn, key=lambda one: str(one["archive"])):
        about = known.get(one["archive"], {})
        cited = f" ({about['bibcode']})" if about.get("bibcode") else ""
        n = one["source_id_count_distinct"]
        near = " From a copy or a simulation on this machine." if one["archive"] in nearby else ""
        terms = f" Terms of use: {about['licence'].rstrip('.')}." if about.get("licence") else ""
        what = f"{about.get('title') or one['archive']}, release {one['release']}{cited}: {counted(n, 'source')}."
        sources.append(f"{what}{near}{terms}")
    if not drawn:
        sources.append(_answers(lake, target_id))
    if sources and drawn:
        sources.append(f"To cite and acknowledge: lightlake cite --target {target_id}")
    releases = {(one["archive"], one["release"]) for one in drawn}
    with lake.snapshot() as cursor:
        cite = citation_of(lake, target=target_id, found=releases, within=cursor).lines()
    return About(target["name"] or str(target_id), ", ".join(subtitle), tuple(sources), tuple(cite))


def _answers(lake: Lake, target_id: int) -> str:
    """Tell what the archives have answered on a target."""
    answers = lake.sql(
        "SELECT archive || ' ' || status AS answer FROM coverage WHERE target_id = $id ORDER BY ALL", {"id": target_id}
    )["answer"].to_pylist()
    return f"Answers of archives: {', '.join(answers)}." if answers else "No archive was asked."


def band_styles(lake: Lake) -> Mapping[tuple[str, str], Style]:
    """Return the style of each band that the lake knows."""
    rows = lake.sql("SELECT archive, band, wavelength_nm FROM bands").to_pylist()
    found = styles([(one["archive"], one["band"], one["wavelength_nm"]) for one in rows], _archives())
    return _Known(found)


class _Known(dict[tuple[str, str], Style]):
    """Styles; a band that the lake does not describe gets one by its name."""

    def __missing__(self, key: tuple[str, str]) -> Style:
        self[key] = styles([(*key, None)], _archives())[key]
        return self[key]


@cache
def _archives() -> tuple[str, ...]:
    from tasks.sources.registry import SURVEYS, known

    return (*known(), *SURVEYS)


def _from_the_first(rows: pa.Table, look: Look, period_d: float) -> Look:
    """Return how a figure looks whose phases count from the first measurement."""
    if not rows.num_rows:
        raise ConfigurationError("there are no measurements of it", hint="see what archives answered: lightlake status")
    first = pc.min(rows["bmjd_tdb"]).as_py()
    if first is None:
        raise ConfigurationError("no time of it is known at the barycentre", hint="leave out --fold")
    return replace(look, fold=Fold(period_d, first))
