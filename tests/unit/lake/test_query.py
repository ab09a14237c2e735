"""The same answers by every way of asking."""

import re

import astropy.units as u
import duckdb
import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord
from helpers.granules import attempt, committed, positions, register, rows_of, target_ids

from lake import light_curves
from lake.commit.commit import commit
from lake.commit.staging import stage
from lake.commit.targets import add_targets
from lake.errors import CatalogError, ConfigurationError
from lake.model.schema import TABLES
from lake.science.sky import hpx29, separation_arcsec
from lake.store.connection import extension_file
from lake.upkeep.progress import progress

HOSTILE = ("[red]o'\"<b>\n\x1b[2J'; DROP TABLE labels --", "%_\\?$name \u202e")


def _fill(catalog):
    """Twenty targets, the last without a source."""
    register(catalog, range(20))
    committed(catalog, {**dict.fromkeys(range(19), 1), 4: 2}, "g0", targets=range(20))


@pytest.fixture
def held(prepared, request):
    prepared(_fill)
    return request.getfixturevalue("lake")


def test_by_name_id_and_place_it_is_the_same(held):
    by_name = held.light_curve("T4")
    assert list(zip(*(by_name[c].to_pylist() for c in ("band", "mjd", "flux")), strict=True)) == sorted(rows_of(4, 2))
    assert by_name.column_names == [*TABLES["lightcurves"].names, "rank", "separation_arcsec"]
    ra, dec = positions([4])
    place = SkyCoord(ra[0], dec[0] + 0.5 / 3600, unit="deg").galactic
    for target in (target_ids([4])[0], np.int64(target_ids([4])[0]), place, "t4"):
        assert held.light_curve(target).equals(by_name)


def test_by_archive_band_and_quality(held):
    assert held.light_curve("T4", band="g").num_rows == 3
    assert held.light_curve("T4", archive="ztf").num_rows == 6
    assert held.light_curve("T4", archive="wise").num_rows == 0
    good = held.light_curve("T4", good=True)
    assert 0 < good.num_rows < 6
    assert all(good["good"].to_pylist())


@pytest.mark.parametrize("by_ducklake", [False, True])
def test_some_columns_are_those_of_all(held, monkeypatch, by_ducklake):
    if by_ducklake:  # as if no files were known
        monkeypatch.setattr(light_curves, "files_of", lambda lake: (lake.catalog.cursor_outside(), {}))
    ra, dec = positions([4])
    wanted = ["flux", "separation_arcsec", "mjd"]
    for ask in (
        lambda **how: held.light_curve("T4", **how),
        lambda **how: held.light_curve(["T7", "T4"], good=True, band="g", **how),
        lambda **how: held.cone(ra[0], dec[0], 5, archive="ztf", **how),
        lambda **how: held.cone(["T7", "T4"], radius_arcsec=5, **how),
    ):
        whole = ask()
        assert whole.num_rows
        assert ask(columns=wanted).equals(whole.select(wanted))
        assert ask(columns="mjd").equals(whole.select(["mjd"]))
    assert held.light_curve(["T7", "T4"], columns=["name"]).column_names == ["name"]
    assert held.light_curve("T4", columns=["mjd", "flux"], form="pandas").columns.tolist() == ["mjd", "flux"]


@pytest.mark.parametrize(("column", "near"), [("fluxes", "flux"), ("rank", "ra"), ("name", None)])
def test_an_unknown_column_is_one_line_with_near_ones(held, column, near):
    ra, dec = positions([4])
    with pytest.raises(ConfigurationError, match=f"unknown column '{column}'") as error:
        held.cone(ra[0], dec[0], 5, columns=["mjd", column])
    assert f"did you mean {near}" in str(error.value) if near else "known: " in str(error.value)


def test_a_target_without_sources_has_an_empty_light_curve(held):
    empty = held.light_curve("T19")
    assert empty.num_rows == 0
    assert empty.schema.equals(held.light_curve("T4").schema)


