"""Targets that move: every archive has them where they were when it looked, at edges, poles and the RA wrap, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import test_heasarc as heasarcs
import test_panstarrs as panstarrss
import test_wise as wises
import test_ztf as ztfs
from astropy.time import Time
from test_hats import hard_places

from deployments.sandbox import hcv as stand_in
from deployments.sandbox.server import Sandbox
from lake.commit.ledger import Waiting
from lake.commit.targets import add_targets
from lake.model.schema import TABLES
from lake.query import Lake
from lake.science.motion import julian_year
from lake.science.sky import apply_proper_motion, hpx29, separation_arcsec
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from tasks.archives.estimates import plan
from tasks.pull import commit_batch, count_to_ask, fetch_batch, lake_at, plan_batches
from tasks.samples.files import read_targets
from tasks.sources import panstarrs
from tasks.sources.base import FetchResult, Granule
from tasks.sources.hcv import archive as hcv
from tasks.sources.registry import REGISTRY, find

BARNARD = {"pm_ra": -801.551, "pm_dec": 10362.394, "ref_epoch": 2016.0}


def moving(ra: np.ndarray, dec: np.ndarray, pm_ra: np.ndarray, pm_dec: np.ndarray) -> pa.Table:
    """Targets as of 2016."""
    pixel, first = np.unique(hpx29(ra, dec), return_index=True)
    named = {"ra": ra, "dec": dec, "pm_ra": pm_ra, "pm_dec": pm_dec, "ref_epoch": np.full(len(ra), 2016.0)}
    columns = {name: values[first] for name, values in named.items()}
    return TABLES["targets"].cast(pa.table({"target_id": pixel, "hpx29": pixel, **columns}))


def at(targets: pa.Table, row: np.ndarray, year: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ra, dec, pm_ra, pm_dec, epoch = (
        targets[name].to_numpy()[row] for name in ("ra", "dec", "pm_ra", "pm_dec", "ref_epoch")
    )
    return apply_proper_motion(ra, dec, pm_ra, pm_dec, epoch, year)


def mjd(year: np.ndarray) -> np.ndarray:
    return np.asarray(Time(year, format="jyear").mjd)


@pytest.fixture(scope="module")
def stars() -> pa.Table:
    """Stars of up to 10 arcsec a year that cross edges, poles and RA 0; every tenth does not move."""
    random = np.random.default_rng(17)
    ra, dec = hard_places()
    chosen = np.unique(np.concatenate([np.arange(7), random.integers(0, len(ra), 33)]))
    speed = np.where(np.arange(len(chosen)) % 10, 10 ** random.uniform(2, 4, len(chosen)), 0.0)
    angle = random.uniform(0, 2 * np.pi, len(chosen))
    pm_ra, pm_dec = speed * np.cos(angle), speed * np.sin(angle)
    # At the place in question in the middle of what is observed.
    ra, dec = apply_proper_motion(ra[chosen], dec[chosen], pm_ra, pm_dec, 2015.0, 2016.0)
    return moving(ra, dec, pm_ra, pm_dec)


def scene(stars: pa.Table, years: list[float], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources along the stars' paths and their years; of every third, the year is another one, off by up to two."""
    random = np.random.default_rng(seed)
    row = np.repeat(np.arange(stars.num_rows), len(years))
    year = np.tile(np.array(years), stars.num_rows)
    ra, dec = at(stars, row, year)
    dec = np.clip(dec + random.uniform(-0.4, 0.4, len(dec)) / 3600, -90, 90)
    return ra, dec, np.where(np.arange(len(year)) % 3, year, year + random.uniform(-2, 2, len(year)))


def check(
    harvest: FetchResult, stars: pa.Table, ra: np.ndarray, dec: np.ndarray, year: np.ndarray, names: list[str]
) -> None:
    """Compare with all pairs by hand."""
    n = len(ra)
    wanted = {}
    for row, target in enumerate(stars["target_id"].to_pylist()):
        separation = separation_arcsec(*at(stars, np.full(n, row), year), ra, dec)
        near = sorted((separation[s], names[s]) for s in np.flatnonzero(separation <= 1.0))
        wanted |= {(target, name): (distance, rank) for rank, (distance, name) in enumerate(near, 1)}
    got = {(m["target_id"], m["source_id"]): (m["separation_arcsec"], m["rank"]) for m in harvest.matches.to_pylist()}
    assert set(got) == set(wanted)
    assert len({target for target, _ in got}) == stars.num_rows
    for pair, (separation, rank) in wanted.items():
        assert got[pair] == (pytest.approx(separation, abs=1e-4), rank)
    assert set(harvest.sources["source_id"].to_pylist()) == {name for _, name in wanted}, "and no other"
    assert set(harvest.lightcurves["source_id"].to_pylist()) == {name for _, name in wanted}


