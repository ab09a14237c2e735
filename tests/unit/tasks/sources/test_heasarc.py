"""HEASARC's tables: who an event belongs to, what is stored of it, and tables that a user adds."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from deployments.sandbox.server import Sandbox
from deployments.sandbox.tap import TapService
from lake.errors import ArchiveError, ConfigurationError, GranuleRejected, TruncatedAnswer
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from lake.settings import Settings, load_settings
from tasks.sources import heasarc
from tasks.sources.base import Archive, FetchResult, Granule
from tasks.sources.heasarc import FERMIGTRIG, ICECUBEPSC, SAXGRBMGRB, archive, harvest
from tasks.sources.hst_timetag import tables as hst_timetag
from tasks.sources.registry import SURVEYS, expand, find, known
from tasks.sources.rxte import cut as rxte_cut
from tasks.sources.rxte import mission as rxte
from tasks.sources.virac import tap as virac_tap
from tasks.sources.virac import tiles as virac

PLACES = [((3.0 + 41 * n) % 360, -80.0 + 11.0 * n) for n in range(15)]

# A few lines of configuration: one more table, of X-ray detections, with a fixed radius.
XMM = {
    "table": "xmmssc",
    "band": "XMM_EP_8",
    "id_columns": ["detid"],
    "error_unit": "arcsec",
    "radius_arcsec": 5.0,
    "error_column": None,
    "value_column": "ep_8_flux",
    "value_err_column": "ep_8_flux_error",
    "unit": "erg.cm**-2.s**-1",
}


def targets_at(places: list[tuple[float, float]]) -> pa.Table:
    ra, dec = (np.array(values, float) for values in zip(*places, strict=True))
    pixel = hpx29(ra, dec)
    return TABLES["targets"].cast(pa.table({"target_id": pixel, "ra": ra, "dec": dec, "hpx29": pixel}))


def granule(source: Archive, targets: pa.Table, **parameters: Any) -> Granule:
    return Granule(source.name, source.release, source.with_defaults(parameters), targets)


def pairs(harvest: FetchResult) -> set[tuple[int, str]]:
    return set(zip(harvest.matches["target_id"].to_pylist(), harvest.matches["source_id"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("heasarc"), archives=["heasarc"], scale=0.05, targets=PLACES) as box:
        yield box


@pytest.fixture
def reached(box: Sandbox, tmp_path: Path) -> Settings:
    heasarc._count_without_position.cache_clear()
    return load_settings(url=str(tmp_path), endpoints=dict(box.endpoints), timeout_s=10.0, tables={"xmmssc": XMM})


def rows_in(box: Sandbox, table: str) -> list[dict[str, Any]]:
    """The whole table, as the service has it."""
    return box.services["heasarc"]._db.cursor().execute(f"FROM {table}").to_arrow_table().to_pylist()


def by_brute_force(targets: pa.Table, rows: list[dict[str, Any]], keep: Any) -> set[tuple[int, int]]:
    """Pairs of a target and a row's number, by astropy."""
    placed = [(number, row) for number, row in enumerate(rows) if row["ra"] is not None]
    events = SkyCoord([row["ra"] for _, row in placed] * u.deg, [row["dec"] for _, row in placed] * u.deg)
    found = set()
    for target in targets.to_pylist():
        distances = SkyCoord(target["ra"] * u.deg, target["dec"] * u.deg).separation(events).deg
        for (number, row), distance in zip(placed, distances, strict=True):
            if keep(row, distance):
                found.add((target["target_id"], number))
    return found


def test_triggers_belong_to_the_targets_in_their_error_circle(box: Sandbox, reached: Settings) -> None:
    targets = targets_at(PLACES)
    for table, limit in ((FERMIGTRIG, 1.0), (SAXGRBMGRB, 3.0)):
        made = heasarc.fetch(table, granule(archive(table), targets), reached)
        rows = rows_in(box, table.table)
        wanted = by_brute_force(
            targets,
            rows,
            lambda row, distance, limit=limit: row["error_radius"] < limit and distance <= row["error_radius"],
        )
        assert pairs(made) == {(target, rows[number]["name"]) for target, number in wanted}
        assert len(set(made.sources["source_id"].to_pylist())) == made.sources.num_rows == made.lightcurves.num_rows
        by_name = {row["name"]: row for row in rows}
        for source in made.sources.to_pylist():
            row = by_name[source["source_id"]]
            assert (source["ra"], source["dec"]) == (row["ra"], row["dec"])
            assert source["position_err_arcsec"] == pytest.approx(row["error_radius"] * 3600)


