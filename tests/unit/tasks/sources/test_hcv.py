"""The HCV: what MAST's answers mean, which sources belong to a target, fetches from the stand-in with its faults."""

from __future__ import annotations

import csv
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from deployments.sandbox import hcv as stand_in
from deployments.sandbox.server import Request, Response, Sandbox
from lake.commit.commit import commit
from lake.commit.targets import add_targets
from lake.commit.validate import validate
from lake.errors import ArchiveError, TruncatedAnswer
from lake.model.schema import TABLES
from lake.query import Lake
from lake.science.sky import hpx29
from lake.science.times import to_bmjd_tdb
from lake.settings import Settings, load_settings
from tasks.pull import complete, fetch_granule
from tasks.register import register_archive
from tasks.sources.base import FetchResult, Granule
from tasks.sources.hcv import archive as hcv
from tasks.sources.hcv import pages
from tasks.sources.hcv.archive import ARCHIVE, flag_word, found, harvest
from tasks.sources.hcv.pages import parse

SEED = 11
PLACES = [
    (0.00001, 10.0),
    (359.99999, -35.0),
    (123.0, 89.9999),
    (301.0, -89.99995),
    (77.3582, 5.6931),
    (40.0, 90.0),
] + [((7.0 + 31 * n) % 360, 60 * np.sin(n)) for n in range(14)]
BANDS = {f"{camera}_{name}" for camera, names in hcv.FILTERS.items() for name in names.split()}
URL = "http://hcv.invalid/v3/hcv.json"

# Of the nova in M 87, MatchID 1905457, as MAST's notebook HCV_API_demo shows them.
NOVA = [
    (53767.4197952871, "hst_10543_29_acs_wfc_f606w", 25.327, 25.3267132802993, 0.1305, 0.840648114681244),
    (53768.4190663833, "hst_10543_30_acs_wfc_f606w", 23.9694, 23.9676109802196, 0.0394, 1.04379630088806),
    (53799.4608942058, "hst_10543_c4_acs_wfc_f606w", 25.5895, 25.5908707417737, 0.1602, 0.92981481552124),
]


def targets_at(places: list[tuple[float, float]]) -> pa.Table:
    ra, dec = (np.array(values, float) for values in zip(*places, strict=True))
    pixel = hpx29(ra, dec)
    return TABLES["targets"].cast(pa.table({"target_id": pixel, "ra": ra, "dec": dec, "hpx29": pixel}))


def granule(targets: pa.Table, **parameters: Any) -> Granule:
    return Granule("hcv", ARCHIVE.release, ARCHIVE.with_defaults(parameters), targets)


def source(
    number: int = 1, ra: float = 10.0, dec: float = 20.0, band: str = "ACS_F814W", **more: Any
) -> dict[str, Any]:
    return {
        "matchid": number,
        "filter": band,
        "ra": ra,
        "dec": dec,
        "autoclass": 2,
        "expertclass": 4,
        "filterdetflag": 1,
        "varqualflag": "ABCAA",
        "numlc": 1,
        **more,
    }


def point(number: int = 1, band: str = "ACS_F814W", **more: Any) -> dict[str, Any]:
    return {
        "matchid": number,
        "filter": band,
        "mjd": 53767.5,
        "imagename": "hst_1",
        "mag": 24.0,
        "corrmag": 24.0,
        "magerr": 0.1,
        "ci": 1.1,
        "d": 3.0,
        **more,
    }


def made(summary: list[dict[str, Any]], curves: list[dict[str, Any]], radius: float = 1.0) -> FetchResult:
    sources, matches = found(targets_at([(10.0, 20.0)]), summary, radius, URL)
    return harvest(sources, matches, summary, curves, URL)


def rows_of(result: FetchResult, name: str = "lightcurves") -> list[dict[str, Any]]:
    return TABLES[name].cast(getattr(result, name)).to_pylist()