def test_panstarrs(stars: pa.Table, tmp_path: Path) -> None:
    """By the objects' mean epochs; where there is none, by their detections' times."""
    ra, dec, year = scene(stars, [2010.0, 2012.0, 2014.0], 1)
    ids = np.arange(len(ra)) + 100
    epoch = np.where(ids % 4, mjd(year), -999.0)
    found = panstarrss.objects(ids, ra, dec).append_column("epochMean", pa.array(epoch))
    time = np.where(ids % 4, 55500.0, mjd(year))
    rows = panstarrss.detections(ids, ra, dec, obsTime=time)
    harvest = panstarrss.fetched(panstarrss.catalogues(tmp_path, found, rows), stars)
    check(harvest, stars, ra, dec, year, [str(number) for number in ids])


def test_ztf(stars: pa.Table, tmp_path: Path) -> None:
    ra, dec, year = scene(stars, [2018.5, 2020.0, 2023.0], 2)
    rows = ztfs.objects(ra, dec, np.ones(len(ra)), epochs=1)
    light = [
        [{**epoch, "hmjd": float(time)} for epoch in one]
        for one, time in zip(rows["lightcurve"].to_pylist(), mjd(year), strict=True)
    ]
    rows = rows.set_column(
        rows.column_names.index("lightcurve"), "lightcurve", pa.array(light, rows["lightcurve"].type)
    )
    harvest = ztfs.fetched(ztfs.collection(tmp_path, rows), stars)
    check(harvest, stars, ra, dec, year, [str(number) for number in rows["objectid"].to_pylist()])


def test_wise(tmp_path: Path) -> None:
    """A visit of Barnard's star is a source of its own; a star of 0.5 arcsec a year is one of all visits."""
    slow = {"pm_ra": 0.0, "pm_dec": 500.0}
    stars = moving(
        np.array([45.0, 80.0]), np.array([0.0, -20.0]), *(np.array([BARNARD[name], slow[name]]) for name in slow)
    )
    row, time = np.repeat([0, 1], len(wises.VISITS)), np.tile(wises.VISITS, 2)
    ra, dec = at(stars, row, julian_year(time))
    # One on its way, seen years before; one that stays where it was in 2012, when the two cannot be told apart.
    there = at(stars, np.flatnonzero(stars["pm_dec"].to_numpy() > 1000), julian_year(wises.VISITS[4:5]))
    rows = [wises.detections(ra, dec, time), wises.detections(45.0, 2.5 / 3600, 55400.0)]
    rows = pa.concat_tables([*rows, wises.detections(*there, wises.VISITS)])
    harvest = wises.fetched(wises.dataset(tmp_path, rows), stars)
    matched = harvest.matches["target_id"].to_pylist()
    n = {row["pm_dec"]: matched.count(row["target_id"]) for row in stars.to_pylist()}
    assert n == {BARNARD["pm_dec"]: 16, slow["pm_dec"]: 1}
    assert max(harvest.matches["separation_arcsec"].to_pylist()) < 0.01
    assert (harvest.lightcurves.num_rows, harvest.remark) == (48, None)
    still = stars.set_column(stars.column_names.index("ref_epoch"), "ref_epoch", pa.nulls(2, pa.float64()))
    assert wises.fetched(tmp_path, still).matches.num_rows <= 2


@pytest.fixture(scope="module")
def hubble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(
        tmp_path_factory.mktemp("hcv"), archives=["hcv"], seed=11, scale=0.0, targets=[(40.0, 10.0)]
    ) as box:
        yield box


def test_hcv(hubble: Sandbox) -> None:
    """One that was there when Hubble looked has the source; one that was there at another time has not."""
    service = hubble.services["hcv"]
    number, ra, dec = int(service.ids[0]), float(service.ra[0]), float(service.dec[0])
    seen = julian_year([row["MJD"] for row in stand_in.light_curves(number, 11)])
    free = max(np.arange(1996.0, 2016.0, 0.25), key=lambda year: np.abs(seen - year).min())
    assert np.abs(seen - free).min() > 0.12
    pm = np.array([BARNARD["pm_ra"]] * 2), np.array([BARNARD["pm_dec"]] * 2)
    stars = moving(*apply_proper_motion(ra, dec, *pm, np.array([seen[0], free]), 2016.0), *pm)
    there = int(np.argmin(separation_arcsec(*at(stars, np.arange(2), np.array([seen[0]] * 2)), ra, dec)))
    asked = Granule("hcv", hcv.ARCHIVE.release, hcv.ARCHIVE.with_defaults({}), stars)
    settings = load_settings(endpoints=dict(hubble.endpoints), timeout_s=10.0)
    before = len(hubble.requests)
    harvest = hcv.fetch(asked, settings)
    matches = harvest.matches.to_pylist()
    mine = [match for match in matches if match["source_id"] == str(number)]
    assert [match["target_id"] for match in mine] == [stars["target_id"][there].as_py()]
    assert mine[0]["separation_arcsec"] < 0.01
    assert sum("hcvsummary" in one.path for one in hubble.requests[before:]) == 1
    assert set(harvest.lightcurves["source_id"].to_pylist()) <= {match["source_id"] for match in matches}