def test_a_trigger_has_no_flux_and_a_burst_its_own_fluence(box: Sandbox, reached: Settings) -> None:
    targets = targets_at(PLACES)
    triggers = heasarc.fetch(FERMIGTRIG, granule(archive(FERMIGTRIG), targets, max_error_radius_deg=20.0), reached)
    assert triggers.lightcurves.num_rows
    curves = TABLES["lightcurves"].cast(triggers.lightcurves)
    assert curves["flux"].null_count == curves["flux_err"].null_count == curves["unit"].null_count == curves.num_rows
    bursts = heasarc.fetch(SAXGRBMGRB, granule(archive(SAXGRBMGRB), targets), reached)
    fluence = {row["name"]: row["fluence"] for row in rows_in(box, "saxgrbmgrb")}
    for row in TABLES["lightcurves"].cast(bursts.lightcurves).to_pylist():
        wanted = fluence[row["source_id"]]
        assert row["flux"] == (None if wanted is None else pytest.approx(wanted, rel=1e-6))
        assert row["unit"] == "erg.cm**-2"


def test_rows_without_a_position_match_nothing_and_are_counted(box: Sandbox, reached: Settings) -> None:
    without = sum(row["ra"] is None or row["dec"] is None for row in rows_in(box, "saxgrbmgrb"))
    assert without
    made = heasarc.fetch(SAXGRBMGRB, granule(archive(SAXGRBMGRB), targets_at(PLACES)), reached)
    assert made.remark == f"{without} events of saxgrbmgrb have no position and match nothing"
    assert heasarc.fetch(FERMIGTRIG, granule(archive(FERMIGTRIG), targets_at(PLACES)), reached).remark is None


def test_neutrinos_within_both_radii(box: Sandbox, reached: Settings) -> None:
    targets = targets_at(PLACES)
    made = heasarc.fetch(ICECUBEPSC, granule(archive(ICECUBEPSC), targets), reached)
    rows = rows_in(box, "icecubepsc")
    wanted = by_brute_force(targets, rows, lambda row, distance: distance <= 2.0 and distance < row["error_radius"])
    assert len(pairs(made)) == len(wanted) > 20
    energy = {row["time"]: row["event_energy"] for row in rows}
    for row in made.lightcurves.to_pylist():
        assert row["flux"] == energy[row["mjd"]]
        assert row["source_id"].startswith(f"{row['mjd']!r}/")


def test_a_table_is_added_by_a_few_lines(box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLAKE_TABLES__XMMSSC", json.dumps(XMM))
    source = find("xmmssc")
    assert "xmmssc" in expand(["heasarc"])
    assert (source.radius_arcsec, source.title) == (5.0, "HEASARC table xmmssc")
    targets = targets_at(PLACES)
    made = source.fetch(granule(source, targets), reached)
    rows = rows_in(box, "xmmssc")
    wanted = by_brute_force(targets, rows, lambda row, distance: distance <= 5 / 3600)
    assert pairs(made) == {(target, str(rows[number]["detid"])) for target, number in wanted}
    flux = {str(row["detid"]): row["ep_8_flux"] for row in rows}
    for row in TABLES["lightcurves"].cast(made.lightcurves).to_pylist():
        wanted_flux = flux[row["source_id"]]
        assert row["flux"] == (None if wanted_flux is None else pytest.approx(wanted_flux, rel=1e-6))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"error_column": None}, "error_column or radius_arcsec must say"),
        ({"value_column": "flux"}, "value_column and unit go together"),
        ({"table": "a; DROP TABLE b"}, "table: String should match"),
        ({"radius_arcsec": -1}, "radius_arcsec: Input should be greater than 0"),
    ],
)
def test_a_table_that_is_described_wrongly(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"LIGHTLAKE_TABLES__MINE: {told}"):
        heasarc.configured(load_settings(tables={"mine": given}))


def test_a_key_that_is_misspelt() -> None:
    with pytest.raises(ConfigurationError) as caught:
        heasarc.configured(load_settings(tables={"mine": {"error_colum": None}}))
    assert "'error_colum' in LIGHTLAKE_TABLES__MINE" in caught.value.message
    assert "error_column" in (caught.value.hint or "").split("?")[0]


