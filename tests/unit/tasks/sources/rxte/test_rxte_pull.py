"""RXTE's observations on their way into a lake: files by listing, granules, matches, one light curve over the years."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pytest
from astropy.io import fits
from astropy.time import Time
from helpers.heasoft import complete, install
from helpers.names import Services
from helpers.rxte import extract_all, lose

from deployments.sandbox.rxte import TARGETS, ArchiveService, write_mirror, xtemaster
from deployments.sandbox.server import Response, Sandbox
from lake.commit.targets import add_targets
from lake.errors import ArchiveError, ConfigurationError
from lake.query import Lake
from lake.science.sky import separation_arcsec
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.pull import lake_at
from tasks.sources.observed import target_of
from tasks.sources.rxte import energies
from tasks.sources.rxte import heasoft as rxte_heasoft
from tasks.sources.rxte import observations as rxte_pull
from tasks.sources.rxte import targets as rxte_targets
from tasks.sources.rxte.files import Mirror
from tasks.sources.rxte.find import read_csv, select
from tasks.sources.rxte.mission import NAME, Observation
from tasks.sources.rxte.observations import Extraction, extraction_of, waiting
from tasks.sources.rxte.products import NO_PRODUCTS

ETA_CAR = (161.265, -59.6845)
ALL = Extraction()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    """A mirror of 60 observations, and what is in it; every piece is there at least as an empty folder."""
    folder = tmp_path_factory.mktemp("rxte")
    rows = write_mirror(folder / "mirror", n_obsids=60, seed=8, broken=0.15, std2=0.3, bins=(20, 60))
    csv.write_csv(xtemaster(rows).drop(["__row"]), folder / "xtemaster.csv")
    for row in rows.to_pylist():
        if row["obsid"]:
            (folder / "mirror" / row["folder"]).mkdir(parents=True, exist_ok=True)
            (folder / "mirror" / row["folder"] / "FMI").touch()
    return folder, rows


def _fill(catalog: Catalog) -> None:
    names, ra, dec = zip(*TARGETS, strict=True)
    add_targets(catalog, pa.table({"name": names, "ra": ra, "dec": dec}), "sources")
    rxte_pull.register(lake_at(str(catalog.storage.root)), ALL)


@pytest.fixture
def lake(
    prepared: Callable[[Callable[[Catalog], None]], Catalog],
    made: tuple[Path, pa.Table],
    monkeypatch: pytest.MonkeyPatch,
) -> Lake:
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", str(made[0] / "mirror"))
    monkeypatch.setenv("LIGHTLAKE_RETRY_DELAY_S", "0")
    return lake_at(str(prepared(_fill).storage.root))


def url(lake: Lake) -> str:
    return str(lake.storage.root)


def found_in(folder: Path, lake: Lake) -> Any:
    return select(lake.sql("FROM targets ORDER BY target_id"), read_csv(folder / "xtemaster.csv"))


def answered(lake: Lake, found: Any, extraction: Extraction = ALL) -> Any:
    targets = lake.sql("FROM targets ORDER BY target_id")
    return rxte_targets.answer(url(lake), targets, found, extraction, {}, datetime.now(UTC), "here")


def errors(lake: Lake) -> list[str]:
    return [finding.message for finding in verify(lake.catalog) if finding.is_error]


def truth(rows: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["obsid"]: row for row in rows.to_pylist() if row["obsid"]}


def test_every_observation_ends_in_the_ledger_by_what_it_is(lake: Lake, made: tuple[Path, pa.Table]) -> None:
    folder, rows = made
    known = truth(rows)
    found = found_in(folder, lake)
    observations = found.each()
    receipts = dict(extract_all(url(lake), observations, ALL))
    assert set(receipts) == set(known)
    expected = {
        obsid: "rejected" if row["broken"] else "done" if row["products"] else "empty" for obsid, row in known.items()
    }
    assert {obsid: receipt.status for obsid, receipt in receipts.items()} == expected
    for obsid, receipt in receipts.items():
        if receipt.status == "rejected":
            names = {one["file"].rpartition("/")[2] for one in known[obsid]["broken"]}
            assert any(name in (receipt.reason or "") for name in names), receipt.reason
    assert lake.sql("SELECT count(*) AS n FROM ducklake_snapshots('lake') WHERE changes::VARCHAR LIKE '%sources%'")

    answered(lake, found)
    left_out = lake.sql("SELECT source_id FROM sources WHERE left_out = ?", [NO_PRODUCTS])["source_id"].to_pylist()
    assert set(left_out) == {obsid for obsid, status in expected.items() if status == "empty"}
    # A band that is absent is absent, and its name is in the exposure's details.
    bands = lake.sql("SELECT source_id, list(DISTINCT band) AS bands FROM lightcurves GROUP BY ALL").to_pylist()
    for one in bands:
        assert len(one["bands"]) == len(known[one["source_id"]]["products"])
    coverage = {row["target_id"]: row for row in lake.sql("FROM coverage").to_pylist()}
    broken_of = Counter(row["target_name"] for row in known.values() if row["broken"])
    for target in lake.sql("FROM targets").to_pylist():
        assert coverage[target["target_id"]]["status"] == ("rejected" if broken_of[target["name"]] else "found")
    per_target = lake.sql("SELECT target_id, count(*) AS n FROM matches GROUP BY ALL").to_pylist()
    assert {one["target_id"]: one["n"] for one in per_target} == {
        target: row["n_sources"] for target, row in coverage.items()
    }
    assert errors(lake) == []

    # The same again, and one by one, changes nothing.
    before = lake.sql("FROM lightcurves ORDER BY ALL")
    assert waiting(lake, observations, ALL).waiting == []
    assert waiting(lake, observations, ALL).done == sum(status != "rejected" for status in expected.values())
    assert waiting(lake, observations, ALL).rejected == sum(status == "rejected" for status in expected.values())
    extract_all(url(lake), observations[:7], ALL)
    answered(lake, found)
    assert lake.sql("FROM lightcurves ORDER BY ALL").equals(before)
    assert lake.sql("SELECT count(*) AS n FROM matches")["n"][0].as_py() == sum(one["n"] for one in per_target)
    assert errors(lake) == []


def test_a_light_curve_over_the_years_is_one_query(lake: Lake, made: tuple[Path, pa.Table]) -> None:
    folder, rows = made
    found = found_in(folder, lake)
    extract_all(url(lake), found.each(), ALL)
    answered(lake, found)
    curve = lake.sql("FROM rxte WHERE name = 'ETA_CAR' AND band = 'pca_a'")
    mine = [row for row in truth(rows).values() if row["target_name"] == "ETA_CAR" and not row["broken"]]
    mine = [row for row in mine if any("n2a" in name for name in row["products"])]
    assert set(curve["obsid"].to_pylist()) == {row["obsid"] for row in mine}
    mjd = curve["mjd"].to_numpy()
    assert (np.diff(mjd) > 0).all(), "in order, each bin once"
    assert set(curve["epoch"].to_pylist()) >= {3, 4, 5}
    for row in mine:
        if not row["mixed"]:
            at = pc.equal(curve["obsid"], row["obsid"])
            assert set(curve.filter(at)["epoch"].to_pylist()) == {row["epoch"]}
    assert curve.filter(pc.field("good"))["rate"].null_count == 0
    assert set(curve["nominal_emin_kev"].to_pylist()) == {2.0}
    # Each file of a good observation is there, bin by bin.
    row = next(row for row in mine if row["quirk"] == "")
    name = next(name for name in row["products"] if "n2a" in name)
    with fits.open(folder / "mirror" / row["folder"] / "stdprod" / name) as file:
        table, head = file["RATE"].data, file["RATE"].header
        rate = np.sort(table["RATE"].astype("f4"))
        middle = table["TIME"] + head.get("TIMEZERO", head.get("TIMEZERI", 0) + head.get("TIMEZERF", 0.0)) + 8
        expected = head["MJDREFI"] + head["MJDREFF"] + middle / 86400
    ours = curve.filter(pc.equal(curve["obsid"], row["obsid"]))
    assert np.sort(ours["rate"].to_numpy()).tolist() == rate.tolist()
    assert np.abs(ours["mjd"].to_numpy() - expected).max() * 86400 < 1e-4


def test_channels_are_a_table_of_the_lake(lake: Lake) -> None:
    rows = lake.sql(
        "SELECT emin_kev, emax_kev FROM channels WHERE epoch = 3 AND channel BETWEEN 5 AND 10 ORDER BY channel"
    )
    # Channels 5 to 10 are 1.94 to 4.05 keV in epoch 3.
    assert (rows["emin_kev"][0].as_py(), rows["emax_kev"][-1].as_py()) == (1.94, 4.05)
    assert lake.sql("SELECT count(*) AS n FROM channels")["n"][0].as_py() == energies.channels().num_rows
    rxte_pull.register(lake, ALL)
    assert lake.sql("SELECT count(*) AS n FROM channels")["n"][0].as_py() == energies.channels().num_rows
    assert [finding.message for finding in verify(lake.catalog) if finding.check == "checksums"] == []


def test_what_failed_is_tried_again_and_what_was_rejected_when_asked(
    lake: Lake, made: tuple[Path, pa.Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = made
    known = truth(rows)
    observations = found_in(folder, lake).each()
    some = [one for one in observations if known[one.obsid]["products"]][:6]
    lost = lose(url(lake), some, ALL, MemoryError("killed"))
    assert {receipt.status for _, receipt in lost} == {"failed"}
    assert len(waiting(lake, some, ALL).waiting) == 6
    receipts = dict(extract_all(url(lake), some, ALL))
    bad = [obsid for obsid, receipt in receipts.items() if receipt.status == "rejected"]
    assert {one.obsid for one in waiting(lake, some, ALL, select="failed").waiting} == set(bad)

    # Nothing at all is at the address: that is no absence of products.
    (tmp_path / "empty" / "AO1").mkdir(parents=True)
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", str(tmp_path / "empty"))
    gone = dict(extract_all(url(lake), [Observation("10001-01-01-00", "X", *ETA_CAR, 50090.0, 10.0)], ALL))
    receipt = gone["10001-01-01-00"]
    assert receipt.status == "failed"
    assert "no xte/data/archive/AO1/P10001/10001-01-01-00/" in (receipt.reason or "")
    assert errors(lake) == []


def test_only_some_bands_are_another_question(lake: Lake, made: tuple[Path, pa.Table]) -> None:
    one = extraction_of("products", ["pca_a"])
    observations = found_in(made[0], lake).each()
    extract_all(url(lake), observations, one)
    assert set(lake.sql("SELECT DISTINCT band FROM lightcurves")["band"].to_pylist()) == {"pca_a"}
    assert len(waiting(lake, observations, ALL).waiting) == len(observations)
    with pytest.raises(ConfigurationError, match="no band pca_z"):
        extraction_of("products", ["pca_z"])
    with pytest.raises(ConfigurationError, match="standard products take no chmin"):
        extraction_of("products", chmin=5)
    with pytest.raises(ConfigurationError, match="no channels"):
        extraction_of("standard2", chmin=10, chmax=5)
    with pytest.raises(ConfigurationError, match="takes no bands"):
        extraction_of("standard2", ["pca_a"], chmin=5, chmax=10)


def test_chosen_channels_lie_beside_the_standard_products(lake: Lake, made: tuple[Path, pa.Table]) -> None:
    folder, rows = made
    found = found_in(folder, lake)
    known = truth(rows)
    with_std2 = [one for one in found.each() if known[one.obsid]["std2"]]
    extract_all(url(lake), with_std2, ALL)
    for cut in ({"chmin": 5, "chmax": 10}, {"emin_kev": 2.0, "emax_kev": 9.0}):
        extraction = extraction_of("standard2", **cut)
        rxte_pull.register(lake, extraction)
        receipts = dict(extract_all(url(lake), with_std2, extraction))
        assert {receipt.status for receipt in receipts.values()} == {"done"}
        answered(lake, found, extraction)
    shown = lake.sql("SELECT DISTINCT release, band, epoch, emin_kev, emax_kev FROM rxte WHERE band LIKE 'pca_ch%'")
    for row in shown.to_pylist():
        assert row["release"] == "standard2_ch5_10"
        assert (row["emin_kev"], row["emax_kev"]) == energies.energy_range(5, 10, row["epoch"])
    bands = lake.sql("SELECT band FROM bands WHERE archive = 'rxte_pca' ORDER BY band")["band"].to_pylist()
    assert bands == ["pca_2_9kev", "pca_ch5_10"]
    details = lake.sql(
        "SELECT details->>'$.products.pca_ch5_10.background' AS b FROM exposures WHERE release = 'standard2_ch5_10'"
    )["b"].to_pylist()
    assert set(details) == {"included"}
    assert lake.sql("SELECT count(*) AS n FROM lightcurves WHERE archive = 'rxte'")["n"][0].as_py() > 0
    assert errors(lake) == []


def test_chosen_channels_by_heasoft(
    lake: Lake, made: tuple[Path, pa.Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = made
    known = truth(rows)
    with pytest.raises(ConfigurationError, match="HEASoft"):
        extraction_of("heasoft", chmin=5, chmax=10)
    heasoft = install(tmp_path)
    for name, value in heasoft.environment.items():
        monkeypatch.setenv(name, value)
    found = found_in(folder, lake)
    one = next(one for one in found.each() if known[one.obsid]["std2"])
    complete(folder / "mirror" / known[one.obsid]["folder"])
    extraction = extraction_of("heasoft", chmin=5, chmax=10)
    rxte_pull.register(lake, extraction)
    limits, extract = [], rxte_heasoft.extract
    monkeypatch.setattr(rxte_heasoft, "extract", lambda *given: (limits.append(given[-1]), extract(*given))[1])
    bare = next(one for one in found.each() if not known[one.obsid]["std2"])
    (_, receipt), _ = extract_all(url(lake), [one, bare], extraction)
    assert (receipt.status, receipt.n_sources) == ("done", 1), receipt.reason
    assert sum(limits) < load_settings().task_timeout_s, "what hangs is ended before its task is"
    assert len(limits) == 2
    log = lake.sql("SELECT details->>'$.log' AS log FROM exposures WHERE archive = 'rxte_pca'")["log"][0].as_py()
    assert "pcaextlc2" in Path(log).read_text()
    heasoft.fail("pcaextlc2", "status")
    other = extraction_of("heasoft", chmin=11, chmax=20)
    rxte_pull.register(lake, other)
    ((_, receipt),) = extract_all(url(lake), [one], other)
    assert receipt.status == "rejected"
    assert "pcaextlc2" in (receipt.reason or "")
    assert errors(lake) == []


def test_the_real_files_are_in_the_lake_with_the_right_times_bands_and_epochs(
    lake: Lake, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = {
        "20033-01_e3": ("xp2003301_e3_n2a.lc", 3, 4965, "1997-03-01T18:26:24"),
        "50011-01_e5": ("xp5001101_e5_n2a.lc", 5, 2400, "2000-05-13T00:12:32"),
    }
    observations = []
    for obsid, (name, *_) in real.items():
        content = (data_dir / "rxte" / name).read_bytes()
        observation = Observation(obsid, "SS CYG", 325.6784, 43.5861)
        stdprod = tmp_path / "mirror" / observation.paths[0] / "stdprod"
        stdprod.mkdir(parents=True)
        (stdprod / f"{name}.gz").write_bytes(gzip.compress(content))
        observations.append(observation)
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", str(tmp_path / "mirror"))
    receipts = dict(extract_all(url(lake), observations, ALL))
    assert {receipt.status for receipt in receipts.values()} == {"done"}, receipts
    for obsid, (name, epoch, n, started) in real.items():
        rows = lake.sql("FROM lightcurves WHERE source_id = ? ORDER BY mjd", [obsid])
        assert (rows.num_rows, set(rows["band"].to_pylist())) == (n, {"pca_a"})
        details = lake.sql("SELECT (details->>'$.epoch')::INT AS e FROM exposures WHERE exposure_id = ?", [obsid])
        assert details["e"][0].as_py() == epoch
        with fits.open(data_dir / "rxte" / name) as file:
            table, head = file[1].data, file[1].header
            zero = head.get("TIMEZERO", head.get("TIMEZERI", 0) + head.get("TIMEZERF", 0.0))
            barytime = np.sort(table["BARYTIME"].astype("f8"))
            half = head["TIMEDEL"] * (0.5 - head.get("TIMEPIXR", 0.0))
        reference = Time(49353, 0.000696574074, format="mjd", scale="tt")
        expected = reference.mjd + (barytime + zero + half) / 86400
        assert np.abs(np.sort(rows["bmjd_tdb"].to_numpy()) - expected).max() * 86400 < 0.1
        # DATE-OBS is in TT, of the first bin of all, of which some were not used.
        later = (rows["mjd"][0].as_py() - Time(started, scale="tt").mjd) * 86400
        assert 0 < later < 10 * head["TIMEDEL"]


def test_files_come_over_https_by_listing_and_by_either_prefix(
    lake: Lake, made: tuple[Path, pa.Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = made
    some = found_in(folder, lake).each()[:5]
    local = dict(extract_all(url(lake), some, ALL))
    before = lake.sql("FROM lightcurves ORDER BY ALL")
    with Sandbox.start(tmp_path / "box", archives=()) as box:
        service = ArchiveService(box, folder / "mirror", rows)
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", service.ftp_url)
        for prefixes in ({"xte", "rxte"}, {"rxte"}):
            service.prefixes = prefixes
            far = dict(extract_all(url(lake), some, ALL))
            assert {k: (r.status, r.n_rows) for k, r in far.items()} == {
                k: (r.status, r.n_rows) for k, r in local.items()
            }
        assert lake.sql("FROM lightcurves ORDER BY ALL").equals(before)
        with Mirror(load_settings()) as mirror:
            copied = mirror.fetch(mirror.folder(some[0]) or "", tmp_path / "copy")
        theirs = {p.relative_to(copied): p.read_bytes() for p in copied.rglob("*") if p.is_file()}
        home = folder / "mirror" / some[0].paths[0].partition("archive/")[2]
        assert theirs == {p.relative_to(home): p.read_bytes() for p in home.rglob("*") if p.is_file()}

        asked = []

        def overloaded(request: Any) -> Any:
            asked.append(request.path)
            return Response(b"<html>busy</html>", 503 if len(asked) % 2 else 200, "text/html")

        box.mount("/busy", overloaded)
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", box.url("/busy"))
        receipts = dict(extract_all(url(lake), some[:1], ALL))
        (receipt,) = receipts.values()
        assert receipt.status == "failed"
        assert len(asked) == 4, "once, and three more times"
        assert "no listing" in (receipt.reason or "")
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", str(tmp_path / "nowhere"))
    with pytest.raises(ArchiveError, match="no such folder"):
        extract_all(url(lake), some, ALL)


@pytest.mark.parametrize(
    "link", ["{name}", "./{name}", "{path}{name}", "//{host}{path}{name}", "http://{host}{path}{name}"]
)
def test_a_listing_may_have_links_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    one = Observation("94002-01-15-00", "X", *ETA_CAR)
    answers: dict[str, list[str]] = {"": ["xte/"]}
    folder = one.paths[0].rstrip("/")
    answers |= {folder: ["stdprod/", "FMI"], f"{folder}/stdprod": ["a%20b.lc.gz", "xp_n2a.lc.gz"], f"{folder}/pca": []}

    def listed(request: Any) -> Any:
        path = request.path.removeprefix("/here/").rstrip("/")
        if path not in answers:
            return Response(b"not here", 404, "text/plain")
        where = {"host": request.headers["host"], "path": f"/here/{path}/"}
        links = [link.format(name=name, **where) for name in answers[path]]
        above = f"/here/{path}".rpartition("/")[0] + "/"
        # What else pages have: columns to sort by, the folder above and itself, other places, an address.
        links += [above, "?C=N;O=D", "#top", "./", "mailto:help@example.org", "https://example.org/x", "%2E%2E/", "/x"]
        page = "".join(f'<A class="x" HREF="{each}">name</A>' for each in links)
        return Response(page.encode(), 200, "text/html")

    with Sandbox.start(tmp_path / "box", archives=()) as box:
        box.mount("/here", listed)
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", box.url("/here"))
        with Mirror(load_settings()) as mirror:
            assert mirror.light_curves(one) == [f"{folder}/stdprod/{name}" for name in ("a b.lc.gz", "xp_n2a.lc.gz")]
            assert mirror.store.folders(folder) == [f"{folder}/stdprod"]
            assert mirror.files(folder) == [f"{folder}/FMI"]
            assert mirror.files(f"{folder}/pca") == [], "empty is an answer"
            assert mirror.files(f"{folder}/hexte") == [], "and so is nothing"


def test_a_page_of_trouble_is_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLAKE_RETRIES", "0")
    with Sandbox.start(tmp_path / "box", archives=()) as box:
        box.mount(
            "/down", lambda request: Response(b'We are down. <a href="/status.html">Status</a>', 200, "text/html")
        )
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__RXTE", box.url("/down"))
        with Mirror(load_settings()) as mirror, pytest.raises(ArchiveError, match="no listing"):
            mirror.light_curves(Observation("94002-01-15-00", "X", *ETA_CAR))


@pytest.mark.long
def test_bands_asked_for_later_do_not_take_others_out(lake: Lake, made: tuple[Path, pa.Table]) -> None:
    found = found_in(made[0], lake)
    some = found.each()[:20]

    def pull(*bands: str) -> set[str]:
        extraction, _ = rxte_pull.as_pulled_before(lake, Extraction(bands))
        extract_all(url(lake), waiting(lake, some, extraction).waiting, extraction)
        answered(lake, found, extraction)
        return set(lake.sql("SELECT DISTINCT band FROM lightcurves")["band"].to_pylist())

    assert rxte_pull.as_pulled_before(lake, Extraction(("pca_b",))) == (Extraction(("pca_b",)), True)
    assert pull("pca_b") == {"pca_b"}
    assert pull("pca_a") == {"pca_a", "pca_b"}
    everything = pull()
    assert everything > {"pca_a", "pca_b"}
    before = lake.sql("FROM lightcurves ORDER BY ALL")
    again, is_first = rxte_pull.as_pulled_before(lake, Extraction(("pca_a",)))
    assert (again, is_first) == (ALL, False)
    done = [one for one in some if one not in waiting(lake, some, again, select="failed").waiting]
    assert waiting(lake, done, again).waiting == []
    assert lake.sql("FROM lightcurves ORDER BY ALL").equals(before)
    cut = extraction_of("standard2", chmin=5, chmax=10)
    assert rxte_pull.as_pulled_before(lake, cut) == (cut, True)


@pytest.mark.long
def test_an_observation_that_moved_far_is_there_once(lake: Lake, made: tuple[Path, pa.Table]) -> None:
    folder, rows = made
    known = truth(rows)
    found = found_in(folder, lake)
    good = [one for one in found.each() if known[one.obsid]["products"] and not known[one.obsid]["broken"]]
    one = next(one for one in good if one.target_name == "ETA_CAR")
    extract_all(url(lake), [one], extraction_of("products", ["pca_a"]))
    answered(lake, found)
    moved = replace(one, dec=(one.dec or 0.0) + 0.05)
    assert waiting(lake, [moved], ALL).waiting == [one], "where the lake has it"
    extract_all(url(lake), waiting(lake, [moved], ALL).waiting, ALL)
    answered(lake, found)
    assert lake.sql("SELECT count(*) AS n FROM sources")["n"].to_pylist() == [1]
    assert lake.sql("SELECT DISTINCT obsid FROM rxte WHERE name = 'ETA_CAR'")["obsid"].to_pylist() == [one.obsid]
    mjd = lake.sql("SELECT mjd FROM rxte WHERE name = 'ETA_CAR' AND band = 'pca_a'")["mjd"].to_numpy()
    assert (np.diff(mjd) > 0).all()
    assert errors(lake) == []


def test_a_target_without_observations_has_coverage_and_an_observation_near_two_is_of_both(
    lake: Lake, made: tuple[Path, pa.Table]
) -> None:
    folder, _ = made
    ra, dec = ETA_CAR
    beside, nowhere = (
        target_of(lake, f"{ra:.4f} {place:.4f}", NAME)["target_id"][0].as_py() for place in (dec + 0.01, 80.0)
    )
    found = found_in(folder, lake)
    extract_all(url(lake), found.each(), ALL)
    answered(lake, found)
    coverage = {row["target_id"]: row for row in lake.sql("FROM coverage").to_pylist()}
    assert [coverage[nowhere][name] for name in ("status", "n_sources", "n_rows")] == ["empty", 0, 0]
    eta = lake.target_id("ETA_CAR")
    assert coverage[beside]["n_sources"] == coverage[eta]["n_sources"] > 0
    counted = "SELECT target_id, count(*) AS n FROM rxte GROUP BY ALL"
    shown = {row["target_id"]: row["n"] for row in lake.sql(counted).to_pylist()}
    assert shown == {target: row["n_rows"] for target, row in coverage.items() if row["n_rows"]}
    # Each has its own separation, as on the sphere.
    kept = lake.sql("SELECT DISTINCT target_id, obsid, separation_arcsec FROM rxte").to_pylist()
    place = {row["target_id"]: (row["ra"], row["dec"]) for row in lake.sql("FROM targets").to_pylist()}
    lies = {one.obsid: (one.ra, one.dec) for one in found.each()}
    for row in kept:
        apart = separation_arcsec(*place[row["target_id"]], *lies[row["obsid"]])
        assert row["separation_arcsec"] == pytest.approx(float(apart), abs=1e-6)
    assert len({row["separation_arcsec"] for row in kept if row["target_id"] in (eta, beside)}) > 1
    ranked = lake.sql("SELECT separation_arcsec AS s, rank FROM matches WHERE target_id = ? ORDER BY rank", [beside])
    assert ranked["rank"].to_pylist() == list(range(1, ranked.num_rows + 1))
    assert ranked["s"].to_pylist() == sorted(ranked["s"].to_pylist())
    # Alone, it is an answer all the same; and a target asked with another radius loses what is beyond it.
    alone = lake.sql("SELECT * FROM targets WHERE target_id = ?", [nowhere])
    receipt = rxte_targets.answer(
        url(lake), alone, select(alone, read_csv(folder / "xtemaster.csv")), ALL, {}, datetime.now(UTC), "here"
    )
    assert (receipt.status, receipt.n_targets) == ("empty", 1)
    other = lake.sql("SELECT * FROM targets WHERE target_id = ?", [beside])
    less = select(other, read_csv(folder / "xtemaster.csv"), radius_deg=0.001)
    rxte_targets.answer(url(lake), other, less, ALL, {"radius_deg": 0.001}, datetime.now(UTC), "here")
    assert lake.sql("SELECT count(*) AS n FROM matches WHERE target_id = ?", [beside])["n"].to_pylist() == [0]
    assert lake.sql("SELECT count(*) AS n FROM sources")["n"][0].as_py() >= coverage[beside]["n_sources"]
    assert errors(lake) == []


@pytest.mark.long
def test_cuts_of_the_same_band_are_one_after_the_other(lake: Lake, made: tuple[Path, pa.Table]) -> None:
    folder, rows = made
    found = found_in(folder, lake)
    known = truth(rows)
    some = [one for one in found.each() if known[one.obsid]["std2"]][:3]
    for more in ({}, {"bin_s": 32.0}):
        extraction = extraction_of("standard2", chmin=5, chmax=10, **more)
        rxte_pull.register(lake, extraction)
        extract_all(url(lake), some, extraction)
        answered(lake, found, extraction)
    shown = lake.sql("SELECT name, release, mjd FROM rxte WHERE band = 'pca_ch5_10'").to_pylist()
    curves = [(row["name"], row["release"]) for row in shown]
    assert len({release for _, release in curves}) == 2
    assert len(list(groupby(curves))) == len(set(curves)), "each a piece"


def test_a_target_by_name_or_place(lake: Lake, services: Services) -> None:
    lake.settings = lake.settings.model_copy(update={"endpoints": services.endpoints})
    assert target_of(lake, "eta_car", NAME)["name"].to_pylist() == ["ETA_CAR"]
    n = lake.sql("SELECT count(*) AS n FROM targets")["n"][0].as_py()
    assert target_of(lake, "161.265 -59.6845", NAME)["name"].to_pylist() == ["ETA_CAR"]
    new = target_of(lake, " 12.5, +3.25 ", NAME)
    assert (new["ra"][0].as_py(), new["dec"][0].as_py()) == (12.5, 3.25)
    assert lake.sql("SELECT count(*) AS n FROM targets")["n"][0].as_py() == n + 1
    with pytest.raises(ConfigurationError, match="no target is named"):
        target_of(lake, "nobody", NAME)
    looked_up = target_of(lake, "Mrk 421", NAME)
    assert looked_up["name"].to_pylist() == ["Mrk 421"]
    assert target_of(lake, "UGC 6132", NAME) == looked_up
    with pytest.raises(ConfigurationError):
        target_of(lake, "1.2.3 4", NAME)