def test_unknown_names_are_errors_with_near_ones(held):
    ra, dec = positions([4])

    def cone(**by):
        return held.cone(ra[0], dec[0], 5, **by)

    for ask, message, hint in (
        (lambda: held.light_curve("T4", archive="zft"), "unknown archive 'zft'", "did you mean ztf"),
        (lambda: held.light_curve("T4", band="ztf_x"), "unknown band 'ztf_x'", "did you mean ztf_"),
        (lambda: held.light_curve("T4", archive="ztf", band="G"), "unknown band 'G' of ztf", "did you mean g"),
        (lambda: held.light_curve("T4", archive=""), "the archive has no name", "leave it out"),
        (lambda: held.light_curve("T19", band="nosuch"), "unknown band 'nosuch'", "known: "),
        (lambda: cone(archive="nosuch"), "unknown archive 'nosuch'", "known: "),
        (lambda: cone(band=" "), "the band has no name", "leave it out"),
        (lambda: held.coverage(archive="nosuch"), "unknown archive 'nosuch'", "known: "),
        (lambda: held.coverage(sample="tset"), "unknown sample 'tset'", "did you mean test"),
        (lambda: held.targets("tset", form="pandas"), "unknown sample 'tset'", "did you mean test"),
        (lambda: held.targets(""), "the sample has no name", "leave it out"),
        (lambda: progress(held, "nosuch"), "unknown archive 'nosuch'", "known: "),
        (lambda: progress(held, "../plans/ztf"), "unknown archive", "did you mean|known: "),
    ):
        with pytest.raises(ConfigurationError, match=message) as error:
            ask()
        assert re.search(hint, error.value.hint)
    # Known ones of which there is nothing here are none: of the lake, and of the program.
    for empty in (
        held.light_curve("T4", archive="wise", form="astropy"),
        held.light_curve("T4", archive="wise", band="W1"),
        held.light_curve("T19", band="g", form="pandas"),
        held.cone(0, 89, 1, archive="ztf"),
        cone(band="W1"),
        held.coverage("virac"),
        held.light_curve("T4", archive="rxte_pca"),
    ):
        assert len(empty) == 0
    assert progress(held, "virac").granules is None


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("T44", "no target is named 'T44'", "did you mean T4"),
        ("Betelgeuse", "no target is named", "FROM targets"),
        (12345, "no target has the id 12345", "FROM targets"),
        (SkyCoord(200, 80, unit="deg"), r"no target within 1 arcsec of 200.000000 \+80.000000", "cone"),
    ],
)
def test_an_unknown_target_is_one_line_with_a_way_on(held, target, message, hint):
    with pytest.raises(ConfigurationError, match=message) as error:
        held.light_curve(target)
    assert hint in error.value.hint


def test_a_name_of_two_targets_asks_which(held):
    register(held.catalog, [30])
    cursor = held.catalog.cursor()
    cursor.execute("UPDATE targets SET name = 'T3' WHERE name = 'T30'")
    with pytest.raises(ConfigurationError, match="2 targets are named 'T3'") as error:
        held.light_curve("T3")
    assert str(target_ids([3])[0]) in error.value.hint


def test_every_name_of_a_target_finds_it(held):
    by_name = held.light_curve("T4")
    ra, dec = positions([4, 5])
    rows = {"ra": [*ra, ra[0]], "dec": [*dec + 0.1 / 3600, dec[0]], "name": [*HOSTILE, "t5"]}
    add_targets(held.catalog, pa.table(rows), "named")
    for name in (HOSTILE[0], HOSTILE[0].upper(), str(target_ids([4])[0]), "t4"):
        assert held.light_curve(name).equals(by_name)
    assert held.target_id(HOSTILE[1]) == target_ids([5])[0]
    assert held.target_id("T5") == target_ids([5])[0]
    assert held.target_id("t5") == target_ids([4])[0]  # as written goes first
    named = {row["name"]: row["other_names"] for row in held.targets().to_pylist()}
    assert (named["T4"], named["T5"], named["T6"]) == ([HOSTILE[0], "t5"], [HOSTILE[1]], [])
    with pytest.raises(ConfigurationError, match="no target is named") as error:
        held.target_id(HOSTILE[0][:-1])
    assert "did you mean" in error.value.hint


def test_a_second_name_that_two_targets_share_asks_which(held):
    ra, dec = positions([6, 7])
    add_targets(held.catalog, pa.table({"ra": ra, "dec": dec, "name": ["Twin", "Twin"]}), "named")
    with pytest.raises(ConfigurationError, match="2 targets are named 'Twin'") as error:
        held.light_curve("Twin")
    for one, right, up in zip(target_ids([6, 7]), ra, dec, strict=True):
        assert f"{one} (at {right:.6f} {up:+.6f})" in error.value.hint


CENTRES = [(123.0, 30.0), (0.0003, -5.0), (359.9997, -5.0), (77.0, 90.0), (200.0, -90.0), (10.0, 89.999)]


@pytest.fixture(scope="module")
def crowded():
    """Sources around places where a cone may go wrong: poles, the RA wrap."""
    generator = np.random.default_rng(5)
    ra, dec = [], []
    for ra0, dec0 in CENTRES:
        offset, angle = generator.uniform(0, 20, 60) / 3600, generator.uniform(0, 360, 60)
        place = SkyCoord(ra0, dec0, unit="deg").directional_offset_by(angle * u.deg, offset * u.deg)
        ra.extend(place.ra.deg)
        dec.extend(place.dec.deg)
    return np.array(ra) % 360, np.array(dec)


