"""Exposures of COS and STIS at MAST: what is found, what is left out, pages, and answers that are no good."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from deployments.sandbox.hst import API, COLUMNS, MOST_ROWS, Service
from deployments.sandbox.hst_datasets import Dataset, association, special
from deployments.sandbox.server import Request, Response, Sandbox
from lake.errors import ArchiveError, ConfigurationError, TruncatedAnswer
from lake.science.sky import apply_proper_motion
from lake.settings import Settings, load_settings
from tasks.sources.hst_timetag import find, missions
from tasks.sources.hst_timetag.find import EXPOSURES, FILES, Found, named, near, products, since, url_of

HERE, WRAPPED, POLE = (77.3582, -5.6931), (0.00001, 10.0), (123.0, 89.9999)
SEED, SCALE = 5, 0.02
SPECIAL = special(seed=SEED, length_s=40.0)
LONG_AGO = datetime(1990, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    root = tmp_path_factory.mktemp("hst_find")
    with Sandbox.start(root, archives=["hst"], seed=SEED, scale=SCALE, targets=[HERE, WRAPPED, POLE]) as box:
        yield box


@pytest.fixture
def box(served: Sandbox) -> Iterator[Sandbox]:
    service: Service = served.services["hst"]
    datasets = dict(service.datasets)
    yield served
    service.datasets = datasets
    service.by_exposure, service.lower_suffixes, service.most_rows, service.lost_rows = False, False, MOST_ROWS, 0
    service.asked.clear()
    served._faults.clear()


@pytest.fixture
def service(box: Sandbox) -> Service:
    served: Service = box.services["hst"]
    return served


@pytest.fixture
def reached(box: Sandbox, tmp_path: Path) -> Settings:
    return load_settings(url=str(tmp_path), endpoints=dict(box.endpoints), timeout_s=10.0)


def targets(*places: tuple[float, ...]) -> pa.Table:
    """Targets at places, with proper motion (mas/yr) and epoch if there are five values."""
    values = [(*place, None, None, None)[:5] for place in places]
    names = ("ra", "dec", "pm_ra", "pm_dec", "ref_epoch")
    columns = {name: pa.array([row[n] for row in values], pa.float64()) for n, name in enumerate(names)}
    return pa.table({"target_id": pa.array(range(100, 100 + len(values)), pa.int64()), **columns})


def ids(found: Found) -> list[str]:
    names: list[str] = found.exposures["exposure_id"].to_pylist()
    return names


def names_of(*datasets: Dataset) -> list[str]:
    return sorted(dataset.name for dataset in datasets)


def searches(service: Service) -> list[dict[str, Any]]:
    return [asked for what, asked in service.asked if what == "search"]


# --- what is found ---


def test_near_positions_at_the_wrap_and_at_the_pole(reached: Settings, service: Service) -> None:
    found = near(targets(HERE, (359.99999, 10.0), (303.0, 89.9999), (200.0, 0.0)), reached, radius_arcsec=2.0)
    assert found.exposures.schema == EXPOSURES
    first, second, third, *_ = service.datasets.values()
    assert ids(found) == names_of(first, second, third)
    assert sorted(
        zip(found.matches["target_id"].to_pylist(), found.matches["exposure_id"].to_pylist(), strict=True)
    ) == [(100, first.name), (101, second.name), (102, third.name)]
    assert max(found.matches["separation_arcsec"].to_pylist()) < 2
    assert len(searches(service)) == 4
    assert near(targets((HERE[0], HERE[1] + 3 / 3600)), reached, radius_arcsec=2.0).exposures.num_rows == 0
    assert near(targets((HERE[0], HERE[1] + 3 / 3600)), reached).exposures.num_rows == 1


def test_what_an_exposure_is_known_by(reached: Settings, service: Service) -> None:
    (row,) = near(targets(HERE), reached).exposures.to_pylist()
    dataset = next(iter(service.datasets.values()))
    exposure = dataset.exposures[0]
    assert row == {
        "exposure_id": dataset.name,
        "association": dataset.name,
        "target_name": exposure.target,
        "instrument": "COS",
        "detector": "FUV",
        "grating": "G130M",
        "cenwave": 1291,
        "aperture": "PSA",
        "obstype": "SPECTROSCOPIC",
        "ra": HERE[0],
        "dec": HERE[1],
        "mjd_start": pytest.approx(exposure.start_mjd, abs=1e-9),
        "exposure_s": pytest.approx(sum(one.exposure_s for one in dataset.exposures)),
        "expflag": "NORMAL",
        "proposal": exposure.proposal,
        "released_at": dataset.released,
        "generated_at": dataset.generated,
        "is_moving": False,
    }


def test_images_have_no_central_wavelength(reached: Settings, service: Service) -> None:
    service.add(association(900, "cos_image", ra=33.0, dec=33.0, target="PICTURED"))
    (row,) = named(["pictured"], reached).exposures.to_pylist()
    assert (row["obstype"], row["cenwave"], row["grating"]) == ("IMAGING", 0, "MIRRORA")


def test_proper_motion_is_followed(reached: Settings, service: Service) -> None:
    # Barnard's star moves 10.4 arcsec a year: in 2015 it was 155 arcsec from where it was in 2000.
    star = (269.45, 4.69, -802.8, 10_362.5, 2000.0)
    ra, dec = (float(value) for value in apply_proper_motion(*star, 2015.0))
    mjd = 51_544.5 + 15 * 365.25
    there = service.add(association(901, "cos_nuv", n=1, ra=ra, dec=dec, target="BARNARD"))
    service.add(replace(there, exposures=(replace(there.exposures[0], start_mjd=mjd),)))
    # What lies where the star was only at another time.
    other = service.add(association(902, "cos_nuv", n=1, ra=star[0], dec=star[1], target="ANOTHER"))
    service.add(replace(other, exposures=(replace(other.exposures[0], start_mjd=mjd),)))
    found = near(targets(star), reached)
    assert ids(found) == [there.name]
    assert found.matches["separation_arcsec"][0].as_py() < 0.1
    assert ids(near(targets(star[:2]), reached)) == [other.name]


def test_only_public_science_in_time_tag_mode(reached: Settings, service: Service) -> None:
    found = since(LONG_AGO, reached)
    expected = [
        one
        for one in service.datasets.values()
        if one.name not in names_of(*(SPECIAL[what] for what in ("proprietary", "calibration", "dark", "accum")))
    ]
    assert ids(found) == names_of(*expected)
    (asked,) = searches(service)
    conditions = {name: value for one in asked["conditions"] for name, value in one.items()}
    assert conditions["sci_operating_mode"] == "*TIME*TAG*"
    assert conditions["sci_targname"] == "!DARK,!BIAS,!DEUTERIUM,!WAVE,!ANY,!NONE"
    assert asked["sort_by"] == ["sci_data_set_name"]
    for what in ("proprietary", "calibration", "dark", "accum"):
        at = SPECIAL[what].exposures[0]
        assert near(targets((at.ra, at.dec)), reached).exposures.num_rows == 0


def test_rows_that_the_service_should_not_have_sent_are_left_out(
    reached: Settings, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.sandbox.hst._fulfils", lambda value, condition: True)
    found = since(LONG_AGO, reached)
    assert names_of(SPECIAL["proprietary"])[0] not in ids(found)
    assert set(found.remarks) == {
        "exposures for calibration, left out: 2",
        "exposures of another instrument or mode, left out: 1",
        "exposures that are not public, left out: 1",
    }


def test_moving_targets_are_found_by_name_and_marked(reached: Settings) -> None:
    moving = SPECIAL["moving"]
    place = (moving.exposures[0].ra, moving.exposures[0].dec)
    by_place = near(targets(place), reached)
    assert by_place.exposures.num_rows == by_place.matches.num_rows == 0
    assert by_place.remarks == ("exposures of moving targets, which are found by name only, left out: 1",)
    for name in ("JUPITER-NORTH-3", "jupiter north 3", "jupiter*"):
        found = named([name], reached)
        assert ids(found) == [moving.name]
        assert found.exposures["is_moving"].to_pylist() == [True]
    assert moving.name in ids(since(LONG_AGO, reached))


def test_names_that_are_none(reached: Settings, service: Service) -> None:
    assert named([" ", ""], reached).exposures.num_rows == 0
    assert service.asked == []
    assert ids(named(["WAVE", "DARK"], reached)) == []
    for wrong in ("A,B", "!A", ">A", "A..B"):
        with pytest.raises(ConfigurationError, match="not the name of a target"):
            named([wrong], reached)


def test_what_became_public_or_was_made_since(reached: Settings, service: Service) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    dataset = service.add(replace(SPECIAL["flare"], released=now - timedelta(hours=1)))
    assert ids(since(now - timedelta(hours=2), reached)) == [dataset.name]
    assert ids(since(now - timedelta(hours=1), reached)) == [dataset.name], "the same second counts"
    assert ids(since(now - timedelta(minutes=30), reached)) == [], "though it is the same day"
    later = replace(SPECIAL["flare"], released=now + timedelta(hours=1))
    service.add(later)
    assert ids(since(now - timedelta(hours=2), reached)) == [], "not yet"
    service.add(replace(SPECIAL["gaps"], generated=now - timedelta(minutes=5)))
    made = since(now - timedelta(minutes=10), reached, what="generated")
    assert ids(made) == names_of(SPECIAL["gaps"])


def test_a_radius_that_makes_no_sense(reached: Settings) -> None:
    for radius in (0.0, -1.0, 4000.0, float("nan")):
        with pytest.raises(ConfigurationError, match="radius"):
            near(targets(HERE), reached, radius_arcsec=radius)


# --- pages ---


def test_all_pages_are_read(reached: Settings, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = since(LONG_AGO, reached)
    service.asked.clear()
    monkeypatch.setattr(missions, "PAGE_ROWS", 4)
    assert since(LONG_AGO, reached).exposures == whole.exposures
    asked = searches(service)
    assert len(asked) == -(-whole.exposures.num_rows // 4)
    assert [one["offset"] for one in asked] == list(range(0, 4 * len(asked), 4))
    assert [what for what, _ in service.asked].count("column_list") == 1


def test_an_answer_that_is_cut_at_a_limit_is_read_on(reached: Settings, service: Service) -> None:
    whole = since(LONG_AGO, reached)
    service.most_rows = 3
    assert since(LONG_AGO, reached).exposures == whole.exposures


def test_exactly_as_many_rows_as_a_page_has(
    reached: Settings, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = since(LONG_AGO, reached)
    monkeypatch.setattr(missions, "PAGE_ROWS", whole.exposures.num_rows)
    service.asked.clear()
    assert since(LONG_AGO, reached).exposures == whole.exposures
    assert len(searches(service)) == 1


def test_rows_that_do_not_come_are_missed(reached: Settings, service: Service) -> None:
    service.lost_rows = 2
    with pytest.raises(TruncatedAnswer, match=r"(\d+) rows came of (\d+)"):
        since(LONG_AGO, reached)


def test_more_rows_than_are_read(reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missions, "MOST_ROWS", 5)
    with pytest.raises(TruncatedAnswer, match="more than the 5"):
        since(LONG_AGO, reached)


# --- files ---


def test_files_of_exposures_by_suffix(reached: Settings, service: Service) -> None:
    found = near(targets(HERE), reached)
    listed = products(found.exposures, reached)
    assert (listed.exposures.schema, listed.files.schema) == (EXPOSURES, FILES)
    dataset = next(iter(service.datasets.values()))
    roots = [one.rootname for one in dataset.exposures]
    assert listed.exposures["exposure_id"].to_pylist() == sorted(roots)
    assert set(listed.exposures["association"].to_pylist()) == {dataset.name}
    assert listed.files["filename"].to_pylist() == sorted(
        f"{root}_{suffix}.fits" for root in roots for suffix in ("corrtag_a", "corrtag_b", "x1d")
    )
    assert "X1DSUM" not in listed.files["suffix"].to_pylist()
    # Of two exposures under one name MAST says only when the first began, and how long both are.
    assert listed.exposures["mjd_start"].null_count == listed.exposures["exposure_s"].null_count == 2
    for row in listed.files.to_pylist():
        reply = httpx.get(url_of(row["uri"], reached))
        assert len(reply.content) == row["bytes"]
        assert row["product_key"] == f"{dataset.name.upper()}_{row['filename']}"


def test_suffixes_in_any_case(reached: Settings, service: Service) -> None:
    found = near(targets(HERE), reached)
    whole = products(found.exposures, reached)
    service.lower_suffixes = True
    assert products(found.exposures, reached, ["corrtag_a", "Corrtag_B", "x1d"]).files == whole.files
    assert set(products(found.exposures, reached, ["CORRTAG_B"]).files["suffix"].to_pylist()) == {"CORRTAG_B"}


@pytest.mark.parametrize(
    ("setup", "segments", "expected"),
    [
        ("cos_fuv", "A", ["corrtag_a", "x1d"]),
        ("cos_fuv", "B", ["corrtag_b", "x1d"]),
        ("cos_nuv", "AB", ["corrtag", "x1d"]),
        ("cos_image", "AB", ["corrtag"]),
    ],
)
def test_segments_stripes_and_images(
    setup: str, segments: str, expected: list[str], reached: Settings, service: Service
) -> None:
    dataset = service.add(association(910, setup, n=1, segments=segments, target="ONE-OF-THESE", ra=44.0))
    listed = products(named(["ONE-OF-THESE"], reached).exposures, reached)
    root = dataset.exposures[0].rootname
    assert listed.files["filename"].to_pylist() == [f"{root}_{suffix}.fits" for suffix in expected]
    (row,) = listed.exposures.to_pylist()
    assert row["exposure_id"] == root
    assert row["mjd_start"] == pytest.approx(dataset.exposures[0].start_mjd), "the only one of its association"
    assert row["exposure_s"] == pytest.approx(400)


def test_stis_names_files_by_association(reached: Settings, service: Service) -> None:
    dataset = service.add(association(911, "stis_echelle", n=3, target="ECHELLE-STAR", ra=44.0))
    listed = products(named(["ECHELLE-STAR"], reached).exposures, reached)
    assert listed.files["filename"].to_pylist() == [f"{dataset.name}_tag.fits", f"{dataset.name}_x1d.fits"]
    (row,) = listed.exposures.to_pylist()
    assert (row["exposure_id"], row["association"]) == (dataset.name, dataset.name)
    service.by_exposure = True
    members = named(["ECHELLE-STAR"], reached).exposures
    assert members["exposure_id"].to_pylist() == [one.rootname for one in dataset.exposures]
    again = products(members, reached)
    assert again.files["filename"] == listed.files["filename"], "each once"
    assert again.exposures["exposure_id"].to_pylist() == again.exposures["association"].to_pylist() == [dataset.name]


def test_exposures_that_are_listed_by_themselves(reached: Settings, service: Service) -> None:
    whole = products(named(["SANDBOX-WAVECALS"], reached).exposures, reached)
    lamp = SPECIAL["wavecals"].exposures[-1].rootname
    assert lamp in whole.exposures["exposure_id"].to_pylist(), "what is in an association only its files tell"
    service.by_exposure = True
    found = named(["SANDBOX-WAVECALS"], reached)
    single = products(found.exposures, reached)
    roots = sorted(one.rootname for one in SPECIAL["wavecals"].science)
    assert ids(found) == roots
    assert single.exposures == found.exposures, "with their own times"
    assert single.exposures["mjd_start"].null_count == 0
    kept = pa.array([name != lamp for name in whole.files["exposure_id"].to_pylist()])
    assert single.files["filename"] == whole.files.filter(kept)["filename"]


def test_an_association_and_its_members_are_one(reached: Settings, service: Service) -> None:
    dataset = SPECIAL["flare"]
    member = association(5001, n=1, target="SANDBOX-FLARE", ra=151.0, dec=20.0, length_s=40.0, seed=SEED).exposures[0]
    assert member.rootname == dataset.exposures[0].rootname
    alone = {**dict(zip(EXPOSURES.names, [None] * 18, strict=True)), "exposure_id": member.rootname, "exposure_s": 40.0}
    tables = [named(["SANDBOX-FLARE"], reached).exposures, pa.Table.from_pylist([alone], EXPOSURES)]
    for both in (tables, tables[::-1]):
        listed = products(pa.concat_tables(both), reached)
        assert listed.exposures["exposure_id"].to_pylist() == sorted(one.rootname for one in dataset.exposures)
        assert listed.exposures["exposure_s"].to_pylist() == [40.0, None], "of the one that is known by itself"
        assert len(set(listed.files["filename"].to_pylist())) == listed.files.num_rows == 6


def test_products_are_asked_for_in_parts(reached: Settings, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    found = since(LONG_AGO, reached)
    whole = products(found.exposures, reached)
    assert whole.exposures.num_rows > found.exposures.num_rows
    service.asked.clear()
    monkeypatch.setattr(missions, "DATASETS", 4)
    assert products(found.exposures, reached).files == whole.files
    assert len(service.asked) == -(-found.exposures.num_rows // 4)


def test_products_that_are_not_to_be_had(reached: Settings, service: Service) -> None:
    found = near(targets(HERE), reached)
    (name, dataset), *_ = service.datasets.items()
    service.add(replace(dataset, released=None))
    listed = products(found.exposures, reached)
    assert listed.files.num_rows == listed.exposures.num_rows == 0
    assert listed.remarks == (
        "datasets without files of events, left out: 1",
        "products that are not public, left out: 6",
    )
    service.remove(name)
    assert products(found.exposures, reached).remarks == ("datasets without files of events, left out: 1",)
    assert products(EXPOSURES.empty_table(), reached).files.num_rows == 0


# --- answers that are no good ---


def test_a_column_that_the_service_has_no_more(reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("deployments.sandbox.hst", fromlist=["_COLUMNS"])._COLUMNS, "sci_aec")
    with pytest.raises(ArchiveError, match="sci_aec") as caught:
        named(["SANDBOX-FLARE"], reached)
    assert not caught.value.transient


def answered(tmp_path: Path, *answers: Any) -> Found:
    """What is found if a service gives these answers to searches, one after the other."""
    left = list(answers)
    names = sorted(set(find._COLUMNS) - {"sci_start_time"})

    def search(request: Request) -> Response:
        return Response(json.dumps(left.pop(0)).encode(), 200, "application/json")

    with Sandbox() as box:
        box.mount(f"{API}/search", search)
        columns = json.dumps(
            [{"column_name": name, "qual_type": "string", "description": ""} for name in names]
        ).encode()
        box.mount(COLUMNS, lambda request: Response(columns, 200, "application/json"))
        settings = load_settings(url=str(tmp_path), endpoints={"hst": box.url("")}, timeout_s=5.0)
        return named(["X"], settings)


def row(name: str, **more: Any) -> dict[str, Any]:
    of = {"sci_instrume": "COS   ", "sci_operating_mode": "TIME-TAG", "sci_status": "PUBLIC", "sci_aec": "S"}
    return {"sci_data_set_name": name, "sci_targname": "X", **of, **more}


def page(*rows: dict[str, Any], total: Any = None) -> dict[str, Any]:
    return {"info": [], "results": list(rows), "totalResults": len(rows) if total is None else total}


def test_pages_that_do_not_add_up(tmp_path: Path) -> None:
    one, other = row("L1"), row("L2")
    assert ids(answered(tmp_path, page(one, total=2), page(other, total=2))) == ["l1", "l2"]
    with pytest.raises(TruncatedAnswer, match="L1 came twice"):
        answered(tmp_path, page(one, total=2), page(one, total=2))
    with pytest.raises(TruncatedAnswer, match="2 rows came of 1"):
        answered(tmp_path, page(one, other, total=1))
    with pytest.raises(TruncatedAnswer, match="1 row came of 2"):
        answered(tmp_path, page(one, total=2), page(total=2))
    for wrong in ({}, [], page(total="2"), {"results": [1], "totalResults": 1}, page({"sci_targname": "X"})):
        with pytest.raises(ArchiveError, match="the answer") as caught:
            answered(tmp_path, wrong)
        assert caught.value.transient


def test_values_that_are_none_or_no_values(tmp_path: Path) -> None:
    bare = row("L1")
    odd = row(
        "L2", sci_ra="x", sci_dec=95.0, sci_start_time="soon", sci_release_date=None, sci_pep_id="", sci_mtflag=None
    )
    padded = row(" L3 ", sci_instrument_config="COS/NUV  ", sci_expflag="NORMAL       ", sci_ra=1, sci_dec=-2.5)
    found = answered(tmp_path, page(bare, odd, padded)).exposures
    assert ids(Found(found)) == ["l1", "l2", "l3"]
    for name in set(EXPOSURES.names) - {"exposure_id", "target_name", "instrument", "is_moving"}:
        assert found[name][:2].null_count == 2, name
    assert found["is_moving"].to_pylist() == [False] * 3
    last = found.to_pylist()[2]
    assert (last["detector"], last["expflag"], last["ra"], last["dec"]) == ("NUV", "NORMAL", 1.0, -2.5)


def listed_of(tmp_path: Path, *rows: dict[str, Any]) -> find.Products:
    """What is listed of ls0001010 if the service says so."""
    with Sandbox() as box:
        body = json.dumps({"products": [list(rows)]}).encode()
        box.mount(f"{API}/post_list_products", lambda request: Response(body, 200, "application/json"))
        settings = load_settings(url=str(tmp_path), endpoints={"hst": box.url("")})
        return products(pa.Table.from_pylist([{"exposure_id": "ls0001010"}], EXPOSURES), settings)


def product(name: str, suffix: str = "CORRTAG_A", **more: Any) -> dict[str, Any]:
    return {"file_suffix": suffix, "filename": name, "dataset": "LS0001010", "uri": f"LS0001010/{name}", **more}


def test_only_spectra_of_exposures_with_events(tmp_path: Path) -> None:
    listed = listed_of(
        tmp_path,
        product("ls0001avq_corrtag_a.fits", size=True, product_key=None),
        product("ls0001avq_x1d.fits", "X1D", size="2880"),
        product("ls0001bjq_x1d.fits", "X1D", size=2880),
        product("ls0001010_x1d.fits", "X1D", size=2880),
    )
    assert listed.files["filename"].to_pylist() == ["ls0001avq_corrtag_a.fits", "ls0001avq_x1d.fits"]
    assert listed.files["bytes"].to_pylist() == [None, None], "what is no size is not known"
    assert listed.exposures["exposure_id"].to_pylist() == ["ls0001avq"]


def test_file_names_lead_nowhere_else(tmp_path: Path) -> None:
    names = ("../../etc/passwd", "ls0001avq_corrtag_a.fits/..", "ls0001avq_corrtag_a.fits", "LS0001AVQ_CORRTAG_B.FITS")
    listed = listed_of(tmp_path, *(product(name) for name in names), {"file_suffix": "CORRTAG_A"}, {})
    assert listed.files["filename"].to_pylist() == ["ls0001avq_corrtag_a.fits", "ls0001avq_corrtag_b.fits"]
    assert listed.remarks == ("products with a name or address that is none, left out: 3",)


def test_other_users_of_astroquery_keep_their_endpoint(reached: Settings, box: Sandbox) -> None:
    from astroquery.mast import MastMissions, conf
    from astroquery.mast.services import ServiceAPI

    before = (
        conf.server,
        MastMissions._service_api_connection.REQUEST_URL,
        ServiceAPI.SERVICE_URL,
        ServiceAPI.SERVICES,
    )
    results: list[list[str]] = []
    with Sandbox() as empty:
        nothing = page(total=0)
        empty.mount(f"{API}/search", lambda request: Response(json.dumps(nothing).encode(), 200, "application/json"))
        names = json.dumps([{"column_name": name} for name in find._COLUMNS]).encode()
        empty.mount(COLUMNS, lambda request: Response(names, 200, "application/json"))
        elsewhere = reached.model_copy(update={"endpoints": {"hst": empty.url("")}})
        threads = [
            threading.Thread(target=lambda settings=settings: results.append(ids(named(["SANDBOX-FLARE"], settings))))
            for settings in (reached, elsewhere) * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(map(len, results)) == [0] * 4 + [1] * 4
    after = (conf.server, MastMissions._service_api_connection.REQUEST_URL, ServiceAPI.SERVICE_URL, ServiceAPI.SERVICES)
    assert before == after


def test_real_answers_are_understood(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "hst_cos_stis"
    columns = (folder / "mast_missions_columns.json").read_bytes()
    assert {*find._COLUMNS, *find._CRITERIA} <= {one["column_name"] for one in json.loads(columns)}
    with Sandbox() as box:
        for path, name in ((f"{API}/search", "results"), (f"{API}/post_list_products", "products")):
            box.mount_file(path, folder / f"mast_missions_{name}.json")
        box.mount_file(COLUMNS, folder / "mast_missions_columns.json")
        settings = load_settings(url=str(tmp_path), endpoints={"hst": box.url("")})
        found = named(["X"], settings)
        assert found.exposures.num_rows == 0
        assert found.remarks == ("exposures of another instrument or mode, left out: 3",)
        one = pa.Table.from_pylist([{"exposure_id": "z14z0104t"}], EXPOSURES)
        assert products(one, settings, ["SHF"]).remarks == (
            "datasets without files of events, left out: 1",
            "products with a name or address that is none, left out: 1",
        )


def test_the_public_address_is_masts(tmp_path: Path) -> None:
    settings = load_settings(url=str(tmp_path))
    assert url_of("LDFD01010/ldfd01vnq_x1d.fits", settings) == (
        "https://mast.stsci.edu/search/hst/api/v0.1/retrieve_product?product_name=LDFD01010%2Fldfd01vnq_x1d.fits"
    )