def test_heasarc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with a match radius: one that was there when it was detected has the detection, at another time not."""
    table = {**heasarcs.XMM, "table": "xmmssc"}
    monkeypatch.setenv("LIGHTLAKE_TABLES__XMMSSC", json.dumps(table))
    with Sandbox.start(tmp_path, archives=["heasarc"], scale=0.05, targets=[(40.0, 10.0)]) as box:
        rows = heasarcs.rows_in(box, "xmmssc")
        one = next(row for row in rows if None not in (row["ra"], row["dec"], row["time"]))
        year = float(julian_year(one["time"]))
        pm = np.array([BARNARD["pm_ra"]] * 2), np.array([BARNARD["pm_dec"]] * 2)
        places = apply_proper_motion(one["ra"], one["dec"], *pm, np.array([year, year + 3.0]), 2016.0)
        stars = moving(*places, *pm)
        there = int(np.argmin(separation_arcsec(*at(stars, np.arange(2), np.array([year] * 2)), one["ra"], one["dec"])))
        source = find("xmmssc")
        asked = Granule(source.name, source.release, source.with_defaults({}), stars)
        made = source.fetch(asked, load_settings(endpoints=dict(box.endpoints), timeout_s=10.0))
    mine = [match for match in made.matches.to_pylist() if match["source_id"] == str(one["detid"])]
    assert [match["target_id"] for match in mine] == [stars["target_id"][there].as_py()]
    assert mine[0]["separation_arcsec"] < 0.01
    followed = source.followed(source.with_defaults({}))
    assert followed is not None
    assert followed.radius_arcsec == 5.0
    assert find("fermigtrig").followed({}) is None


@pytest.fixture
def settings(tmp_path: Path, lake_place: dict[str, Any], cases_dir: Path) -> Settings:
    """Of a lake that pulls from a mirror with Barnard's star where it was in 2012."""
    endpoints = {"panstarrs": str(cases_dir / "archives" / "pm_panstarrs")}
    return load_settings(**lake_place, cache_dir=tmp_path / "cache", lock_timeout_s=30.0, endpoints=endpoints)


def test_what_was_answered_without_proper_motion_is_due_again(
    catalog: Catalog, lake: Lake, settings: Settings, cases_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Barnard's star is, once; what does not move, moves little, or has no epoch is not."""
    monkeypatch.setenv("LIGHTLAKE_URL", settings.url)
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__PANSTARRS", settings.endpoints["panstarrs"])
    add_targets(catalog, read_targets(cases_dir / "archives" / "pm_targets.csv").targets, "pm")
    # 2009.4 is 6.6 years before 2016: 16 mas/yr are a tenth of the radius.
    others = pa.table(
        {
            "ra": [1.0, 2.0, 3.0, 4.0],
            "dec": [0.0] * 4,
            "name": ["slow", "fast", "no epoch", "still"],
            "pm_ra": [14.0, 16.0, 900.0, None],
            "pm_dec": [0.0, 0.0, 0.0, None],
            "ref_epoch": [2016.0, 2016.0, None, None],
        }
    )
    add_targets(catalog, others, "others")
    given = panstarrs.ARCHIVE.with_defaults(None)

    def pull() -> int:
        batches = list(plan_batches(lake, find("panstarrs"), given, None, tmp_path / "plan"))
        for batch in batches:
            commit_batch(settings.url, fetch_batch(batch))
        return sum(batch.n_targets for batch in batches)

    with monkeypatch.context() as before:
        before.setitem(REGISTRY, "panstarrs", replace(panstarrs.ARCHIVE, span=None))
        assert pull() == 6
    catalog.cursor().execute(
        "UPDATE coverage SET status = 'empty' WHERE target_id = (SELECT target_id FROM targets WHERE name LIKE 'barn%')"
    )
    assert plan(lake, find("panstarrs"), given).waiting == Waiting(0, 2, 0)
    assert (
        count_to_ask(lake, find("panstarrs"), given, None)
        == count_to_ask(lake, find("panstarrs"), given, None, back_off=True)
        == 2
    )
    assert pull() == 2
    assert plan(lake, find("panstarrs"), given).waiting == Waiting(0, 0, 0)
    assert pull() == 0
    rows = lake.sql(
        "SELECT name, status, source_id, separation_arcsec, rank FROM targets JOIN coverage USING (target_id) "
        "LEFT JOIN matches USING (target_id) WHERE status = 'found' ORDER BY name"
    ).to_pylist()
    assert [(row["name"], row["source_id"], row["rank"]) for row in rows] == [
        ("barnard2016", "111", 1),
        ("ctl2012", "111", 1),
    ]
    assert max(row["separation_arcsec"] for row in rows) < 0.1
    lake_at.cache_clear()