def answer(rows: list[dict[str, Any]]) -> bytes:
    """Rows as the service gives them."""
    names = list(rows[0])
    return json.dumps(
        {"info": [{"name": name} for name in names], "data": [list(row.values()) for row in rows]}
    ).encode()


# --- what answers mean ---


def test_a_real_answer_of_mast(data_dir: Path) -> None:
    """Mean rows of the Hubble Source Catalog, the only answer of MAST's in JSON that there is here."""
    rows = parse((data_dir / "hst_hcv" / "hsc_mast_api.json").read_bytes(), URL)
    assert len(rows) == 28
    assert (rows[0]["matchid"], rows[0]["matchra"], rows[0]["a_f606w"]) == (82441651, 322.5250849818889, None)
    assert rows[0]["distance"] == pytest.approx(0.009992601723397707)


def test_real_sources_of_the_catalogue(data_dir: Path) -> None:
    with (data_dir / "hst_hcv" / "hcv_summary_ic1613_20rows.csv").open() as file:
        listed = list(csv.DictReader(file))
    rows = parse(answer(listed), URL)
    assert len(rows) == 20
    near = SkyCoord(16.14 * u.deg, 2.1450 * u.deg)
    sources, matches = found(targets_at([(16.14, 2.1450)]), rows, 60.0, URL)
    distances = {
        row["MatchID"]: near.separation(SkyCoord(float(row["RA"]) * u.deg, float(row["Dec"]) * u.deg)).arcsec
        for row in listed
    }
    wanted = sorted((distance, number) for number, distance in distances.items() if distance <= 60)
    assert len(wanted) >= 4
    assert wanted[0][1] != listed[0]["MatchID"], "the first is not the nearest"
    assert matches["source_id"].to_pylist() == [number for _, number in wanted]
    np.testing.assert_allclose(matches["separation_arcsec"], [distance for distance, _ in wanted], atol=1e-6)
    assert matches["rank"].to_pylist() == list(range(1, len(wanted) + 1))
    nothing = harvest(sources, matches, rows, [], URL)
    assert nothing.lightcurves.num_rows == 0
    assert nothing.remark is not None
    assert nothing.remark.startswith(f"sources without a light curve: {len(wanted)} (")


def test_a_real_light_curve() -> None:
    curves = [
        {
            "matchid": 1905457,
            "filter": "ACS_F606W",
            "mjd": mjd,
            "imagename": image,
            "mag": mag,
            "corrmag": corrected,
            "magerr": error,
            "ci": ci,
            "d": 1.0,
        }
        for mjd, image, mag, corrected, error, ci in NOVA
    ]
    rows = rows_of(made([source(1905457, band="ACS_F606W")], curves))
    by_band = {band: [row for row in rows if row["band"] == band] for band in ("ACS_F606W", "ACS_F606W_ap")}
    assert [row["mjd"] for row in by_band["ACS_F606W"]] == [point[0] for point in NOVA]
    for column, band in ((3, "ACS_F606W"), (2, "ACS_F606W_ap")):
        for row, values in zip(by_band[band], NOVA, strict=True):
            wanted = (values[column] * u.ABmag).to_value(u.mJy)
            # The AB system's zero point is 3631 Jy by convention, 3630.78 Jy exactly.
            assert row["flux"] == pytest.approx(wanted, rel=1e-4)
            assert row["flux_err"] == pytest.approx(wanted * values[4] * np.log(10) / 2.5, rel=1e-4)
            assert (row["mag"], row["mag_err"]) == pytest.approx((values[column], values[4]), rel=1e-6)
            assert (row["exposure_id"], row["ext"]) == (values[1], pytest.approx(values[5]))
            assert (row["unit"], row["detected"], row["good"], row["chi"]) == ("mJy", True, True, None)
    assert rows[0]["bmjd_tdb"] == to_bmjd_tdb(NOVA[0][0], 10.0, 20.0, scale="utc", frame="topocentre")


