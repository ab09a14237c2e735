"""The public VIRAC2 over TAP: the same rows as the tiles', answers cut short, NULLs, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from upath import UPath

from deployments.sandbox import virac as sandbox_virac
from deployments.sandbox import virac_tap as eso
from deployments.sandbox.server import Sandbox
from lake.commit.commit import commit
from lake.commit.ledger import Attempt
from lake.commit.staging import Manifest
from lake.commit.validate import validate
from lake.errors import ArchiveError, ConfigurationError, GranuleRejected, TruncatedAnswer
from lake.model.schema import TABLES
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from tasks.services.tap import Service
from tasks.sources.statistics import statistics
from tasks.sources.virac import tap as virac_tap
from tasks.sources.virac import tiles as virac
from tasks.sources.virac.tap import NO_ROWS, ORIGIN, PHOT_FLAG, Range, halves, harvest_range, ranges, stage_range
from tasks.sources.virac.tile import open_tile
from tasks.sources.virac.tiles import LEFT_OUT, Extraction, Selection

PIXEL = 9_000_000
LOW, HIGH = PIXEL * 10**6, PIXEL * 10**6 + 999_999
LC, SOURCES = virac_tap.LIGHTCURVES, virac_tap.SOURCES
OURS = {"release", "granule", "exposure_id", "good", "quality"}
NOT_PUBLIC = {"exposure_s", "x", "y", "sky", "cnf_ctr", "diff_fit_ap", "ext"}

Change = Callable[[dict[str, pa.Table]], None]


@pytest.fixture(scope="module")
def tile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiles") / sandbox_virac.tile_name(1024, PIXEL)
    sandbox_virac.write_tile(
        path,
        nside=1024,
        pixel=PIXEL,
        n_sources=40,
        n_pawprints=130,
        epochs=(60, 90),
        few=0.2,
        seed=5,
        catindexid="shuffled",
        filters="padded",
    )
    return path


@pytest.fixture(scope="module")
def box(tile: Path) -> Iterator[Sandbox]:
    with Sandbox() as box:
        eso.serve(box, [tile])
        yield box


@pytest.fixture
def service(box: Sandbox) -> Iterator[eso.CatalogueService]:
    found = box.services["virac"]
    found.queries.clear()
    yield found
    found.hard_limit = None


@pytest.fixture
def reached(box: Sandbox, service: eso.CatalogueService, tmp_path: Path) -> Settings:
    return load_settings(url=str(tmp_path), endpoints=dict(box.endpoints), timeout_s=10.0)


@pytest.fixture
def changed(tile: Path, tmp_path: Path) -> Iterator[Callable[[Change], Settings]]:
    """A service of its own, whose tables a test has changed."""
    with Sandbox() as own:

        def serve(change: Change) -> Settings:
            tables = eso.tables(tile)
            change(tables)
            own.services["virac"] = eso.CatalogueService(own, "/own", tables)
            return load_settings(url=str(tmp_path), endpoints={"virac": own.services["virac"].url}, timeout_s=10.0)

        yield serve


def of_the_tile(path: Path, cut: Selection | None = None) -> dict[str, pa.Table]:
    with open_tile(path) as tile:
        extraction = Extraction(tile, "tile", cut or Selection())
        schema = TABLES["lightcurves"].arrow
        parts = [TABLES["lightcurves"].cast(part).cast(schema) for part in extraction.lightcurves()]
        return {
            **{name: TABLES[name].cast(table) for name, table in extraction.tables().items()},
            "lightcurves": pa.concat_tables(parts) if parts else schema.empty_table(),
        }


def put(table: pa.Table, name: str, where: Any, value: Any) -> pa.Table:
    """The table with a column changed in the rows of a mask."""
    column = pc.if_else(pa.array(where), pa.scalar(value, table[name].type), table[name])
    return table.set_column(table.column_names.index(name), name, column)


def first_rows(table: pa.Table, n: int = 1) -> np.ndarray:
    return np.arange(table.num_rows) < n


def attempt() -> Attempt:
    return Attempt("virac", "VIRAC2", "-", "done", datetime(2026, 1, 1, tzinfo=UTC))


def staged(
    tmp_path: Path, settings: Settings, cut: Selection | None = None, low: int = LOW, high: int = HIGH
) -> Manifest:
    folder = UPath(tmp_path / "lake" / "staging" / "one")
    return stage_range(low, high, "virac-one", attempt(), folder, settings, cut or Selection())


def read(manifest: Manifest) -> dict[str, pa.Table]:
    return {file.table: pq.read_table(Path(manifest.folder) / file.name) for file in manifest.files}


def asked(service: eso.CatalogueService, table: str) -> list[str]:
    return [query for query in service.queries if f"FROM {table} " in query]


def test_detections_are_those_of_the_tile(tile: Path, reached: Settings) -> None:
    found = harvest_range(LOW, HIGH, reached, Selection())
    theirs = of_the_tile(tile)["lightcurves"]
    theirs = theirs.filter(theirs["detected"])
    assert theirs.num_rows > 2000
    for name in TABLES["lightcurves"].names:
        if name not in OURS | NOT_PUBLIC:
            assert found["lightcurves"][name].equals(theirs[name]), name
    assert all(found["lightcurves"][name].null_count == theirs.num_rows for name in NOT_PUBLIC)
    assert set(pc.unique(found["lightcurves"]["band"]).to_pylist()) == {"Z", "Y", "J", "H", "Ks"}
    validate("virac", "VIRAC2", found, ORIGIN.band_units)
    order = [(name, "ascending") for name in TABLES["lightcurves"].sort]
    assert found["lightcurves"].sort_by(order).equals(found["lightcurves"])


def test_quality_and_good_come_of_the_flags(tile: Path, reached: Settings) -> None:
    rows = harvest_range(LOW, HIGH, reached, Selection())["lightcurves"]
    theirs = of_the_tile(tile)["lightcurves"]
    theirs = theirs.filter(theirs["detected"])
    word = rows["quality"].to_numpy()
    flagged = word & PHOT_FLAG != 0
    assert 0 < flagged.sum() < len(word) / 10
    assert (word & ~PHOT_FLAG == theirs["quality"].to_numpy()).all()
    assert (rows["good"].to_numpy() == theirs["good"].to_numpy() & ~flagged).all()
    public = eso.tables(tile)[f"{eso.PREFIX}LC"]
    columns = (public[name].to_pylist() for name in ("sourceid", "mjdobs", "phot_flag"))
    n_flagged = {(str(number), round(mjd, 8)) for number, mjd, flag in zip(*columns, strict=True) if flag}
    mine = zip(rows["source_id"].to_pylist(), rows["mjd"].to_pylist(), flagged.tolist(), strict=True)
    assert all(((number, round(mjd, 8)) in n_flagged) == flag for number, mjd, flag in mine)


def test_sources_are_those_of_the_tile(tile: Path, reached: Settings) -> None:
    found = harvest_range(LOW, HIGH, reached, Selection())["sources"].sort_by("source_id")
    theirs = of_the_tile(tile)["sources"].sort_by("source_id")
    moving = pc.equal(theirs["astfit_params"], 5)
    assert 0 < pc.sum(moving).as_py() < 40
    for name in (
        "source_id",
        "hpx29",
        "ra",
        "dec",
        "ra_err",
        "dec_err",
        "astfit_chisq",
        "uwe",
        "astfit_params",
        "duplicate",
        "left_out",
    ):
        assert found[name].equals(theirs[name]), name
    for name in ("pm_ra", "pm_dec", "pm_ra_err", "pm_dec_err", "parallax", "parallax_err"):
        assert found[name].equals(pc.if_else(moving, theirs[name], pa.scalar(None, pa.float64()))), name
    assert pc.unique(found["ref_epoch"]).to_pylist() == [2014.0]
    assert pc.unique(found["release"]).to_pylist() == ["VIRAC2"]


def test_exposures_are_what_the_rows_say_of_them(tile: Path, reached: Settings) -> None:
    found = harvest_range(LOW, HIGH, reached, Selection())
    exposures = {row["exposure_id"]: (row["band"], row["mjd_start"]) for row in found["exposures"].to_pylist()}
    rows = zip(*(found["lightcurves"][name].to_pylist() for name in ("exposure_id", "band", "mjd")), strict=True)
    assert {one: (band, mjd) for one, band, mjd in rows} == exposures
    theirs = {(row["band"], row["mjd_start"]) for row in of_the_tile(tile)["exposures"].to_pylist()}
    assert set(exposures.values()) <= theirs
    assert found["exposures"]["exposure_s"].null_count == len(exposures) > 100


def test_statistics_are_those_of_the_rows(reached: Settings) -> None:
    found = harvest_range(LOW, HIGH, reached, Selection())
    expected = statistics(found["lightcurves"])
    for name in TABLES["statistics"].names:
        mine, theirs = found["statistics"][name], expected[name]
        if pa.types.is_floating(mine.type):
            np.testing.assert_allclose(mine.to_numpy(), theirs.to_numpy(), rtol=1e-9, err_msg=name)
        else:
            assert mine.equals(theirs), name


def test_staging_gives_what_harvesting_gives(reached: Settings, tmp_path: Path) -> None:
    manifest = staged(tmp_path, reached)
    found = harvest_range(LOW, HIGH, reached, Selection(), "virac-one")
    for name, table in read(manifest).items():
        order = [(column, "ascending") for column in TABLES[name].key]
        assert table.cast(found[name].schema).sort_by(order).equals(found[name].sort_by(order)), name
    told = manifest.attempt
    assert (told.granule, told.status, told.n_sources, told.endpoint) == (
        "virac-one",
        "done",
        40,
        reached.endpoints["virac"],
    )
    assert told.n_rows == found["lightcurves"].num_rows
    assert told.reason is not None
    assert "sources left out: no more than 20 Ks detections" in told.reason


def test_a_lake_takes_it_and_only_once(reached: Settings, tmp_path: Path, catalog: Catalog) -> None:
    folder = catalog.storage.staging / "one"
    for n_before in (0, 1):
        then = Attempt("virac", "VIRAC2", "-", "done", datetime(2026, 1, 1 + n_before, tzinfo=UTC))
        receipt = commit(catalog, stage_range(LOW, HIGH, "virac-one", then, folder, reached, Selection()))
        assert (receipt.status, receipt.kept) == ("done", 40 * n_before)
    with catalog.cursor() as cursor:
        n, n_sources = cursor.execute("SELECT count(*), count(DISTINCT source_id) FROM lightcurves").fetchall()[0]
        assert n == harvest_range(LOW, HIGH, reached, Selection())["lightcurves"].num_rows
        assert n_sources == cursor.execute("SELECT count(*) FROM sources WHERE left_out IS NULL").fetchall()[0][0]


def test_light_curves_are_asked_for_some_rows_at_a_time(
    service: eso.CatalogueService, reached: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = harvest_range(LOW, HIGH, reached, Selection(), "virac-one")
    service.queries.clear()
    monkeypatch.setattr(virac_tap, "ROWS_ASKED", 300)
    came: list[int] = []
    query = Service.query

    def counted(self: Service, adql: str, **more: Any) -> pa.Table:
        answer = query(self, adql, **more)
        came.append(answer.num_rows)
        return answer

    monkeypatch.setattr(Service, "query", counted)
    manifest = staged(tmp_path, reached)
    assert len(asked(service, SOURCES)) == 1
    assert len(asked(service, LC)) == len(came) - 1 > 6
    assert max(came) <= 300
    for name, table in read(manifest).items():
        order = [(column, "ascending") for column in TABLES[name].key]
        assert table.cast(whole[name].schema).sort_by(order).equals(whole[name].sort_by(order)), name


def test_nothing_is_asked_of_sources_that_are_left_out(service: eso.CatalogueService, reached: Settings) -> None:
    found = harvest_range(LOW, HIGH, reached, Selection(min_ks=1000))
    assert pc.unique(found["sources"]["left_out"]).to_pylist() == [LEFT_OUT]
    assert found["sources"].num_rows == 40
    assert [found[name].num_rows for name in ("lightcurves", "exposures", "statistics")] == [0, 0, 0]
    assert not asked(service, LC)


def test_an_answer_cut_short_is_asked_for_in_halves(
    service: eso.CatalogueService, reached: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(virac_tap, "_SYNC", 10**9)
    whole = harvest_range(LOW, HIGH, reached, Selection())
    service.queries.clear()
    service.hard_limit = 100
    parts = harvest_range(LOW, HIGH, reached, Selection())
    for name, table in parts.items():
        order = [(column, "ascending") for column in TABLES[name].key]
        assert table.sort_by(order).equals(whole[name].sort_by(order)), name
    bounds = [query.rpartition("BETWEEN ")[2].split(" AND ") for query in asked(service, LC)]
    assert any(low == high for low, high in bounds)
    assert len(bounds) > 50


def test_the_list_of_sources_is_asked_for_in_halves(
    service: eso.CatalogueService, reached: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(virac_tap, "_SYNC", 10**9)
    service.hard_limit = 15
    answer = Range(LOW, HIGH, "virac-one", reached, Selection())
    assert len(answer) == 40
    assert len(asked(service, SOURCES)) > 20
    assert not asked(service, LC)


def test_a_single_source_that_is_cut_short_is_an_error(service: eso.CatalogueService, reached: Settings) -> None:
    service.hard_limit = 45  # the list of sources fits
    with pytest.raises(TruncatedAnswer, match="the answer was cut at 45 rows"):
        harvest_range(LOW, HIGH, reached, Selection())
    last = asked(service, LC)[-1].rpartition("BETWEEN ")[2].split(" AND ")
    assert last[0] == last[1]
    service.hard_limit = 0
    with pytest.raises(TruncatedAnswer):
        Range(LOW + 1, LOW + 1, "virac-one", reached, Selection())


def test_halves_are_the_range() -> None:
    assert halves(10, 11) == [(10, 10), (11, 11)]
    (low, middle), (after, high) = halves(LOW, HIGH)
    assert (low, after, high) == (LOW, middle + 1, HIGH)
    with pytest.raises(ValueError, match="cannot be split"):
        halves(5, 5)


@pytest.mark.parametrize("fault", ["error-200", "job-error"])
def test_what_the_service_says_is_told(service: eso.CatalogueService, reached: Settings, fault: str) -> None:
    service.fault(fault)
    with pytest.raises(ArchiveError, match=r"virac: .*the database went away") as caught:
        harvest_range(LOW, HIGH, reached, Selection())
    assert caught.value.transient
    assert caught.value.endpoint == reached.endpoints["virac"]


def test_what_the_service_refuses_is_final(changed: Callable[[Change], Settings]) -> None:
    settings = changed(lambda tables: tables.update({SOURCES: tables[SOURCES].drop_columns(["ks_n_det"])}))
    with pytest.raises(ArchiveError, match="ks_n_det") as caught:
        harvest_range(LOW, HIGH, settings, Selection())
    assert not caught.value.transient


def test_a_fault_in_the_midst_leaves_nothing_to_commit(
    service: eso.CatalogueService, reached: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(virac_tap, "ROWS_ASKED", 1000)
    answers = iter([False, False, True])

    query = Service.query

    def failing(self: Service, *given: Any, **more: Any) -> pa.Table:
        if next(answers):
            service.fault("error-200")
        return query(self, *given, **more)

    monkeypatch.setattr(Service, "query", failing)
    with pytest.raises(ArchiveError, match="went away"):
        staged(tmp_path, reached)
    assert Manifest.read(UPath(tmp_path / "lake" / "staging" / "one")) is None


def test_the_stand_in_has_no_distance(service: eso.CatalogueService) -> None:
    eso_tap = Service("virac", service.url, 5, 20)
    adql = f"SELECT sourceid FROM {SOURCES} WHERE DISTANCE(POINT('ICRS', ra, de), POINT('ICRS', 275, -25)) < 1"
    with pytest.raises(ArchiveError, match="DISTANCE"):
        eso_tap.query(adql, maxrec=10)
    assert eso_tap.query(f"SELECT catid, seeing FROM {eso.PREFIX}OBS", maxrec=1000).num_rows == 130


@pytest.mark.parametrize("min_ks", [0, 1, 20, 21, 40])
def test_min_ks_keeps_what_it_keeps_of_the_tile(tile: Path, reached: Settings, min_ks: int) -> None:
    found, theirs = harvest_range(LOW, HIGH, reached, Selection(min_ks)), of_the_tile(tile, Selection(min_ks))
    kept = pc.unique(found["lightcurves"]["source_id"]).to_pylist()
    assert kept == pc.unique(theirs["lightcurves"]["source_id"]).to_pylist()
    left_out = found["sources"].filter(pc.equal(found["sources"]["left_out"], LEFT_OUT))
    assert 0 < left_out.num_rows == 40 - len(kept)


def test_bands_that_are_not_wanted_are_not_there(tile: Path, reached: Settings) -> None:
    cut = Selection(bands=("J", "Ks"))
    found, theirs = harvest_range(LOW, HIGH, reached, cut), of_the_tile(tile, cut)["lightcurves"]
    assert found["lightcurves"]["mjd"].equals(theirs.filter(theirs["detected"])["mjd"])
    assert set(pc.unique(found["exposures"]["band"]).to_pylist()) == {"J", "Ks"}
    assert NO_ROWS not in found["sources"]["left_out"].to_pylist()


@pytest.mark.parametrize(("low", "high"), [(LOW - 10**6, LOW - 1), (HIGH + 1, HIGH + 1)])
def test_a_range_without_sources_is_empty(
    service: eso.CatalogueService, reached: Settings, tmp_path: Path, low: int, high: int
) -> None:
    manifest = staged(tmp_path, reached, low=low, high=high)
    assert (manifest.attempt.status, manifest.files, manifest.attempt.reason) == ("empty", (), None)
    assert not asked(service, LC)
    assert {table.num_rows for table in harvest_range(low, high, reached, Selection()).values()} == {0}


def test_missing_is_null(changed: Callable[[Change], Settings]) -> None:
    empty = ["mag", "emag", "phot_flag", "ambiguous_match", "ast_res_chisq", "objtype", "catid", "chi"]
    gaps = ["parallax", "pmra", "pmde", "ra_error", "chisq", "uwe", "ref_epoch", "astfit_params", "duplicate"]

    def change(tables: dict[str, pa.Table]) -> None:
        lc, sources = tables[LC], tables[SOURCES]
        for name in gaps:
            sources = put(sources, name, first_rows(sources, 40), None)
        for number, name in enumerate(empty):
            lc = put(lc, name, np.arange(lc.num_rows) % 20 == number, None)
        tables |= {LC: lc, SOURCES: sources}

    found = harvest_range(LOW, HIGH, changed(change), Selection())
    validate("virac", "VIRAC2", found, ORIGIN.band_units)
    for name in (
        "parallax",
        "pm_ra",
        "pm_dec",
        "ra_err",
        "astfit_chisq",
        "uwe",
        "ref_epoch",
        "astfit_params",
        "duplicate",
    ):
        assert found["sources"][name].null_count == 40, name
    rows = found["lightcurves"]
    null = {name: np.array(rows[name].is_null()) for name in rows.column_names}
    few, good = len(rows) / 40, rows["good"].to_numpy()
    for name in ("mag", "mag_err", "chi", "ast_res_chisq", "exposure_id", "flux"):
        assert few < null[name].sum() < 3 * few, name
    assert 3 * few < null["quality"].sum() < 6 * few  # of either flag
    assert (null["flux"] == null["mag"]).all()
    assert (null["flux_err"] == (null["mag"] | null["mag_err"])).all()
    assert not good[null["mag"] | null["ast_res_chisq"] | null["quality"]].any()
    assert good[null["exposure_id"]].any()
    assert good[null["chi"]].any()


def test_counts_that_are_missing_are_looked_for_elsewhere(changed: Callable[[Change], Settings]) -> None:
    def change(tables: dict[str, pa.Table]) -> None:
        sources = tables[SOURCES]
        sources = put(sources, "ks_n_det", first_rows(sources, 40), None)
        tables[SOURCES] = put(sources, "phot_ks_n_epochs", first_rows(sources, 20), None)

    left_out = (
        harvest_range(LOW, HIGH, changed(change), Selection())["sources"].sort_by("source_id")["left_out"].to_pylist()
    )
    assert left_out[:20] == [LEFT_OUT] * 20
    assert left_out[20:].count(None) > 5


def test_a_source_whose_rows_are_lacking_says_so(changed: Callable[[Change], Settings], tmp_path: Path) -> None:
    gone: list[int] = []

    def change(tables: dict[str, pa.Table]) -> None:
        sources = tables[SOURCES]
        gone.append(sources.filter(pc.greater(sources["ks_n_det"], 20))["sourceid"][3].as_py())
        tables[LC] = tables[LC].filter(pc.not_equal(tables[LC]["sourceid"], gone[0]))

    sources = read(staged(tmp_path, changed(change)))["sources"]
    assert sources.filter(pc.equal(sources["left_out"], NO_ROWS))["source_id"].to_pylist() == [str(gone[0])]
    assert sources.num_rows == 40


def without_rows(tables: dict[str, pa.Table]) -> None:
    tables[LC] = tables[LC].slice(0, 0)


def strange_source(tables: dict[str, pa.Table]) -> None:
    inside = tables[SOURCES].filter(pc.greater(tables[SOURCES]["ks_n_det"], 20))["sourceid"][5].as_py()
    tables[SOURCES] = tables[SOURCES].filter(pc.not_equal(tables[SOURCES]["sourceid"], inside))


def two_times(tables: dict[str, pa.Table]) -> None:
    lc, (catid, mjd) = tables[LC], (tables[LC][name][0].as_py() for name in ("catid", "mjdobs"))
    where = np.array(pc.equal(lc["catid"], catid)) & (np.arange(lc.num_rows) > 0)
    tables[LC] = put(lc, "mjdobs", where, mjd + 1)


def texts(tables: dict[str, pa.Table]) -> None:
    lc = tables[LC].drop_columns(["ambiguous_match"])
    tables[LC] = lc.append_column("ambiguous_match", pa.array(["no"] * lc.num_rows))


ALL = 10**9


def value(table: str, name: str, new: Any, n: int = 500) -> Change:
    def change(tables: dict[str, pa.Table]) -> None:
        tables[table] = put(tables[table], name, first_rows(tables[table], n), new)

    return change


_variant = partial(pytest.param, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("change", "lost", "told"),
    [
        (value(LC, "filter", "Nb", 1), (0, 1), "rows of VVVX_VIRAC_V2_LC in no band of H, J, Ks, Y, Z, left out: 1"),
        _variant(value(LC, "filter", None, 1), (0, 1), "in no band of H, J, Ks, Y, Z, left out: 1"),
        (value(LC, "mjdobs", None, 1), (0, 1), "rows of VVVX_VIRAC_V2_LC without a time, left out: 1"),
        _variant(value(LC, "mjdobs", 0.0, 1), (0, 1), "rows of VVVX_VIRAC_V2_LC without a time, left out: 1"),
        (value(LC, "objtype", -1, 1), (0, 0), "made NULL: 1"),
        _variant(value(LC, "mag", 99.99, 1), (0, 0), "made NULL: 1"),
        _variant(value(LC, "emag", -1.0, 1), (0, 0), "made NULL: 1"),
        _variant(value(LC, "ast_res_chisq", -999.0, 1), (0, 0), "made NULL: 1"),
        (value(SOURCES, "uwe", -1.0, 1), (0, 0), "negative values of sources.uwe taken for missing: 1 ("),
        (value(SOURCES, "ref_epoch", 0.0, 1), (0, 0), "impossible values of sources.ref_epoch taken for missing: 1 ("),
    ],
)
def test_one_odd_value_does_not_cost_a_range(
    changed: Callable[[Change], Settings],
    reached: Settings,
    tmp_path: Path,
    change: Change,
    lost: tuple[int, int],
    told: str,
) -> None:
    kept = Selection(min_ks=0)
    sound, odd = (
        staged(tmp_path / name, settings, kept) for name, settings in (("sound", reached), ("odd", changed(change)))
    )
    before, after = read(sound), read(odd)
    assert tuple(before[name].num_rows - after[name].num_rows for name in ("sources", "lightcurves")) == lost
    assert told in str(odd.attempt.reason)
    rows = after["lightcurves"]
    assert rows["detected"].equals(rows["flux"].is_valid())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without_rows, "has no row of any"),
        (strange_source, "which VVVX_VIRAC_V2_SOURCES has not"),
        (two_times, "has several bands or times"),
        (value(LC, "filter", "Nb", ALL), "rows of .* in no band of"),
        (value(LC, "objtype", -1, ALL), "objtype has values that are no type, such as -1"),
        (value(LC, "mjdobs", None, ALL), "rows of .* without a time"),
        (value(SOURCES, "de", None), "40 sources without a place"),
        (value(SOURCES, "de", 91.0), "40 sources without a place"),
        (texts, "column ambiguous_match of the answer is string, not int64"),
    ],
)
def test_what_contradicts_itself_is_rejected(
    changed: Callable[[Change], Settings], tmp_path: Path, change: Change, told: str
) -> None:
    with pytest.raises(GranuleRejected, match=told):
        staged(tmp_path, changed(change))


@pytest.mark.parametrize("nside", [256, 512, 1024])
def test_ranges_have_every_pixel_of_a_tile_once(nside: int) -> None:
    first, last = sandbox_virac.RANGES[nside]
    finest = np.arange(8_000_000, 12_100_000)  # the survey, at nside 1024
    tile_of = hpgeom.angle_to_pixel(nside, *hpgeom.pixel_to_angle(1024, finest, nest=False), nest=False)
    for pixel in (first, (first + last) // 2, last - 1, last):
        found = ranges([(nside, pixel)])
        expected = finest[tile_of == pixel]
        assert len(expected) == (1024 // nside) ** 2
        pixels = [one for low, high in found for one in range(low // 10**6, high // 10**6 + 1)]
        assert pixels == expected.tolist()
        assert all(low % 10**6 == 0 and high % 10**6 == 999_999 for low, high in found)
        assert len(found) == 1 + (np.diff(expected) > 1).sum()


def test_ranges_of_many_tiles_do_not_overlap() -> None:
    inside = int(ranges([(256, 600_003)])[3][0] // 10**6)
    tiles: list[Any] = [PIXEL, (1024, PIXEL), (512, 2_400_001), (256, 600_003), inside, (256, 600_004), (256, 600_003)]
    found = ranges(tiles)
    assert found == sorted(found)
    assert all(high < low for (_, high), (low, _) in pairwise(found))
    n = sum((high + 1 - low) // 10**6 for low, high in found)
    assert n == 1 + 4 + 16 + 16
    assert ranges([]) == []


@pytest.mark.parametrize("tile", [(300, 5), (2048, 5), (0, 0), (256, 12 * 256**2), (1024, -1), 12 * 1024**2])
def test_what_is_no_tile_has_no_ranges(tile: Any) -> None:
    with pytest.raises(ConfigurationError, match="has no RING pixel"):
        ranges([tile])


def test_the_release_is_another_of_the_same_archive(reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ORIGIN.name, ORIGIN.release, ORIGIN.bands) == (virac.NAME, "VIRAC2", virac.ORIGIN.bands)
    assert ORIGIN.public_url == "https://archive.eso.org/tap_cat"
    assert "detected is true in every row" in ORIGIN.row()["notes"]
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__VIRAC", reached.endpoints["virac"])
    assert len(Range(LOW, HIGH, "virac-one", load_settings(), Selection())) == 40
    ids = {
        virac_tap.granule_id(LOW, HIGH, cut)
        for cut in (Selection(), Selection(), Selection(10), Selection(bands=("Ks",)))
    }
    assert len(ids | {virac_tap.granule_id(LOW, HIGH - 1, Selection())}) == 4


def test_the_sandbox_mounts_it(tmp_path: Path) -> None:
    with Sandbox() as own:
        url = eso.mount(own, tmp_path, seed=3, scale=0.001, targets=[(10.0, 10.0)])
        assert own.endpoints["virac"] == url == own.services["virac"].url
        found = harvest_range(LOW, HIGH, load_settings(endpoints=dict(own.endpoints)), Selection())
        assert found["sources"].num_rows == 17
        assert found["lightcurves"].num_rows > 1000
