"""Gaia DR3: what is uploaded, which sources are paired with a target, and fetches from a real TAP service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time

from deployments.sandbox.server import Sandbox
from lake.errors import ArchiveError, TruncatedAnswer
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from lake.settings import Settings, load_settings
from tasks.services.tap import to_arrow
from tasks.sources.base import FetchResult, Granule
from tasks.sources.gaia import archive as gaia
from tasks.sources.gaia.archive import adql, pair, positions

PLACES = [(10.0 + 17 * n, -60.0 + 9.7 * n) for n in range(12)]


def targets_at(ra: Any, dec: Any, **more: Any) -> pa.Table:
    ra, dec = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
    pixel = hpx29(ra, dec)
    return TABLES["targets"].cast(pa.table({"target_id": pixel, "ra": ra, "dec": dec, "hpx29": pixel, **more}))


def found(targets: pa.Table, *sources: dict[str, Any]) -> pa.Table:
    """A TAP answer: every source paired with every target, as a coarse query may."""
    rows = [
        {
            "target_id": target,
            "ra_error": 0.1,
            "dec_error": 0.2,
            "pmra": None,
            "pmdec": None,
            "ref_epoch": 2016.0,
            "has_epoch_photometry": True,
            "random_index": 1,
            **source,
        }
        for target in targets["target_id"].to_pylist()
        for source in sources
    ]
    return pa.Table.from_pylist(rows)


def test_all_sources_in_the_radius_are_ranked_by_distance() -> None:
    targets = targets_at([359.9999, 10.0], [0.0, 0.0])
    near = {"source_id": 1, "ra": 0.0001, "dec": 0.0}  # 0.72 arcsec across the wrap
    nearer = {"source_id": 2, "ra": 359.9999, "dec": 0.0001, "has_epoch_photometry": False}
    far = {"source_id": 3, "ra": 0.0003, "dec": 0.0}
    pairs = pair(targets, found(targets, near, nearer, far), 1.0).to_pylist()
    assert [(row["source_id"], row["rank"]) for row in pairs] == [(2, 1), (1, 2)]
    assert pairs[1]["separation_arcsec"] == pytest.approx(0.72, abs=1e-6)


def test_a_targets_own_motion_takes_it_to_gaias_epoch() -> None:
    # Barnard's star, ICRS at J2000.0, by Hipparcos (van Leeuwen 2007) and by Gaia DR3 at 2016.0.
    targets = targets_at(269.45402305, 4.66828815, pm_ra=[-798.58], pm_dec=[10328.12], ref_epoch=[1991.25])
    at_1991 = SkyCoord(269.45402305 * u.deg, 4.66828815 * u.deg)
    moved = SkyCoord(
        269.45402305 * u.deg,
        4.66828815 * u.deg,
        pm_ra_cosdec=-798.58 * u.mas / u.yr,
        pm_dec=10328.12 * u.mas / u.yr,
        obstime=Time(1991.25, format="jyear"),
        distance=1.83 * u.pc,
    ).apply_space_motion(Time(2016.0, format="jyear"))
    upload = positions(targets, 1.0)
    there = SkyCoord(upload["ra"].to_numpy() * u.deg, upload["dec"].to_numpy() * u.deg)
    assert at_1991.separation(there[0]).arcsec == pytest.approx(24.75 * 10.3589, rel=1e-4)
    assert moved.separation(there[0]).arcsec < 0.01
    assert upload["years"].to_pylist() == [0.0]
    assert "DISTANCE" not in adql(upload)
    source = {"source_id": 4472832130942575872, "ra": moved.ra.deg, "dec": moved.dec.deg}
    assert pair(targets, found(targets, source), 1.0)["rank"].to_pylist() == [1]


def test_a_source_is_taken_back_to_the_targets_epoch() -> None:
    """A target of 2000.0 with no motion of its own: the star that was there then is found where it is now."""
    targets = targets_at(180.0, 60.0, ref_epoch=[2000.0])
    upload = positions(targets, 1.0)
    assert upload["years"].to_pylist() == [16.0]
    assert upload["reach_deg"][0].as_py() * 3600 == pytest.approx(1 + 16 * 10.4)
    assert "t.years * SQRT(s.pmra * s.pmra + s.pmdec * s.pmdec)" in adql(upload)
    star = {"source_id": 7, "ra": 180.0, "dec": 60.0 + 16 * 2.0 / 3600, "pmra": 0.0, "pmdec": 2000.0}
    other = {"source_id": 8, "ra": 180.0, "dec": 60.0 + 16 * 2.0 / 3600}
    here = {"source_id": 9, "ra": 180.0, "dec": 60.0, "pmra": 0.0, "pmdec": 2000.0}
    pairs = pair(targets, found(targets, star, other, here), 1.0)
    assert pairs["source_id"].to_pylist() == [7]
    assert pairs["separation_arcsec"][0].as_py() < 1e-3


def test_a_target_without_an_epoch_is_compared_where_it_is() -> None:
    targets = targets_at(180.0, 60.0, pm_ra=[500.0], pm_dec=[500.0])
    upload = positions(targets, 1.0)
    assert (upload["ra"][0].as_py(), upload["dec"][0].as_py()) == (180.0, 60.0)
    here = {"source_id": 9, "ra": 180.0, "dec": 60.0, "pmra": 0.0, "pmdec": 2000.0}
    assert pair(targets, found(targets, here), 1.0)["source_id"].to_pylist() == [9]


def test_a_real_answer_of_the_archive(data_dir: Path) -> None:
    """Two DR3 sources with all columns, as Gaia's TAP service gives them."""
    table = Table.read(data_dir / "gaia" / "1710099405832VAL-result.vot", format="votable")
    names = ["ra", "dec", "ra_error", "dec_error", "pmra", "pmdec", "ref_epoch", "has_epoch_photometry"]
    rows = to_arrow({name: table[name] for name in table.colnames}).select(["source_id", *names])
    targets = targets_at(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    pairs = pair(targets, rows.append_column("target_id", targets["target_id"]), 1.0)
    assert sorted(pairs["source_id"].to_pylist()) == sorted(rows["source_id"].to_pylist())
    assert pairs["source_id"].type == pa.int64()
    assert all(row["separation_arcsec"] < 1e-6 for row in pairs.to_pylist())


# --- with the sandbox's services ---


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("gaia"), archives=["gaia"], scale=0.01, targets=PLACES) as box:
        yield box