def test_magnitude_24_is_not_a_tenth_of_a_millijansky() -> None:
    """The collector has 0.119 mJy."""
    main, aperture = rows_of(made([source()], [point(mag=25.0)]))
    assert main["flux"] == pytest.approx(9.12e-4, rel=1e-3)
    assert main["flux_err"] == pytest.approx(9.12e-4 * 0.1 / 1.0857, rel=1e-3)
    assert aperture["flux"] == pytest.approx(9.12e-4 / 10**0.4, rel=1e-3)


@given(st.floats(10, 32), st.floats(0, 2))
def test_ab_magnitudes_become_fluxes(mag: float, error: float) -> None:
    row, _ = rows_of(made([source()], [point(corrmag=mag, magerr=error)]))
    assert row["flux"] == pytest.approx(3631e3 * 10 ** (-0.4 * mag), rel=1e-6)
    assert row["flux_err"] == pytest.approx(row["flux"] * error * 0.4 * np.log(10), rel=1e-5, abs=1e-30)
    step = 1e-4
    slope = 3631e3 * (10 ** (-0.4 * (mag - step)) - 10 ** (-0.4 * (mag + step))) / (2 * step)
    assert row["flux_err"] == pytest.approx(slope * error, rel=1e-5, abs=1e-30)


@pytest.mark.parametrize("missing", [None, -999.0, 99.0, 99.99, float("nan")])
def test_what_is_not_known_is_null(missing: float | None) -> None:
    main, aperture = rows_of(made([source()], [point(corrmag=missing, ci=missing)]))
    assert (main["flux"], main["flux_err"], main["mag"], main["mag_err"], main["ext"]) == (None,) * 5
    assert (main["good"], main["detected"], aperture["good"]) == (False, False, True)
    for row in rows_of(made([source()], [point(magerr=missing)])):
        assert (row["flux_err"], row["mag_err"], row["good"]) == (None, None, False)
        assert row["flux"] == pytest.approx(9.12e-4, rel=1e-3)


@pytest.mark.parametrize("missing", [None, -999.0, 2453767.5])
def test_what_has_no_time_is_counted(missing: float | None) -> None:
    result = made([source(numlc=2)], [point(mjd=missing), point()])
    assert result.lightcurves.num_rows == 2
    assert result.remark == "measurements without a time, left out: 1 (" + str(source()["matchid"]) + ")"


def test_flags_are_one_word() -> None:
    assert flag_word(source()) == 2 | 4 << 2 | 1 << 5 | 1 << 6 | 2 << 8 | 3 << 10 | 1 << 12 | 1 << 14
    assert flag_word(source(autoclass=1, expertclass=0, filterdetflag=0, varqualflag="-----")) == 1
    nothing = {"autoclass": None, "expertclass": None, "filterdetflag": None, "varqualflag": None}
    assert flag_word(nothing) is None
    summary = [source(), source(band="ACS_F606W", filterdetflag=0)]
    curves = [point(), point(band="ACS_F606W"), point(band="WFC3_F160W")]
    words = {row["band"]: row["quality"] for row in rows_of(made(summary, curves)) if not row["band"].endswith("_ap")}
    assert words["ACS_F814W"] - words["ACS_F606W"] == 32
    assert words["WFC3_F160W"] is None


def test_every_filter_is_a_band_and_one_that_is_none_is_told() -> None:
    curves = [point(band=name) for name in sorted(BANDS)]
    result = made([source()], curves)
    assert {row["band"] for row in rows_of(result)} == BANDS | {f"{name}_ap" for name in BANDS}
    assert result.remark is None
    odd = made(
        [source()], [point(), point(band="ACS_F999W"), point(band="ACS_F999W", mjd=53768.0), point(band="STIS_CL")]
    )
    assert odd.lightcurves.num_rows == 2
    assert odd.remark == "measurements in filters that have no band, left out: 3 (ACS_F999W, STIS_CL)"


