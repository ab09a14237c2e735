"""Finding observations in xtemaster: the angle on the sphere, slews, rows that were never observed, real rows."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deployments.sandbox.server import Sandbox
from deployments.sandbox.tap import TapService
from lake.errors import ConfigurationError, GranuleRejected, TruncatedAnswer
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from lake.settings import Settings, load_settings
from tasks.sources import heasarc
from tasks.sources.rxte.find import find, read_csv, select
from tasks.sources.rxte.mission import parse_obsid

ETA_CAR = (161.2650, -59.6845)


def targets_at(*places: tuple[float, float]) -> pa.Table:
    ra, dec = (np.array(values, float) for values in zip(*places, strict=True))
    return pa.table({"target_id": np.arange(1, len(places) + 1), "ra": ra, "dec": dec})


def row(obsid: str | None, ra: float, dec: float, **more: Any) -> dict[str, Any]:
    given = {"target_name": "X", "cycle": 9, "prnb": 90001, "time": 53000.5, "exposure": 1000.0, **more}
    return {"obsid": obsid, "ra": ra, "dec": dec, **given}


ROWS = pa.Table.from_pylist(
    [
        # 0.09 deg of declination away; so many degrees of right ascension are 0.05 deg at this declination: the
        # planar sum of the notebook (B.6 item 1) would have it at 0.1 and lose it.
        row("90001-01-01-00", ETA_CAR[0], ETA_CAR[1] + 0.09),
        row("90001-01-02-00", ETA_CAR[0] + 0.15, ETA_CAR[1], time=53001.5),
        row("90001-01-03-00", ETA_CAR[0], ETA_CAR[1] + 0.1004, time=53002.5),  # within what is asked, not the radius
        row("90001-01-02-00A", ETA_CAR[0], ETA_CAR[1], exposure=None, time=53001.4),
        row("90001-01-02-00S", ETA_CAR[0], ETA_CAR[1], exposure=0.0, time=53001.6),
        row(None, *ETA_CAR, time=None, exposure=None),  # accepted, never observed
        row("90001-02-01-00", *ETA_CAR, exposure=None, time=53005.0),
        row("90001-02", *ETA_CAR, time=53006.0),
        row("90001-05-01-00", 359.97, 10.0, time=53007.0),  # across the wrap
        row("90001-06-01-00", 100.0, 89.97, time=53008.0),  # across the pole
        row("00022-06-01-00", 20.0, 20.0, prnb=22, cycle=None, time=50090.0),
        row("00022-07-01-00", 20.0, None, prnb=22, cycle=None, time=50091.0),
    ]
)
TARGETS = targets_at(ETA_CAR, (0.03, 10.0), (280.0, 89.97), (20.0, 20.0), (200.0, 5.0), (161.2660, -59.6850))


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


@pytest.fixture
def tap(box: Sandbox) -> Iterator[TapService]:
    service = TapService(box, "/tap", {"xtemaster": ROWS})
    yield service
    service.close()


@pytest.fixture
def reached(tap: TapService, tmp_path: Path) -> Settings:
    return load_settings(url=str(tmp_path), endpoints={"heasarc": tap.url}, timeout_s=10.0)


def pairs(table: pa.Table) -> list[tuple[int, str | None]]:
    return list(zip(table["target_id"].to_pylist(), table["obsid"].to_pylist(), strict=True))


def test_an_upload_join_finds_what_is_near_on_the_sphere(reached: Settings, tap: TapService) -> None:
    """B.6 item 1: cos(dec), the wrap and the pole; B.6 item 5: each observation once."""
    found = find(TARGETS, reached)
    near = ["90001-01-01-00", "90001-01-02-00A", "90001-01-02-00", "90001-01-02-00S"]
    assert pairs(found.observations) == [
        *((1, obsid) for obsid in near),
        (2, "90001-05-01-00"),
        (3, "90001-06-01-00"),
        (4, "00022-06-01-00"),
        *((6, obsid) for obsid in near),
    ]
    assert len(tap.queries) == 1
    separation = dict(zip(pairs(found.observations), found.observations["separation_arcsec"].to_pylist(), strict=True))
    assert separation[1, "90001-01-01-00"] == pytest.approx(324, abs=1e-6)
    assert separation[1, "90001-01-02-00"] == pytest.approx(0.15 * 3600 * np.cos(np.radians(59.6845)), abs=0.01)
    assert separation[2, "90001-05-01-00"] == pytest.approx(0.06 * 3600 * np.cos(np.radians(10)), abs=0.01)
    assert separation[3, "90001-06-01-00"] == pytest.approx(0.06 * 3600, abs=0.01)


def test_slews_and_scans_are_flagged_and_slews_can_be_left_out(reached: Settings) -> None:
    """B.6 item 13: slews are not mixed in unseen."""
    found = find(TARGETS.slice(0, 1), reached)
    assert found.observations["is_slew"].to_pylist() == [False, True, False, False]
    assert found.observations["is_scan"].to_pylist() == [False, False, False, True]
    assert found.observations["exposure_s"].to_pylist() == [1000, None, 1000, None]
    assert "90001-01-02-00A" not in found.without_slews().observations["obsid"].to_pylist()
    assert found.without_slews().observations.num_rows == 3


def test_what_was_not_observed_is_kept_apart_with_its_reason(reached: Settings) -> None:
    unusable = find(TARGETS.slice(0, 1), reached).unusable
    assert list(zip(unusable["obsid"].to_pylist(), unusable["reason"].to_pylist(), strict=True)) == [
        ("90001-02-01-00", "no exposure"),
        ("90001-02", "not an ObsID"),
        (None, "accepted, not observed"),
    ]


def test_paths_come_from_the_service_and_else_from_the_obsid(reached: Settings) -> None:
    found = find(TARGETS, reached)
    path = dict(zip(found.observations["obsid"].to_pylist(), found.observations["path"].to_pylist(), strict=True))
    assert path["90001-01-01-00"] == "xte/data/archive/AO9/P90001/90001-01-01-00/"
    assert path["00022-06-01-00"] == "xte/data/archive/AO0/P00022/00022-06-01-00/"


def test_matches_fit_the_lake_and_each_observation_is_pulled_once(reached: Settings) -> None:
    found = find(TARGETS, reached)
    matches = found.matches()
    TABLES["matches"].cast(matches)
    of_first = [row for row in matches.to_pylist() if row["target_id"] == 1]
    assert [row["rank"] for row in of_first] == [1, 2, 3, 4]
    separations = [row["separation_arcsec"] for row in of_first]
    assert separations == sorted(separations)
    observations = found.each()
    assert len({one.obsid for one in observations}) == len(observations) == 7
    assert [one.mjd_start for one in observations] == sorted(one.mjd_start for one in observations)
    where = {one.obsid: int(hpx29(one.ra, one.dec)) for one in observations}
    assert all(where[row["source_id"]] == row["hpx29"] for row in matches.to_pylist())


def test_no_target_and_nothing_near_are_answers(reached: Settings) -> None:
    assert find(targets_at((200.0, 5.0)), reached).observations.num_rows == 0
    assert find(targets_at((200.0, 5.0)), reached).matches().num_rows == 0


def test_an_answer_that_is_cut_is_no_answer(
    reached: Settings, tap: TapService, monkeypatch: pytest.MonkeyPatch
) -> None:
    tap.silent_cap = 3
    monkeypatch.setattr(heasarc, "CAP", 3)
    with pytest.raises(TruncatedAnswer):
        find(TARGETS, reached)


@pytest.mark.parametrize("radius", [0.0, -0.1, 6.0, float("nan")])
def test_a_radius_that_makes_no_sense_is_refused(radius: float) -> None:
    with pytest.raises(ConfigurationError, match="radius_deg"):
        select(TARGETS, ROWS, radius_deg=radius)


def test_rows_that_contradict_each_other_are_kept_apart() -> None:
    pair = [row("90001-01-01-00", *ETA_CAR), row("90001-01-01-00", *ETA_CAR, exposure=5.0)]
    found = select(TARGETS.slice(0, 1), pa.Table.from_pylist([*pair, row("90001-01-02-00", *ETA_CAR)]))
    assert found.observations["obsid"].to_pylist() == ["90001-01-02-00"]
    assert found.unusable["reason"].to_pylist() == ["several rows, and they differ"] * 2
    same = pa.Table.from_pylist([row("90001-01-01-00", *ETA_CAR)] * 2)
    assert select(TARGETS.slice(0, 1), same).observations.num_rows == 1
    with pytest.raises(GranuleRejected, match="lack obsid"):
        select(TARGETS, ROWS.drop_columns(["obsid"]))


@pytest.mark.parametrize(
    ("odd", "kept", "reason"),
    [
        ({"ra": np.inf}, 1, None),
        ({"dec": -999.0}, 1, None),
        ({"cycle": np.nan}, 2, None),
        ({"exposure": np.inf}, 2, None),
        ({"time": 0.0}, 1, "not at a time of the mission"),
        ({"time": np.inf}, 1, "not at a time of the mission"),
    ],
)
def test_one_odd_row_takes_no_other_with_it(odd: dict[str, float], kept: int, reason: str | None) -> None:
    rows = [{**row("90001-01-01-00", *ETA_CAR), **odd}, row("90001-01-02-00", *ETA_CAR)]
    found = select(TARGETS.slice(0, 1), pa.Table.from_pylist(rows))
    assert found.observations.num_rows == kept
    assert found.unusable["reason"].to_pylist() == ([reason] if reason else [])
    assert np.isfinite(found.observations["exposure_s"].to_numpy()[-1])


@pytest.mark.parametrize(("name", "n"), [("xtemaster_eta_car_60rows.csv", 59), ("xtemaster_eta_car_5.csv", 18)])
def test_real_rows_of_eta_carinae_give_the_right_paths(data_dir: Path, name: str, n: int) -> None:
    found = select(targets_at(ETA_CAR), read_csv(data_dir / "heasarc" / name))
    assert (found.observations.num_rows, found.unusable.num_rows) == (n, 0)
    for one in found.observations.to_pylist():
        ao = {"1": "1", "93": "12", "94": "13", "96": "15"}[one["prnb"][: 1 if one["prnb"][0] == "1" else 2]]
        assert one["path"] == f"xte/data/archive/AO{ao}/P{one['prnb']}/{one['obsid']}/"
        assert one["separation_arcsec"] < 21
        assert parse_obsid(one["obsid"]).proposal == one["prnb"]
    times = found.observations["mjd_start"].to_pylist()
    assert times == sorted(times)


def test_real_paths_are_those_of_real_datalinks(data_dir: Path) -> None:
    found = select(targets_at(ETA_CAR), read_csv(data_dir / "heasarc" / "xtemaster_eta_car_5.csv"))
    path = dict(zip(found.observations["obsid"].to_pylist(), found.observations["path"].to_pylist(), strict=True))
    compared = set()
    with (data_dir / "heasarc" / "datalink_locate_data_eta_car_7.csv").open() as file:
        for link in csv.DictReader(file):
            name = link["aws"].rstrip("/").rpartition("/")[2]
            if name in path:
                assert link["aws"] == f"s3://nasa-heasarc/{path[name]}"
                compared.add(name)
    assert compared == {"94002-01-15-00", "93002-01-17-00", "93002-02-51-00", "94418-01-01-00"}