@pytest.fixture
def crowded_lake(lake, crowded):
    ra, dec = crowded
    n, pixels = len(ra), hpx29(*crowded)
    same = {
        "archive": ["ztf"] * n,
        "release": ["DR1"] * n,
        "granule": ["g"] * n,
        "source_id": [f"s{i}" for i in range(n)],
        "hpx29": pixels,
    }
    made = {
        "sources": pa.table({**same, "ra": ra, "dec": dec}),
        "lightcurves": pa.table(
            {
                **same,
                "band": ["g"] * n,
                "mjd": [58000.0] * n,
                "flux": np.arange(n, dtype=float),
                "detected": [True] * n,
                "good": [True] * n,
            }
        ),
    }
    commit(lake.catalog, stage(lake.storage.staging / "g", attempt("g"), made))
    return lake


def test_a_cone_is_what_brute_force_finds(crowded_lake, crowded):
    ra, dec = crowded
    for ra0, dec0 in CENTRES:
        for radius in (0.5, 10.0, 40.0):
            distance = separation_arcsec(ra0, dec0, ra, dec)
            wanted = {f"s{i}" for i in np.flatnonzero(distance <= radius)}
            found = crowded_lake.cone(ra0, dec0, radius)
            assert set(found["source_id"].to_pylist()) == wanted, (ra0, dec0, radius)
            assert found.num_rows == len(wanted)
            by_macro = crowded_lake.sql("SELECT source_id FROM cone(?, ?, ?)", [ra0, dec0, radius])
            assert set(by_macro["source_id"].to_pylist()) == wanted
            rows = [int(source[1:]) for source in found["source_id"].to_pylist()]
            np.testing.assert_allclose(found["separation_arcsec"].to_numpy(), distance[rows], atol=1e-6)


def test_a_stock_client_sees_the_same(held):
    ra, dec = positions([4])
    questions = (
        "SELECT * EXCLUDE (wavelength_nm) FROM target_lightcurves WHERE name = 'T4' ORDER BY band, mjd",
        f"SELECT source_id, band, mjd, flux FROM cone({ra[0]}, {dec[0]}, 5) ORDER BY ALL",
        f"SELECT * FROM targets_in_cone({ra[0]}, {dec[0]}, 1000)",
        f"SELECT source_id FROM sources_in_cone({ra[0]}, {dec[0]}, 1000)",
        "SELECT * FROM fornax ORDER BY ALL",
        "SELECT count(*) FROM fornax_as_published",
        "SELECT separation_arcsec(0, 0, 0, 1)",
    )
    mine = [held.sql(question).to_pylist() for question in questions]
    snippet = held.attach_snippet()
    held.close()
    names = {"ducklake": "ducklake", "sqlite": "sqlite_scanner", "httpfs": "httpfs"}
    with duckdb.connect() as client:
        client.execute("SET TimeZone = 'UTC'")
        for line in snippet.splitlines():
            if line.startswith("INSTALL"):  # as it would, with the file of the wheel
                client.execute(f"LOAD '{extension_file(names[line.split()[1].rstrip(';')])}'")
            else:
                client.execute(line)
        theirs = [client.execute(question).to_arrow_table().to_pylist() for question in questions]
    assert theirs == mine
    assert [len(answer) for answer in mine][:2] == [6, 6]
    assert mine[-1] == [{"separation_arcsec(0, 0, 0, 1)": pytest.approx(3600)}]


def test_targets_and_coverage_by_sample(held):
    register(held.catalog, [0, 40], "other")
    listed = held.targets("other").to_pylist()
    assert [row["name"] for row in listed] == ["T0", "T40"]
    assert sorted(listed[0]["samples"]) == ["other", "test"]
    assert held.targets().num_rows == 21
    assert held.coverage().num_rows == 20
    assert held.coverage("ztf", "other")["status"].to_pylist() == ["found"]


def test_wrong_sql_and_a_file_that_is_gone(held, on_disk):
    with pytest.raises(ConfigurationError, match="the SQL failed"):
        held.sql("SELECT nothing FROM nowhere")
    for path in held.storage.table_files("lightcurves"):
        path.unlink()
    for ask in (lambda: held.sql("FROM lightcurves"), lambda: held.light_curve("T4")):
        with pytest.raises(CatalogError, match="cannot be read") as error:
            ask()
        assert "lightlake verify" in error.value.hint