def test_a_source_or_point_that_comes_twice_is_one() -> None:
    summary = [source(), source(), source(band="ACS_F606W")]
    result = made(summary, [point(), point(), point(corrmag=23.0)])
    assert result.sources["source_id"].to_pylist() == result.matches["source_id"].to_pylist() == ["1"]
    assert [round(row["mag"], 3) for row in rows_of(result)] == [24.0, 23.0, 24.0, 24.0]


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        ([source(2, ra=None)], "without an id or a place, left out: 1 (2)"),
        ([source(2, dec=91.0)], "without an id or a place, left out: 1 (2)"),
        ([{**source(), "matchid": None}], "without an id or a place, left out: 1 (None)"),
        ([source(2), source(2, ra=10.0001)], "sources with two positions, rejected: 1 (2)"),
    ],
)
def test_one_odd_source_takes_no_other_with_it(odd: list[dict[str, Any]], told: str) -> None:
    result = made([*odd, source()], [point()])
    assert result.sources["source_id"].to_pylist() == ["1"]
    assert told in str(result.remark)


def test_a_target_of_a_source_with_two_positions_has_no_answer_and_its_neighbours_have() -> None:
    targets = targets_at([(10.0, 20.0), (50.0, 20.0)])
    mine = {row["target_id"] for row in targets.to_pylist() if row["ra"] == 10.0}
    twice, other = [source(2), source(2, ra=10.0001), source(2, ra=None)], source(3, ra=10.00005)
    sources, nothing = found(targets, twice, 1.0, URL)
    assert sources.num_rows == nothing.num_rows == 0
    assert made(twice, []).remark == (
        "rows of the summary without an id or a place, left out: 1 (2); sources with two positions, rejected: 1 (2)"
    )
    assert hcv.unanswered(targets, twice, nothing, 1.0) == mine
    assert hcv.unanswered(targets, [other], nothing, 1.0) == set()
    _, one = found(targets, [*twice, other], 1.0, URL)
    assert hcv.unanswered(targets, twice, one, 1.0) == set()


def test_light_curves_that_are_shorter_than_told_are_named() -> None:
    result = made([source(numlc=3), source(2, numlc=5)], [point()])
    assert result.remark == (
        "sources without a light curve: 1 (2); light curves with less points than their NumLC: 1 (1 ACS_F814W)"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><html><body><h1>Maintenance</h1></body></html>",
        b'{"info": [], "data": [[1, 2',
        b"[]",
        b'{"data": 3}',
        b'{"info": [{"name": "a"}], "data": [[1, 2]]}',
        b'{"info": [{}], "data": [[1]]}',
        b'{"error": "no such table"}',
        b'{"data": [], "paging": [7]}',
        b'{"data": [{"a": 1}], "paging": {"rowsTotal": "all"}}',
    ],
)
def test_what_is_no_answer_is_an_error_that_may_pass(body: bytes) -> None:
    with pytest.raises(ArchiveError) as caught:
        parse(body, URL)
    assert caught.value.transient
    assert URL in str(caught.value)
    assert "LIGHTLAKE_ENDPOINTS__HCV" in str(caught.value)
    assert "<" not in str(caught.value)


def test_nothing_and_a_part_are_told_apart() -> None:
    assert parse(b"", URL) == parse(b'{"info": [{"name": "MatchID"}], "data": []}', URL) == []
    with pytest.raises(TruncatedAnswer, match="1 of 7 rows"):
        parse(b'{"data": [{"a": 1}], "paging": {"rowsTotal": 7}}', URL)


