"""Each form gives back the values, units and times that it was given, for every archive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.export.context import Context
from lake.export.forms import convert
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from tasks.sources.base import Archive
from tasks.sources.registry import REGISTRY

COMPARED = (
    "archive", "band", "source_id", "mjd", "bmjd_tdb", "flux", "flux_err", "unit", "mag", "good", "detected", "quality",
)  # fmt: skip
DAY_US = 86400e6
MICROSECOND = 1.0


def context(clock: str = "barycentre") -> Context:
    """What a lake knows of all archives."""
    archives = {archive.name: row_of(archive) for archive in REGISTRY.values()}
    bands = {(name, row["band"]): row for name, archive in REGISTRY.items() for row in archive.band_rows()}
    return Context(archives, bands, {}, clock)  # type: ignore[arg-type]


def row_of(archive: Archive) -> dict[str, Any]:
    empty = dict.fromkeys(TABLES["archives"].names)
    return {**empty, **archive.row(), "archive": archive.name}


def measurements(archive: Archive, seed: int, several_bands: bool) -> pa.Table:
    """Rows of an archive as a lake could have them: any values, some of them missing."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    bands = list(archive.bands) if several_bands else [archive.bands[int(rng.integers(len(archive.bands)))]]
    chosen = sorted((bands[int(i)] for i in rng.integers(len(bands), size=n)), key=lambda band: band.band)

    def some(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        return pa.array(values, mask=rng.random(n) < 0.3).cast(kind)

    mjd = np.sort(rng.uniform(40000, 62000, n))
    pixel = int(hpx29(10.0, -30.0))
    return TABLES["lightcurves"].cast(
        pa.table(
            {
                "archive": [archive.name] * n,
                "band": [band.band for band in chosen],
                "source_id": [f"s {int(i)}" for i in np.sort(rng.integers(1, 3, n))],
                "release": [archive.release] * n,
                "hpx29": [pixel] * n,
                "mjd": mjd,
                "bmjd_tdb": mjd + rng.uniform(-0.006, 0.006, n),
                "flux": some(rng.normal(size=n), pa.float32()),
                "flux_err": some(rng.random(n), pa.float32()),
                "unit": pa.array([band.unit for band in chosen], pa.string()),
                "mag": some(rng.uniform(10, 20, n), pa.float32()),
                "detected": rng.random(n) < 0.5,
                "good": rng.random(n) < 0.5,
                "quality": some(rng.integers(0, 2**62, n), pa.int64()),
                "exposure_id": pa.nulls(n, pa.string()),
                "granule": ["g0"] * n,
            }
        )
    )


def told(table: Any, about: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a table of astropy, with what is said of all of them; a masked value is None."""
    about = about or {}
    for number in range(len(table)):
        row = {}
        for name in COMPARED:
            if name not in table.colnames:
                row[name] = about.get(name)
                continue
            column = table[name]
            masked = bool(np.atleast_1d(column.mask)[number]) if hasattr(column, "mask") else False
            value = None if masked else column[number]
            plain = value.value if hasattr(value, "unit") else value
            row[name] = plain.item() if hasattr(plain, "item") else plain
        yield row


def expected(table: pa.Table) -> list[dict[str, Any]]:
    return sort(table.select(COMPARED).to_pylist())


def sort(rows: Any) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["band"], row["source_id"], row["bmjd_tdb"]))


def check_times(table: Any, rows: pa.Table, scale: str, column: str) -> None:
    """The Time column has the times of a column, in that scale, to a microsecond."""
    assert table["time"].scale == scale
    off = np.sort(table["time"].mjd) - np.sort(rows[column].to_numpy())
    assert np.abs(off).max() * DAY_US < MICROSECOND


ANY = given(st.sampled_from(sorted(REGISTRY)), st.integers(0, 2**32 - 1), st.booleans())


@ANY
def test_tables_of_arrow_pandas_and_polars(name: str, seed: int, several: bool) -> None:
    rows = measurements(REGISTRY[name], seed, several)
    assert convert(rows, "arrow").equals(rows)
    assert convert(rows, "arrow").schema.field("mjd").metadata[b"unit"] == b"d"
    frame = convert(rows, "pandas")
    back = pa.Table.from_pandas(frame, preserve_index=False).select(COMPARED).to_pylist()
    assert sort(back) == expected(rows)
    assert frame.attrs["units"]["mjd"] == "d"
    assert sort(convert(rows, "polars").to_arrow().select(COMPARED).to_pylist()) == expected(rows)


@ANY
def test_a_qtable(name: str, seed: int, several: bool) -> None:
    import astropy.units as u

    rows = measurements(REGISTRY[name], seed, several)
    table = convert(rows, "astropy", context())
    assert sort(told(table)) == expected(rows)
    check_times(table, rows, "tdb", "bmjd_tdb")
    units = {unit for unit, flux in zip(rows["unit"].to_pylist(), rows["flux"].to_pylist(), strict=True) if flux}
    if len(units) == 1 and None not in units:
        assert table["flux"].unit == u.Unit(units.pop())
    elif len(units) > 1:
        assert getattr(table["flux"], "unit", None) is None
    assert table["mjd"].unit == u.d
    assert table["mag"].unit == u.mag
    assert table["mag"].info.meta["ucd"] == "phot.mag"
    assert table.meta["archives"][name]["bibcode"] == REGISTRY[name].bibcode


@ANY
def test_an_archives_own_clock(name: str, seed: int, several: bool) -> None:
    rows, archive = measurements(REGISTRY[name], seed, several), REGISTRY[name]
    table = convert(rows, "astropy", context("archive"))
    check_times(table, rows, archive.time_scale.lower(), "mjd")
    assert (table["time"].location is not None) == (archive.time_frame == "geocentre")
    assert table.meta["time_frame"] == archive.time_frame


@ANY
def test_time_series(name: str, seed: int, several: bool) -> None:
    rows = measurements(REGISTRY[name], seed, several)
    one = convert(rows, "timeseries", context())
    assert sort(told(one)) == expected(rows)
    check_times(one, rows, "tdb", "bmjd_tdb")
    assert (np.diff(one["time"].mjd) >= 0).all()
    each = convert(rows, "timeseries_bands", context())
    assert sort(row for series in each for row in told(series, series.meta)) == expected(rows)
    assert len({(series.meta["band"], series.meta["source_id"]) for series in each}) == len(each)


@pytest.mark.long
@ANY
def test_light_curves_of_lightkurve(name: str, seed: int, several: bool) -> None:
    import astropy.units as u

    rows = measurements(REGISTRY[name], seed, several)
    found = []
    for curve in convert(rows, "lightkurve", context()):
        assert curve.time.scale == "tdb"
        (unit,) = {row["unit"] for row in expected(rows) if row["band"] == curve.meta["band"]}
        assert curve.flux.unit == (u.dimensionless_unscaled if unit in (None, "") else u.Unit(unit))
        for row in told(curve, {**curve.meta, "unit": unit}):
            row["bmjd_tdb"] = None
            found.append({key: None if value != value else value for key, value in row.items()})
    times = sorted(time for curve in convert(rows, "lightkurve", context()) for time in curve.time.mjd)
    assert np.abs(np.array(times) - np.sort(rows["bmjd_tdb"].to_numpy())).max() * DAY_US < MICROSECOND

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["band"], row["source_id"], row["mjd"]

    assert sorted(found, key=key) == sorted(({**row, "bmjd_tdb": None} for row in expected(rows)), key=key)


def test_the_rows_are_of_every_archive() -> None:
    assert len(REGISTRY) > 8
    assert {archive.time_frame for archive in REGISTRY.values()} > {"geocentre", "barycentre", "heliocentre"}