def test_a_column_that_the_service_does_not_have(
    box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLAKE_TABLES__XMMSSC", json.dumps({**XMM, "value_column": "ep_9_flux"}))
    source = find("xmmssc")
    with pytest.raises(ArchiveError) as caught:
        source.fetch(granule(source, targets_at(PLACES[:2])), reached)
    assert '"ep_9_flux"' in caught.value.message
    assert caught.value.hint == "check LIGHTLAKE_ENDPOINTS__HEASARC"


@pytest.mark.parametrize("name", ["gaia", "fermigtrig", "heasarc", "virac", "rxte_pca"])
def test_a_name_that_is_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable, value in (
        (f"LIGHTLAKE_TABLES__{name.upper()}", "{}"),
        ("LIGHTLAKE_TABLES__A", f'{{"name": "{name}"}}'),
    ):
        monkeypatch.setenv(variable, value)
        with pytest.raises(ConfigurationError, match="has that name already"):
            known()
        monkeypatch.delenv(variable)
    monkeypatch.setenv("LIGHTLAKE_TABLES", '{"a": {"name": "c"}, "b": {"name": "c"}}')
    with pytest.raises(ConfigurationError, match=r"LIGHTLAKE_TABLES__C: .*has that name already"):
        known()
    names = {one.archive for survey in SURVEYS.values() for one in survey.declarations}
    assert {one.ORIGIN.name for one in (hst_timetag, rxte, virac, virac_tap)} | {rxte_cut.NAME} == names


def test_a_service_stands_for_all_its_archives() -> None:
    assert expand(["heasarc", "gaia", "fermigtrig"]) == ["fermigtrig", "icecubepsc", "saxgrbmgrb", "gaia"]
    assert expand(None) == sorted(known())
    with pytest.raises(ConfigurationError, match="unknown archive 'heasark'"):
        expand(["heasark"])


def test_the_silent_cap_is_known(box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heasarc, "CAP", 10)
    service = box.services["heasarc"]
    service.silent_cap = 10
    try:
        with pytest.raises(TruncatedAnswer, match="cut at 10 rows"):
            heasarc.fetch(ICECUBEPSC, granule(archive(ICECUBEPSC), targets_at(PLACES)), reached)
    finally:
        service.silent_cap = None


def test_an_id_that_stands_for_two_events_is_refused() -> None:
    targets = targets_at(PLACES[:1])
    rows = [
        {
            "target_id": targets["target_id"][0].as_py(),
            "name": "GRB 1",
            "ra": PLACES[0][0],
            "dec": PLACES[0][1],
            "time": 50000.0 + n,
            "error_radius": 1.0,
            "fluence": None,
        }
        for n in range(2)
    ]
    with pytest.raises(GranuleRejected, match="1 ids of saxgrbmgrb stand for several events, such as GRB 1"):
        harvest(SAXGRBMGRB, targets, pa.Table.from_pylist(rows))
    assert harvest(SAXGRBMGRB, targets, pa.Table.from_pylist(rows[:1] * 2)).sources.num_rows == 1


def test_the_real_saxgrbmgrb(data_dir: Path, tmp_path: Path) -> None:
    """The catalogue's own rows, with an error radius made up where there is a position: the export has none."""
    with (data_dir / "heasarc" / "saxgrbmgrb.csv").open() as file:
        rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
    placed = [row for row in rows if row["ra"] and row["dec"]]
    table = pa.table(
        {
            "name": [row["name"] for row in rows],
            **{
                name: pa.array([row[name] and float(row[name]) for row in rows], pa.float64())
                for name in ("ra", "dec", "time", "fluence")
            },
            "error_radius": pa.array([2.0 if row["ra"] else None for row in rows], pa.float64()),
        }
    )
    targets = targets_at([(float(row["ra"] or 0), float(row["dec"] or 0)) for row in placed[:40]])
    with Sandbox() as box:
        service = TapService(box, "/tap", {"saxgrbmgrb": table})
        settings = load_settings(url=str(tmp_path), endpoints={"heasarc": service.url})
        heasarc._count_without_position.cache_clear()
        made = heasarc.fetch(SAXGRBMGRB, granule(archive(SAXGRBMGRB), targets), settings)
        service.close()
    assert (len(rows), len(rows) - len(placed)) == (541, 123)
    assert made.remark == "123 events of saxgrbmgrb have no position and match nothing"
    assert {row["name"] for row in placed[:40]} <= set(made.sources["source_id"].to_pylist())
    mjd = {row["name"]: float(row["time"] or 0) for row in rows}
    for row in made.lightcurves.to_pylist():
        assert row["mjd"] == mjd[row["source_id"]]
        assert abs(row["bmjd_tdb"] - row["mjd"]) < 600 / 86400