@pytest.mark.parametrize("change", [{"mjd": "soon"}, {"corrmag": [1]}, {"magerr": "-"}])
def test_values_that_are_no_numbers_are_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(ArchiveError, match="rows of table hcv come without"):
        made([source()], [point(**change)])
    lacking = {name: value for name, value in point().items() if name not in change}
    with pytest.raises(ArchiveError, match="rows of table hcv come without"):
        made([source()], [lacking])
    with pytest.raises(ArchiveError, match="rows of table hcvsummary come without"):
        made([{"matchid": 1, "filter": "ACS_F814W"}], [])
    with pytest.raises(ArchiveError, match="rows of table hcvsummary come without"):
        made([source(autoclass="?")], [])
    for nowhere in ({"dec": 91.0}, {"ra": None}, {"ra": float("nan")}, {"dec": "north"}):
        with pytest.raises(ArchiveError, match="rows of table hcvsummary come without"):
            made([source(**nowhere)], [])
    with pytest.raises(ArchiveError, match="answered with source 9, unasked"):
        made([source()], [point(9)])


# --- with the stand-in ---


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    root = tmp_path_factory.mktemp("hcv")
    with Sandbox.start(root, archives=["hcv"], seed=SEED, scale=0.002, targets=PLACES) as box:
        yield box


@pytest.fixture
def box(served: Sandbox) -> Iterator[Sandbox]:
    service = served.services["hcv"]
    yield served
    service.page_rows, service.one_page, service.forget = stand_in.PAGE_ROWS, False, set()
    served._faults.clear()


@pytest.fixture
def reached(box: Sandbox, tmp_path: Path) -> Settings:
    return load_settings(url=str(tmp_path), endpoints=dict(box.endpoints), timeout_s=10.0)


def by_brute_force(box: Sandbox, targets: pa.Table, radius: float) -> list[tuple[int, str, float, int]]:
    service = box.services["hcv"]
    sky = SkyCoord(service.ra * u.deg, service.dec * u.deg)
    wanted = []
    for target in targets.to_pylist():
        distances = SkyCoord(target["ra"] * u.deg, target["dec"] * u.deg).separation(sky).arcsec
        near = [place for place in np.argsort(distances) if distances[place] <= radius]
        wanted += [
            (target["target_id"], str(service.ids[place]), distances[place], rank) for rank, place in enumerate(near, 1)
        ]
    return wanted


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["source_id"], row["band"], row["mjd"]


def test_a_fetch_equals_the_truth(box: Sandbox, reached: Settings) -> None:
    targets = targets_at(PLACES)
    result = hcv.fetch(granule(targets), reached)
    wanted = by_brute_force(box, targets, 1.0)
    got = [
        (row["target_id"], row["source_id"], row["separation_arcsec"], row["rank"])
        for row in rows_of(result, "matches")
    ]
    assert [row[:2] + row[3:] for row in sorted(got)] == [row[:2] + row[3:] for row in sorted(wanted)]
    np.testing.assert_allclose([row[2] for row in sorted(got)], [row[2] for row in sorted(wanted)], atol=1e-6)
    assert {target for target, *_ in got} == set(targets["target_id"].to_pylist()), "at RA 0 and the poles, too"
    assert max(rank for *_, rank in got) >= 2
    place = {str(number): at for at, number in enumerate(box.services["hcv"].ids.tolist())}
    nearest = {target: name for target, name, _, rank in got if rank == 1}
    first = {target: min((place[name], name) for other, name, *_ in got if other == target)[1] for target in nearest}
    assert nearest != first, "nearest first is not as they come"
    for row in rows_of(result, "sources"):
        at = place[row["source_id"]]
        assert (row["ra"], row["dec"]) == (box.services["hcv"].ra[at], box.services["hcv"].dec[at])

    truth = {}
    for row in rows_of(result, "sources"):
        for curve in stand_in.light_curves(int(row["source_id"]), SEED):
            for suffix, column in (("", "CorrMag"), ("_ap", "Mag")):
                known = curve[column] is not None
                flux = 3631e3 * 10 ** (-0.4 * curve[column]) if known else None
                err = flux * curve["MagErr"] * 0.4 * np.log(10) if known and curve["MagErr"] is not None else None
                truth[row["source_id"], curve["Filter"] + suffix, curve["MJD"]] = flux, err, curve["ImageName"]
    lit = rows_of(result)
    assert sorted(map(key, lit)) == sorted(truth)
    for row in lit:
        flux, err, image = truth[key(row)]
        assert row["flux"] == (None if flux is None else pytest.approx(flux, rel=1e-6))
        assert row["flux_err"] == (None if err is None else pytest.approx(err, rel=1e-6))
        assert row["good"] == (err is not None)
        assert (row["exposure_id"], row["quality"] is None) == (image, False)
    assert {row["good"] for row in lit} == {True, False}
    assert result.remark is None