@pytest.fixture
def reached(box: Sandbox, tmp_path: Path) -> Settings:
    return load_settings(url=str(tmp_path), endpoints=dict(box.endpoints), timeout_s=10.0)


def granule(targets: pa.Table, **parameters: Any) -> Granule:
    return Granule("gaia", "DR3", gaia.ARCHIVE.with_defaults(parameters), targets)


def rows_of(harvest: FetchResult, name: str, *, less: tuple[str, ...] = ()) -> list[Any]:
    """Rows of a table as the lake would have them."""
    table = TABLES[name].cast(getattr(harvest, name))
    keys = {"sources": ("source_id",), "matches": ("target_id", "rank"), "lightcurves": ("source_id", "band", "mjd")}
    return table.sort_by([(key, "ascending") for key in keys[name]]).drop_columns(list(less)).to_pylist()


def everything(harvest: FetchResult) -> list[Any]:
    return [rows_of(harvest, name) for name in ("sources", "matches", "lightcurves")]


def test_a_fetch_brings_sources_and_their_epochs(reached: Settings) -> None:
    targets = targets_at(*zip(*PLACES, strict=True))
    harvest = gaia.fetch(granule(targets), reached)
    assert set(harvest.matches["target_id"].to_pylist()) == set(targets["target_id"].to_pylist())
    lit = set(harvest.lightcurves["source_id"].to_pylist())
    assert 0 < len(lit) < harvest.sources.num_rows
    assert set(harvest.lightcurves["band"].to_pylist()) == {"G", "BP", "RP"}
    assert harvest.remark is None
    assert max(harvest.matches["separation_arcsec"].to_pylist()) <= 1.0
    many = pa.concat_tables([targets, targets_at(np.linspace(0, 350, 600), np.full(600, 85.0))])
    assert everything(gaia.fetch(granule(many), reached)) == everything(harvest), "asked as a job, it is the same"


