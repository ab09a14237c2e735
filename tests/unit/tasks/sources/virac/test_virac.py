"""What a VIRAC tile gives the lake: every row against a slow reading of the tile, one source at a time."""

from __future__ import annotations

import fcntl
import itertools
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from astropy import units as u
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.time import Time
from helpers.granules import attempt
from helpers.virac import (
    OPTIONAL,
    PIXELS,
    TINY,
    assert_same_exposures,
    assert_same_rows,
    best,
    expected,
    extracted,
    in_order,
    put,
    put_ragged,
    rows_of,
    tile,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.sandbox import virac as sandbox
from lake.commit.commit import commit
from lake.commit.staging import Manifest, stage
from lake.errors import ConfigurationError, GranuleRejected
from lake.store.storage import decoded, read_parquet
from tasks.sources.statistics import statistics
from tasks.sources.virac import tiles as virac
from tasks.sources.virac.columns import or_null, without_odd
from tasks.sources.virac.tile import Tile, open_tile
from tasks.sources.virac.tiles import AST_RES_CHISQ_MAX, Extraction, Selection

BAND_UNITS = {band.band: band.unit for band in virac.ORIGIN.bands}


def lightcurves(path: Path, **cut):
    return rows_of(extracted(path, **cut)[1])


def check(path: Path, **cut):
    """Compare all that a tile gives with what it must."""
    tables, parts = extracted(path, **cut)
    rows, sources, exposures = expected(path, **cut)
    assert_same_rows(rows_of(parts), rows)
    assert tables["sources"].to_pylist() == [
        {name: row[name] for name in tables["sources"].column_names} for row in sources
    ]
    assert set(tables["sources"].column_names) == set(sources[0] if sources else tables["sources"].column_names)
    assert_same_exposures(tables["exposures"], exposures)
    assert_same_statistics(tables, parts)
    return rows, sources, exposures


def assert_same_statistics(tables, parts):
    if not sum(part.num_rows for part in parts):
        assert not tables.get("statistics", pa.table({})).num_rows
        return
    wanted = statistics(pa.concat_tables([decoded(part) for part in parts])).to_pylist()
    found = sorted(tables["statistics"].to_pylist(), key=lambda r: (r["hpx29"], r["source_id"], r["band"]))
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            assert one[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), name


# --- the rows


@pytest.mark.parametrize(
    ("filters", "ids", "nside", "layout"),
    [
        (*kinds, ("contiguous", "chunked+gzip")[number % 2])
        for number, kinds in enumerate(itertools.product(("S2", "padded", "str"), ("rows", "shuffled"), PIXELS))
    ],
)
def test_all_that_a_tile_holds_arrives(tmp_path, nside, layout, ids, filters):
    zipped = layout != "contiguous" and ids == "rows"
    path = tile(
        tmp_path,
        nside,
        layout=layout,
        catindexid=ids,
        filters=filters,
        gzip_series=zipped,
        alternative_names=zipped,
        with_variability=not zipped,
        with_z_counts=filters != "str",
    )
    rows, sources, exposures = check(path)
    assert {row["band"] for row in rows} == set(sandbox.BANDS)
    assert {row["detected"] for row in rows} == {row["good"] for row in rows} == {True, False}
    assert 0 < sum(source["left_out"] is not None for source in sources) < len(sources) == 16
    assert len(exposures) == 70


def test_a_tile_with_the_least_columns(tmp_path):
    def least(file):
        for group, names in OPTIONAL.items():
            for name in names:
                del file[group][name]
        for name in set(file["sourceList"]) - {"sourceid", "ra", "dec"}:
            del file["sourceList"][name]
        del file["variabilityIndices"]

    rows, sources, exposures = check(tile(tmp_path, change=least))
    assert "x" not in rows[0]
    assert "exposure_s" not in rows[0]
    assert "parallax" not in sources[0]
    assert {one["details"] for one in exposures.values()} == {None}


def test_a_tile_with_an_epoch_of_its_positions(tmp_path):
    check(tile(tmp_path, change=lambda file: file.create_dataset("sourceList/ref_epoch", data=np.full(16, 2014.0))))


@pytest.mark.parametrize("name", [*OPTIONAL["timeSeries"], *OPTIONAL["catIndex"]])
def test_each_optional_column_may_be_absent_alone(tmp_path, name):
    group = "timeSeries" if name in OPTIONAL["timeSeries"] else "catIndex"
    check(tile(tmp_path, n_sources=6, change=lambda file: file[group].__delitem__(name)))


def test_other_numeric_types_give_the_same(tmp_path):
    """Big-endian columns, as tables of FITS have them, and wider or narrower numbers in the ragged arrays."""

    def otherwise(file):
        for group in ("catIndex", "sourceList"):
            for name in file[group]:
                values = file[group][name][:]
                if values.dtype.kind in "iuf":
                    put(file, f"{group}/{name}", values.astype(values.dtype.newbyteorder(">")))
        for name, kind in (("catindexid", "i8"), ("objtype", "f4"), ("ambiguous_match", "i4"), ("chi", "f8")):
            put_ragged(file, name, file["timeSeries"][name][:], kind)

    check(tile(tmp_path, catindexid="shuffled", change=otherwise))


def test_rows_are_sorted_where_sources_are_not(tmp_path):
    """Sources in reverse, two of them in the same place: the order is that of hpx29, then of the id."""

    def reverse(file):
        for group in ("sourceList", "timeSeries"):
            for name in file[group]:
                rows = file[group][name][:][::-1]
                if group == "sourceList":
                    file[group][name][:] = rows
                else:
                    put_ragged(file, name, rows, sandbox.SERIES[name])
        for name in ("ra", "dec"):
            file["sourceList"][name][4] = file["sourceList"][name][5]
        for place, number in ((4, 1000), (5, 999)):
            file["sourceList/sourceid"][place] = PIXELS[1024] * 10**6 + number

    rows, _, _ = check(tile(tmp_path, few=0, change=reverse))
    assert rows == in_order(rows)
    names = [key for key, _ in itertools.groupby(row["source_id"] for row in rows)]
    assert names.index("9000000000999") + 1 == names.index("9000000001000")


def test_pawprints_of_one_time_are_all_there(tmp_path):
    rows, _, _ = check(tile(tmp_path, change=lambda file: put(file, "catIndex/mjdobs", np.full(70, 56000.25))))
    assert len({row["mjd"] for row in rows}) == 1


def test_measurements_that_are_missing_are_null(tmp_path):
    def holes(file):
        series, n = file["timeSeries"], best(file)
        for place, name in enumerate(("hfad_mag", "hfad_emag", "chi", "ast_res_chisq", "sky")):
            values = series[name][n]
            values[place] = np.nan
            series[name][n] = values
        for name in ("seeing", "exptime", "skylevel"):
            file["catIndex"][name][3] = np.nan
        for name in ("parallax", "pmra"):
            file["sourceList"][name][n] = np.nan

    path = tile(tmp_path, change=holes)
    tables, parts = extracted(path)
    rows, sources, _ = expected(path)
    assert not any(isinstance(v, float) and math.isnan(v) for row in rows_of(parts) for v in row.values())
    for row in rows:  # what is NaN in catIndex is NULL too
        row["exposure_s"] = None if math.isnan(row["exposure_s"]) else row["exposure_s"]
    assert_same_rows(rows_of(parts), rows)
    assert [row["parallax"] for row in tables["sources"].to_pylist()] == [row["parallax"] for row in sources]
    assert all(row["detected"] == (row["mag"] is not None) for row in rows)
    assert tables["exposures"]["seeing_arcsec"].null_count == 1
    staged = stage_of(path, tmp_path)
    assert {file.table for file in staged.files} == {"sources", "exposures", "lightcurves", "statistics"}
    assert read_parquet(next((tmp_path / "staged").glob("exposures-*")))["exposure_s"].null_count == 1


def test_good_is_by_ambiguity_and_astrometric_residual(tmp_path):
    def residuals(file):
        series, n = file["timeSeries"], best(file)
        values = series["ast_res_chisq"][n]
        values[:4] = [28.73, 28.75, np.nan, 5.0]
        series["ast_res_chisq"][n] = values
        flags = np.zeros(len(values), bool)
        flags[3] = True
        series["ambiguous_match"][n] = flags

    path = tile(tmp_path, few=0, change=residuals)
    with h5py.File(path) as file:
        n = best(file)
        ids = [f"n1024_9000000/{one}" for one in file["timeSeries/catindexid"][n][:5]]
        source = str(file["sourceList/sourceid"][n])
    found = {row["exposure_id"]: row for row in lightcurves(path) if row["source_id"] == source}
    assert [found[one]["good"] for one in ids] == [True, False, False, False, True]
    assert [found[one]["quality"] & 1 for one in ids] == [0, 0, 0, 1, 0]
    assert pytest.approx(5.733e-7, rel=3e-3) == math.exp(-AST_RES_CHISQ_MAX / 2)  # two degrees of freedom, 5 sigma


def test_zero_points_are_the_published_ones():
    """SVO Filter Profile Service, Paranal/VISTA, Vega; Z is 1.02 % from it, as CASU's own offset has it."""
    svo = {"Z": 2263.81, "Y": 2087.32, "J": 1554.03, "H": 1030.40, "Ks": 674.83}
    bands = {band.band: band for band in virac.ORIGIN.bands}
    assert set(bands) == set(svo)
    for name, jansky in svo.items():
        assert bands[name].zero_point_jy == pytest.approx(jansky, rel=0.011)
    assert bands["Ks"].zero_point_jy == pytest.approx(674.83, rel=1e-3)
    assert all(band.mag_system == "Vega" and band.unit == "mJy" for band in bands.values())


def test_a_flux_by_hand(tmp_path):
    def bright(file):
        for n in range(4):
            series = file["timeSeries"]
            series["hfad_mag"][n] = np.full(len(series["hfad_mag"][n]), 12.5)
            series["hfad_emag"][n] = np.full(len(series["hfad_mag"][n]), 0.01)

    rows = lightcurves(tile(tmp_path, n_sources=4, few=0, change=bright))
    ks = next(row for row in rows if row["detected"] and row["band"] == "Ks")
    assert ks["flux"] == pytest.approx(6.7483, rel=1e-3)  # 674.83 Jy, 12.5 mag fainter: a factor 10^5
    assert ks["flux_err"] / ks["flux"] == pytest.approx(0.01 * math.log(10) / 2.5, rel=1e-6)


def test_times_are_astropys(tmp_path):
    path = tile(tmp_path)
    tables, parts = extracted(path)
    place = {row["source_id"]: (row["ra"], row["dec"]) for row in tables["sources"].to_pylist()}
    geocentre = EarthLocation.from_geocentric(0, 0, 0, unit=u.m)
    rows = rows_of(parts)[::25]
    time = Time([row["mjd"] for row in rows], format="mjd", scale="utc", location=geocentre)
    sky = SkyCoord([place[row["source_id"]] for row in rows], unit="deg")
    wanted = (time.tdb + time.light_travel_time(sky, ephemeris="builtin")).mjd
    off = np.array([row["bmjd_tdb"] for row in rows]) - wanted
    assert np.abs(off * 86400).max() < 1e-4
    assert 100 < np.ptp(np.array([row["bmjd_tdb"] - row["mjd"] for row in rows]) * 86400) < 1100


# --- the cut


@pytest.mark.parametrize("min_ks", [0, 1, 19, 20, 21, 33, 10_000])
def test_more_ks_detections_than_asked_strictly(tmp_path, min_ks):
    path = tile(tmp_path)
    check(path, min_ks=min_ks)
    with open_tile(path) as opened:
        extraction = Extraction(opened, "g", Selection(min_ks=min_ks))
        kept = int((extraction._ks > min_ks).sum())
        assert int(extraction.kept.sum()) == kept
        assert f"{16 - kept} of 16 sources left out: no more than {min_ks} Ks detections" == extraction.remark


def test_twenty_is_left_out_and_twenty_one_kept(tmp_path):
    path = tile(tmp_path)
    _, sources, _ = expected(path)
    with h5py.File(path) as file:
        ks = file["sourceList/ks_n_detections"][:].tolist()
    by_count = {n: source["left_out"] for n, source in zip(ks, sources, strict=True)}
    assert by_count[20] == "ks_detections_le_min"
    assert by_count[21] is None
    found = extracted(path)[0]["sources"]["left_out"].to_pylist()
    assert found == [None if n > 20 else "ks_detections_le_min" for n in ks]


def test_nothing_is_said_where_nothing_is_left_out(tmp_path):
    with open_tile(tile(tmp_path, few=0)) as opened:
        assert Extraction(opened, "g", Selection(min_ks=5)).remark is None


@pytest.mark.parametrize("bands", [("Ks",), ("J", "H"), ("Z",), ("Ks", "H", "J", "Y", "Z"), ("Ks",) * 5])
def test_bands_that_are_wanted(tmp_path, bands):
    rows, sources, exposures = check(tile(tmp_path), bands=bands)
    assert {row["band"] for row in rows} == set(bands)
    assert len(exposures) == 70
    assert sum(source["left_out"] is not None for source in sources) == 3, "the cut is of Ks, whatever is wanted"


def test_cuts_that_make_no_sense():
    for wrong in ({"bands": ("K",)}, {"bands": ()}, {"min_ks": -1}):
        with pytest.raises(ConfigurationError):
            Selection(**wrong)
    assert Selection().as_parameters() == {"bands": ["H", "J", "Ks", "Y", "Z"], "min_ks": 20}
    assert Selection(bands=("Z", "Ks", "Z")).as_parameters() == {"bands": ["Ks", "Z"], "min_ks": 20}


# --- parts


@settings(derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    read=st.integers(1, 600),
    made=st.integers(1, 600),
    cells=st.integers(1, 1500),
    counted=st.integers(1, 9),
    n=st.integers(0, 9),
    seed=st.integers(0, 50),
    min_ks=st.sampled_from([0, 1, 20, 30]),
    ids=st.sampled_from(["rows", "shuffled"]),
)
def test_rows_do_not_depend_on_the_parts_they_are_made_in(
    monkeypatch, read, made, cells, counted, n, seed, min_ks, ids
):
    with TemporaryDirectory() as folder, monkeypatch.context() as patch:
        path = tile(Path(folder), n_sources=n, seed=seed, catindexid=ids)
        sizes = {"_ROWS_READ": read, "_ROWS_MADE": made, "_CELLS": cells, "_SOURCES_COUNTED": counted}
        for name, size in sizes.items():
            patch.setattr(virac, name, size)
        tables, parts = extracted(path, min_ks=min_ks)
        rows, _, _ = expected(path, min_ks=min_ks)
        assert_same_rows(in_order(rows_of(parts)), rows)
        assert_same_statistics(tables, parts)
        for part in parts:
            found = rows_of([part])
            assert found == in_order(found)


def test_small_limits_make_many_small_parts(tmp_path, monkeypatch):
    path = tile(tmp_path)
    assert len(extracted(path)[1]) == 1
    monkeypatch.setattr(virac, "_ROWS_MADE", 100)
    parts = extracted(path)[1]
    assert len(parts) > 4
    assert max(part.num_rows for part in parts) <= 100
    monkeypatch.setattr(virac, "_CELLS", 70)
    assert len(extracted(path)[1]) == 13  # a part for each source that is kept


def test_light_curves_may_be_asked_for_twice(tmp_path):
    with open_tile(tile(tmp_path)) as opened:
        extraction = Extraction(opened, "g", Selection())
        once = rows_of(list(extraction.lightcurves()))
        assert rows_of(list(extraction.lightcurves())) == once
        ids = extraction.statistics()["statistics"].select(["source_id", "band"]).to_pylist()
        assert len(ids) == len({tuple(one.values()) for one in ids})


# --- tiles with nothing in them


def test_a_tile_without_sources(tmp_path):
    rows, sources, exposures = check(tile(tmp_path, n_sources=0))
    assert (rows, sources, len(exposures)) == ([], [], 70)


def test_a_tile_without_pawprints(tmp_path):
    def none(file):
        for name in file["catIndex"]:
            put(file, f"catIndex/{name}", file["catIndex"][name][:0])
        for name in list(file["timeSeries"]):
            put_ragged(file, name, [[]] * 16, sandbox.SERIES[name])

    for min_ks in (0, 20):
        rows, sources, exposures = check(tile(tmp_path, change=none), min_ks=min_ks)
        assert (rows, len(sources), exposures) == ([], 16, {})
        assert all(source["left_out"] for source in sources)


def test_a_tile_without_detections(tmp_path):
    def none(file):
        for name in set(file["timeSeries"]) - {"catindexidcovered"}:
            put_ragged(file, name, [[]] * 16, sandbox.SERIES[name])

    rows, sources, _ = check(tile(tmp_path, change=none), min_ks=0)
    assert rows == []
    assert all(source["left_out"] for source in sources)


def test_a_tile_of_which_nothing_is_kept_is_staged_with_its_sources(tmp_path):
    staged = stage_of(tile(tmp_path), tmp_path, min_ks=1000)
    assert {file.table: file.rows for file in staged.files} == {"sources": 16, "exposures": 70}
    assert (staged.attempt.n_sources, staged.attempt.n_rows) == (16, 0)


# --- what contradicts itself


def test_sums_that_differ_are_a_rejection(tmp_path, monkeypatch):
    """A source that is lost on the way is noticed."""
    some = Extraction._rows

    def losing(self, sources, ids, counts, arrays):
        n, m = (counts[name][0] for name in ("catindexid", "catindexidcovered"))
        rest = {name: values[m if name == "catindexidcovered" else n :] for name, values in arrays.items()}
        return some(self, sources[1:], ids[1:], {name: values[1:] for name, values in counts.items()}, rest)

    path = tile(tmp_path)
    monkeypatch.setattr(Extraction, "_rows", losing)
    with pytest.raises(GranuleRejected, match=r"\d+ detections and \d+ non-detections were made of \d+ detections in"):
        extracted(path)


def test_a_pawprint_twice_is_noticed_and_would_be_by_the_sums(tmp_path, monkeypatch):
    def twice(name):
        def change(file):
            series, n = file["timeSeries"], best(file)
            for one in series if name == "catindexid" else [name]:
                if (one == "catindexidcovered") == (name == "catindexidcovered"):
                    series[one][n] = np.append(series[one][n], series[one][n][:1])

        return change

    for name in ("catindexid", "catindexidcovered"):
        path = tile(tmp_path, change=twice(name))
        with pytest.raises(GranuleRejected, match=rf"source \d+ has a pawprint twice in {name}$"):
            extracted(path)
        with monkeypatch.context() as patch:
            patch.setattr(Extraction, "_check_once", lambda *_: None)
            with pytest.raises(GranuleRejected, match="non-detections were made of"):
                extracted(path)


@pytest.mark.parametrize("value", [-3, 256, np.nan, 1.5])
def test_types_of_objects_that_do_not_fit_are_unknown_and_counted(tmp_path, value):
    def odd(file, places=slice(1, 2)):
        series, n = file["timeSeries"], best(file)
        put_ragged(file, "objtype", series["objtype"][:], "f8")
        for row in range(len(series["objtype"])) if places == slice(None) else [n]:
            values = series["objtype"][row]
            values[places] = value
            series["objtype"][row] = values

    with open_tile(tile(tmp_path, change=odd)) as opened:
        extraction = Extraction(opened, "g", Selection())
        rows = rows_of(list(extraction.lightcurves()))
        assert extraction.remark.endswith("made NULL: 1")
    (row,) = (row for row in rows if row["detected"] and row["quality"] is None)
    assert row["flux"] is not None
    with pytest.raises(GranuleRejected, match=f"objtype has values that are no type, such as {value}"):
        extracted(tile(tmp_path, change=lambda file: odd(file, slice(None))))


@pytest.mark.parametrize(
    ("name", "value", "column"),
    [
        ("sourceList/uwe", np.inf, "sources.uwe"),
        ("sourceList/ra_error", -1.0, "sources.ra_err"),
        ("sourceList/pmra", np.inf, "sources.pm_ra"),
        ("sourceList/chisq", -1.0, "sources.astfit_chisq"),
        ("catIndex/exptime", -1.0, "exposures.exposure_s"),
        ("catIndex/seeing", np.inf, "exposures.seeing_arcsec"),
    ],
)
def test_one_odd_value_of_a_source_or_pawprint_does_not_cost_a_tile(tmp_path, name, value, column):
    def odd(file):
        values = file[name][:]
        values[3] = value
        file[name][:] = values

    with open_tile(tile(tmp_path, change=odd)) as opened:
        extraction = Extraction(opened, "g", Selection())
        made = attempt("g", archive="virac", release="ts_tables")
        manifest = stage(
            tmp_path / "staged",
            made,
            extraction.tables(),
            BAND_UNITS,
            lightcurves=extraction.lightcurves(),
            afterwards=extraction.statistics,
        )
        assert f" values of {column} taken for missing: 1 (" in extraction.remark
    table, column = column.split(".")
    assert read_parquet(next(Path(manifest.folder).glob(f"{table}-*")))[column].null_count == 1


@pytest.mark.parametrize(
    ("name", "value", "missing"),
    [
        ("hfad_mag", 99.99, ("mag", "flux", "flux_err")),
        ("hfad_mag", -9999.0, ("mag", "flux", "flux_err")),
        ("hfad_mag", np.inf, ("mag", "flux", "flux_err")),
        ("hfad_emag", -1.0, ("mag_err", "flux_err")),
        ("chi", np.inf, ("chi",)),
    ],
)
def test_one_sentinel_does_not_cost_a_tile(tmp_path, name, value, missing):
    def sentinel(file):
        values = file["timeSeries"][name][best(file)]
        values[2] = value
        file["timeSeries"][name][best(file)] = values

    sound = read_parquet(next(Path(stage_of(tile(tmp_path), tmp_path / "sound").folder).glob("lightcurves-*")))
    manifest = stage_of(tile(tmp_path, change=sentinel), tmp_path / "odd")
    odd = read_parquet(next(Path(manifest.folder).glob("lightcurves-*")))
    for column in odd.column_names:
        more = odd[column].null_count - sound[column].null_count
        assert more == (column in missing), column
    (row,) = odd.filter(pc.and_(pc.is_null(odd[missing[0]]), pc.is_valid(odd["quality"]))).to_pylist()
    assert row["detected"] == (name != "hfad_mag")
    assert row["good"] == (name != "hfad_mag")


def test_sentinels_are_counted(tmp_path):
    def sentinels(file):
        values = file["timeSeries"]["hfad_mag"][best(file)]
        values[:3] = 99.99
        file["timeSeries"]["hfad_mag"][best(file)] = values

    with open_tile(tile(tmp_path, change=sentinels)) as opened:
        extraction = Extraction(opened, "virac-1", Selection())
        list(extraction.lightcurves())
        assert extraction.remark.endswith("made NULL: 3")


# --- staged and committed


def stage_of(path: Path, folder: Path, **cut) -> Manifest:
    with open_tile(path) as opened:
        extraction = Extraction(opened, "g", Selection(**cut))
        made = attempt("g", archive="virac", release="ts_tables")
        return stage(
            folder / "staged",
            made,
            extraction.tables(),
            BAND_UNITS,
            lightcurves=extraction.lightcurves(),
            afterwards=extraction.statistics,
        )


def test_what_is_staged_is_what_was_extracted(tmp_path, monkeypatch):
    monkeypatch.setattr(virac, "_ROWS_MADE", 150)
    path = tile(tmp_path)
    manifest = stage_of(path, tmp_path)
    rows, sources, _ = expected(path)
    held = read_parquet(next((tmp_path / "staged").glob("lightcurves-*"))).to_pylist()
    assert_same_rows([{name: row[name] for name in rows[0]} for row in held], rows)
    assert all(row[name] is None for row in held for name in ("counts", "background"))
    assert manifest.attempt.n_rows == len(rows)
    assert manifest.attempt.n_sources == len(sources)
    counts = {file.table: file.rows for file in manifest.files}
    assert counts == {"sources": 16, "exposures": 70, "lightcurves": len(rows), "statistics": counts["statistics"]}


def test_a_tile_is_committed_and_a_repeat_changes_nothing(tmp_path, catalog, lake):
    path = tile(tmp_path)
    rows, _, _ = expected(path)
    first = commit(catalog, stage_of(path, catalog.storage.staging))
    assert (first.n_sources, first.n_rows, first.replaced) == (16, len(rows), 0)
    counts = "SELECT count(*)::INT AS n, count(*) FILTER (detected)::INT AS d, count(flux)::INT AS f FROM lightcurves"
    n_detected = sum(row["detected"] for row in rows)
    assert lake.sql(counts).to_pylist() == [{"n": len(rows), "d": n_detected, "f": n_detected}]
    assert commit(catalog, stage_of(path, catalog.storage.staging)).n_rows == len(rows)
    assert lake.sql(counts).to_pylist() == [{"n": len(rows), "d": n_detected, "f": n_detected}]


def test_a_tile_that_is_rejected_in_the_midst_leaves_no_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr(virac, "_ROWS_MADE", 40)

    def last_is_bad(file):
        file["timeSeries/catindexidcovered"][15] = file["timeSeries/catindexid"][15][1:]

    with pytest.raises(GranuleRejected, match="does not cover it"):
        stage_of(tile(tmp_path, few=0, change=last_is_bad), tmp_path)
    assert Manifest.read(tmp_path / "staged") is None
    assert list((tmp_path / "staged").iterdir()) == []


# --- the defects of the original extractor: specs/virac.md, C.6


@pytest.mark.parametrize("name", ["hfad_emag", "chi", "ast_res_chisq", "ambiguous_match", "catindexidcovered"])
def test_defect_01_an_array_that_is_missing_or_unreadable_loses_no_source_silently(tmp_path, monkeypatch, name):
    path = tile(tmp_path, change=lambda file: file["timeSeries"].__delitem__(name))
    with pytest.raises(GranuleRejected, match=f"timeSeries/{name} is missing"):
        extracted(path)

    class Broken:
        def __getitem__(self, rows):
            raise OSError("Can't synchronously read data (inflate() failed)")

    path = tile(tmp_path)
    with open_tile(path) as opened:
        opened.series[name] = Broken()
        extraction = Extraction(opened, "g", Selection())
        with pytest.raises(GranuleRejected, match=r"it cannot be read: .*inflate\(\) failed"):
            list(extraction.lightcurves())


@pytest.mark.parametrize("kind", ["unequal_lengths", "not_covered", "unknown_catindexid"])
def test_defect_02_one_bad_source_is_enough_to_reject_a_tile(tmp_path, kind):
    path = tile(tmp_path)
    sandbox.BREAKAGES[kind](path)
    with pytest.raises(GranuleRejected):
        extracted(path)


def test_defect_05_numbers_are_kept_to_the_bit(tmp_path):
    path = tile(
        tmp_path,
        few=0,
        change=lambda file: file["catIndex/mjdobs"].write_direct(np.nextafter(file["catIndex/mjdobs"][:], 0)),
    )
    parts = extracted(path)[1]
    with h5py.File(path) as file:
        stored = np.sort(np.concatenate([file["timeSeries/hfad_mag"][n] for n in range(16)]))
        times = set(file["catIndex/mjdobs"][:].tolist())
    mag = pa.chunked_array([column for part in parts for column in part["mag"].chunks]).drop_null().to_numpy()
    assert mag.dtype == np.float32
    assert np.sort(mag).tobytes() == stored.tobytes()
    mjd = {row["mjd"] for row in rows_of(parts)}
    assert mjd <= times
    assert any(round(one, 6) != one for one in mjd)


def test_defect_06_missing_is_null_and_no_text_is_changed(tmp_path):
    path = tile(tmp_path, change=lambda file: put(file, "catIndex/filename", np.array(["banana_nan_st"] * 70, "S20")))
    tables, parts = extracted(path)
    assert {json.loads(one)["filename"] for one in tables["exposures"]["details"].to_pylist()} == {"banana_nan_st"}
    for part in parts:
        for name in ("mag", "flux", "flux_err", "chi"):
            assert part[name].null_count == part.num_rows - part["detected"].to_pylist().count(True)


@pytest.mark.parametrize("filters", ["padded", "str"])
def test_defect_07_padded_and_text_filters_count_the_same(tmp_path, filters):
    plain = lightcurves(tile(tmp_path / "plain"))
    assert lightcurves(tile(tmp_path / "other", filters=filters)) == plain
    assert len(plain) > 300


def test_defect_07_an_unknown_filter_is_not_a_blank_row(tmp_path):
    path = tile(tmp_path)
    sandbox.BREAKAGES["unknown_filter"](path)
    with pytest.raises(GranuleRejected, match="filter 'Nb' is none of H, J, Ks, Y, Z"):
        extracted(path)


def test_defect_08_a_catindexid_is_no_row_number(tmp_path):
    """Ids that are row numbers of other rows: a reader that takes them for row numbers notices nothing."""

    def rolled(file):
        file["catIndex/catindexid"][:] = np.roll(file["catIndex/catindexid"][:], 7)

    path = tile(tmp_path, change=rolled)
    plain = {(row["source_id"], row["exposure_id"]): row["mjd"] for row in lightcurves(tile(tmp_path / "plain"))}
    rows = check(path)[0]
    other = [row for row in rows if plain.get((row["source_id"], row["exposure_id"])) not in (None, row["mjd"])]
    assert len(other) > 300


def test_defect_09_no_column_is_dropped(tmp_path):
    tables, parts = extracted(tile(tmp_path))
    held = {*("cnf_ctr", "diff_fit_ap", "ext", "sky", "x", "y", "chi", "ast_res_chisq"), "quality", "mag", "mag_err"}
    assert held <= set(parts[0].column_names)
    assert {row["quality"] >> 8 for row in rows_of(parts) if row["detected"]} == {1, 7}  # objtype
    astrometry = {"ra", "dec", "pm_ra", "pm_dec", "parallax", "uwe", "astfit_chisq", "astfit_params", "duplicate"}
    assert astrometry <= set(tables["sources"].column_names)
    details = json.loads(tables["exposures"]["details"][0].as_py())
    assert set(details) == {"filename", "tile", "tileloc"}


def test_defect_10_a_non_detection_has_no_limit_that_nobody_measured(tmp_path):
    missed = [row for row in lightcurves(tile(tmp_path)) if not row["detected"]]
    assert missed
    for row in missed:
        assert not row["good"]
        nothing = ("mag", "mag_err", "flux", "flux_err", "quality", "chi", "ast_res_chisq", "x", "y", "sky")
        assert [row[name] for name in nothing] == [None] * len(nothing)
        assert row["exposure_s"] > 0
    assert "no limiting magnitudes" in virac.ORIGIN.corrections


def test_defect_11_a_source_that_is_left_out_is_on_record(tmp_path):
    path = tile(tmp_path)
    tables, parts = extracted(path)
    left = {row["source_id"]: row["left_out"] for row in tables["sources"].to_pylist()}
    kept = {row["source_id"] for row in rows_of(parts)}
    assert {one for one, why in left.items() if why is None} == kept
    assert set(left.values()) == {None, "ks_detections_le_min"}


def test_defect_12_a_tile_is_four_files(tmp_path):
    stage_of(tile(tmp_path), tmp_path)
    assert len(list((tmp_path / "staged").glob("*.parquet"))) == 4


@pytest.mark.parametrize("n_sources", [4, 16, 60])
def test_defect_13_reads_are_of_whole_datasets(tmp_path, n_sources):
    reads: dict[str, int] = {}

    class Counting:
        def __init__(self, name, dataset):
            self.name, self.dataset = name, dataset

        def __getitem__(self, rows):
            reads[self.name] = reads.get(self.name, 0) + 1
            return self.dataset[rows]

    with open_tile(tile(tmp_path, n_sources=n_sources, few=0)) as opened:
        opened.series = {name: Counting(name, dataset) for name, dataset in opened.series.items()}
        assert len(list(Extraction(opened, "g", Selection()).lightcurves())) == 1
    assert reads.pop("catindexid") == 2  # to count, and to extract
    assert set(reads.values()) == {1}
    assert set(reads) == set(sandbox.SERIES) - {"catindexid"}


def test_defect_18_a_tile_is_only_read_and_its_lock_left_on(tmp_path, monkeypatch):
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    path = tile(tmp_path)
    before = path.read_bytes()
    extracted(path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before
    with path.open("r+b") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="unable to lock file"):
            extracted(path)


def test_defect_18_exposures_of_tiles_do_not_share_ids(tmp_path):
    ids = [set(extracted(tile(tmp_path, nside))[0]["exposures"]["exposure_id"].to_pylist()) for nside in PIXELS]
    assert len(set.union(*ids)) == 3 * TINY["n_pawprints"]


def test_defect_19_rows_are_in_order_and_say_whence_they_are(tmp_path):
    rows = lightcurves(tile(tmp_path))
    assert rows == in_order(rows)
    for row in rows:
        assert (row["archive"], row["release"], row["granule"], row["unit"]) == ("virac", "ts_tables", "g", "mJy")
    assert (virac.ORIGIN.time_scale, virac.ORIGIN.time_frame) == ("UTC", "topocentre")


def test_the_tile_class_is_what_open_tile_gives(tmp_path):
    with open_tile(tile(tmp_path)) as opened:
        assert isinstance(opened, Tile)
        assert len(opened) == 16
        assert len(opened.pawprints) == 70


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("values", [[], [1.5], [np.nan], [0.5, np.nan, np.inf, -0.0] * 5])
def test_floats_become_arrow_with_null_for_nan(values, kind):
    made, expected = or_null(np.array(values, kind)), pa.array(np.array(values, kind), from_pandas=True)
    made.validate(full=True)
    assert made.equals(expected)
    assert made.null_count == expected.null_count


def test_values_that_no_measurement_has_are_found_among_missing_ones():
    given = np.array([np.nan, -1.0, 3.0, np.inf], np.float32)
    found, n = without_odd(given, 0.0, np.inf)
    assert n == 2
    assert np.isnan(found).tolist() == [True, True, False, True]
    same, n = without_odd(given[:3], -5.0, 5.0)
    assert n == 0
    assert same is not found
    assert np.isnan(same).tolist() == [True, False, False]