def test_what_is_fetched_may_enter_the_lake(reached: Settings) -> None:
    asked = granule(targets_at(PLACES))
    tables = complete(hcv.fetch(asked, reached), asked, datetime(2026, 1, 1, tzinfo=UTC))
    cast = {name: TABLES[name].cast(table) for name, table in tables.items()}
    validate("hcv", ARCHIVE.release, cast, ARCHIVE.band_units)
    empty = granule(targets_at([(180.0, 45.0)]))
    tables = complete(hcv.fetch(empty, reached), empty, datetime(2026, 1, 1, tzinfo=UTC))
    validate("hcv", ARCHIVE.release, {name: TABLES[name].cast(table) for name, table in tables.items()})
    assert tables["coverage"]["status"].to_pylist() == ["empty"]


def test_a_source_at_the_very_radius(box: Sandbox, reached: Settings) -> None:
    """The service is asked for a little more; what is beyond the radius does not stay."""
    targets = targets_at([PLACES[4]])
    (_, name, distance, _), *_ = by_brute_force(box, targets, 2.0)
    within = hcv.fetch(granule(targets, radius_arcsec=distance + 1e-6), reached)
    assert name in within.sources["source_id"].to_pylist()
    beyond = hcv.fetch(granule(targets, radius_arcsec=distance - 1e-6), reached)
    assert (beyond.sources.num_rows, beyond.lightcurves.num_rows) == (0, 0)
    with pytest.raises(ArchiveError, match="radius_arcsec 1801 is not of 0 to 1800"):
        hcv.fetch(granule(targets, radius_arcsec=1801.0), reached)
    assert hcv.fetch(granule(targets, radius_arcsec=1800.0), reached).sources.num_rows >= 1


def test_requests_are_few_and_as_documented(box: Sandbox, reached: Settings) -> None:
    targets = targets_at([*PLACES[4:7], (180.0, 45.0)])
    before = len(box.requests)
    result = hcv.fetch(granule(targets), reached)
    seen = [one.path for one in box.requests[before:]]
    assert len(seen) == targets.num_rows + result.sources.num_rows
    assert sum(path.startswith("/api/v0.1/hsc/v3/hcvsummary.json?ra=") for path in seen) == targets.num_rows
    for number in result.sources["source_id"].to_pylist():
        assert f"/api/v0.1/hsc/v3/hcv.json?MatchID={number}&pagesize=5000" in seen