@pytest.mark.parametrize("structure", ["INDIVIDUAL", "COMBINED", "DATAMODEL_GAIA", "WIDE"])
def test_every_structure_gives_the_same_light_curves(reached: Settings, structure: str) -> None:
    targets = targets_at(*zip(*PLACES, strict=True))
    one = gaia.fetch(granule(targets), reached)
    other = gaia.fetch(granule(targets, data_structure=structure), reached)
    assert rows_of(one, "lightcurves", less=("quality",)) == rows_of(other, "lightcurves", less=("quality",))


@pytest.mark.parametrize("refusal", [(400, "{} is not supported"), (500, "Invalid Data Structure parameter: {}")])
def test_a_structure_that_the_archive_does_not_have_any_more(
    box: Sandbox, reached: Settings, refusal: tuple[int, str]
) -> None:
    served = box.services["gaia_datalink"]
    before = served.structures, served.refusal
    served.refusal = refusal
    served.structures = {"INDIVIDUAL"}
    try:
        assert gaia.fetch(granule(targets_at(*zip(*PLACES, strict=True))), reached).lightcurves.num_rows
        served.structures = set()
        with pytest.raises(ArchiveError, match=f"HTTP {refusal[0]}"):
            gaia.fetch(granule(targets_at(*zip(*PLACES, strict=True))), reached)
    finally:
        served.structures, served.refusal = before


def test_what_datalink_leaves_out_is_asked_again_and_told(box: Sandbox, reached: Settings) -> None:
    targets = targets_at(*zip(*PLACES, strict=True))
    whole = gaia.fetch(granule(targets), reached)
    lost = min(int(source) for source in whole.lightcurves["source_id"].to_pylist())
    served = box.services["gaia_datalink"]
    served.forget = {lost}
    try:
        harvest = gaia.fetch(granule(targets), reached)
    finally:
        served.forget = set()
    assert harvest.remark == f"DataLink has no epoch photometry of 1 source that should have it: {lost}"
    assert harvest.sources.num_rows == whole.sources.num_rows
    assert str(lost) not in harvest.lightcurves["source_id"].to_pylist()


def test_many_sources_are_asked_in_chunks(box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = targets_at(*zip(*PLACES, strict=True))
    whole = gaia.fetch(granule(targets), reached)
    monkeypatch.setattr(gaia, "DATALINK_IDS", 2)
    before = len(box.requests)
    assert everything(gaia.fetch(granule(targets), reached)) == everything(whole)
    lit = len(set(whole.lightcurves["source_id"].to_pylist()))
    asked = [seen for seen in box.requests[before:] if "/data" in seen.path]
    assert len(asked) == -(-lit // 2)


def test_a_list_of_sources_that_is_cut_is_not_taken(box: Sandbox, reached: Settings) -> None:
    service = box.services["gaia"]
    service.hard_limit = 5
    try:
        with pytest.raises(TruncatedAnswer, match="cut at 5 rows"):
            gaia.fetch(granule(targets_at(*zip(*PLACES, strict=True))), reached)
    finally:
        service.hard_limit = None


def test_nothing_there_is_nothing(reached: Settings) -> None:
    harvest = gaia.fetch(granule(targets_at([1.0], [89.9])), reached)
    assert (harvest.sources.num_rows, harvest.matches.num_rows, harvest.lightcurves.num_rows) == (0, 0, 0)


def test_both_systems_are_declared_with_their_sources() -> None:
    zero = {"G": (3270.0, 0.11368), "BP": (3579.8, 0.01541), "RP": (2615.5, 0.35609)}
    for band in gaia.ARCHIVE.bands:
        jansky, difference = zero[band.band]
        assert band.mag_system == "Vega"
        assert band.zero_point_jy == pytest.approx(jansky, abs=0.5)
        assert band.ab_minus_mag == pytest.approx(difference, abs=1e-5)
        assert "Riello" in str(band.zero_point_source)
        assert "Riello" in str(band.ab_source)