def test_pages_are_read_to_the_end(box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = targets_at(PLACES)
    whole = hcv.fetch(granule(targets), reached)
    monkeypatch.setattr(pages, "PAGE_ROWS", 7)
    paged = hcv.fetch(granule(targets), reached)
    assert sorted(map(str, rows_of(paged))) == sorted(map(str, rows_of(whole)))
    assert paged.remark is None


def test_pages_without_an_end_are_truncation(box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = targets_at(PLACES[:3])
    monkeypatch.setattr(pages, "PAGE_ROWS", 1)
    box.services["hcv"].one_page = True
    with pytest.raises(TruncatedAnswer, match="page 2 is page 1 again"):
        hcv.fetch(granule(targets), reached)
    box.services["hcv"].one_page = False
    monkeypatch.setattr(pages, "MOST_PAGES", 3)
    with pytest.raises(TruncatedAnswer, match="no end after 3 rows"):
        hcv.fetch(granule(targets), reached)


def test_sources_without_a_light_curve_stay(box: Sandbox, reached: Settings) -> None:
    targets = targets_at(PLACES)
    whole = hcv.fetch(granule(targets), reached)
    gone = whole.sources["source_id"][0].as_py()
    box.services["hcv"].forget = {int(gone)}
    result = hcv.fetch(granule(targets), reached)
    assert rows_of(result, "matches") == rows_of(whole, "matches")
    assert gone not in result.lightcurves["source_id"].to_pylist()
    assert result.remark == f"sources without a light curve: 1 ({gone})"


def test_what_is_refused_is_final_and_stops_the_batch(box: Sandbox, reached: Settings) -> None:
    targets = targets_at([(1.0 + n, 5.0) for n in range(50)])
    before = len(box.requests)
    box.fault("/api/v0.1/hsc/v3", "status:404", 50)
    with pytest.raises(ArchiveError, match="HTTP 404") as caught:
        hcv.fetch(granule(targets), reached)
    assert not caught.value.transient
    assert "LIGHTLAKE_ENDPOINTS__HCV" in str(caught.value)
    assert len(box.requests) - before < 25, "after a refusal nothing more is asked"


def test_few_requests_at_a_time(tmp_path: Path) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def slow(request: Request) -> Response:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
        return Response(b"")

    with Sandbox() as box:
        box.mount("/hsc/v3", slow)
        settings = load_settings(url=str(tmp_path), endpoints={"hcv": box.url("/hsc/v3/")})
        result = hcv.fetch(granule(targets_at([(1.0 + 2 * n, 5.0) for n in range(30)])), settings)
        assert (result.sources.num_rows, len(box.requests)) == (0, 30)
    assert 1 <= most <= hcv._AT_ONCE


def test_in_a_lake_fornax_has_every_filter_and_no_apertures(
    lake: Lake, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__HCV", box.endpoints["hcv"])
    targets = targets_at(PLACES)
    names = [f"T{number}" for number in range(len(PLACES))]
    add_targets(lake.catalog, targets.select(["ra", "dec"]).append_column("name", pa.array(names)), "agn", label="AGN")
    commit(lake.catalog, fetch_granule(ARCHIVE, granule(targets), lake.storage.staging / "hcv"))
    assert register_archive(lake, ARCHIVE)
    assert not lake.sql("FROM bands WHERE archive = 'hcv'").num_rows - len(ARCHIVE.bands)
    shown = set(lake.sql("SELECT DISTINCT band FROM fornax")["band"].to_pylist())
    assert {"HST_F814W", "WFC3_F160W"} <= shown
    assert not [band for band in shown if band.endswith("_ap")]
    (counts,) = lake.sql(
        """
        SELECT (SELECT count(*) FROM fornax) AS shown,
            count(*) FILTER (good AND NOT ends_with(band, '_ap')) AS good, count(*) AS all
        FROM target_lightcurves
        """
    ).to_pylist()
    assert 0 < counts["shown"] == counts["good"] < counts["all"] / 2
    assert lake.sql("FROM fornax_as_published").num_rows == 0


def test_bands_say_what_they_are() -> None:
    bands = {band.band: band for band in ARCHIVE.bands}
    assert len(bands) == len(ARCHIVE.bands) == 2 * len(BANDS)
    assert {(band.unit, band.mag_system, band.ab_minus_mag) for band in bands.values()} == {("mJy", "AB", 0.0)}
    assert [name for name, band in bands.items() if band.fornax_band] == ["ACS_F814W"]
    wavelengths = {name: bands[name].wavelength_nm for name in ("ACS_F814W", "WFC3_F160W", "WFC3_F098M", "WFC3_F200LP")}
    assert list(wavelengths.values()) == [814.0, 1600.0, 980.0, None]
    assert bands["WFPC2_F1042M_ap"].wavelength_nm == 1042.0
