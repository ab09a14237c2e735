"""HST's photons from end to end: found at MAST, extracted, named, put into composites, matched; once, and again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.processes import Run, child_environment
from helpers.servers import artifacts

from deployments.sandbox.hst import Service
from deployments.sandbox.hst_datasets import Dataset, association, write_files
from deployments.sandbox.server import Sandbox
from flows import local
from flows.hst import pull_hst
from lake.commit.targets import add_targets
from lake.errors import ArchiveError
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.pull.report import PullReport
from tasks.sources.hst_timetag.options import HstOptions
from tasks.sources.protocol import Request

Rows = Callable[..., list[dict[str, Any]]]

pytestmark = pytest.mark.usefixtures("pull_settings")

# By turns COS FUV, COS NUV and STIS: an association of two exposures each.
PLACES = [(10.0, 12.0), (50.0, -30.0), (200.0, 45.0)]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """MAST and SIMBAD."""
    with Sandbox.start(tmp_path / "box", archives=["hst"], seed=4, scale=0.02, targets=PLACES) as box:
        for name in ("hst", "simbad"):
            monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{name.upper()}", box.endpoints[name])
        monkeypatch.setenv("LIGHTLAKE_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("LIGHTLAKE_RETRIES", "0")
        for name in ("lref", "oref"):
            monkeypatch.delenv(name, raising=False)
        yield box


@pytest.fixture
def mast(box: Sandbox) -> Service:
    service: Service = box.services["hst"]
    return service


@pytest.fixture
def targets(catalog: Catalog) -> Catalog:
    """A lake with a target at each place, and one where nothing is."""
    ra, dec = zip(*PLACES, (300.0, 60.0), strict=True)
    add_targets(catalog, pa.table({"name": ["fuv", "nuv", "stis", "none"], "ra": ra, "dec": dec}), "test")
    return catalog


def pulled(catalog: Catalog, **more: Any) -> PullReport:
    """Pull in this process, without Prefect."""
    options = HstOptions.of(**more)
    outcome = local.pull(
        str(catalog.storage.root), Request("hst_timetag", options, options.sample, options.select), load_settings()
    )
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def errors(catalog: Catalog) -> list[str]:
    return [finding.message for finding in verify(catalog) if finding.is_error]


def asked(mast: Service) -> dict[str, int]:
    names = [name for name, _ in mast.asked if name != "column_list"]
    return {name: names.count(name) for name in names}


def test_targets_to_composites(targets: Catalog, rows: Rows, box: Sandbox, mast: Service) -> None:
    report = pulled(targets)
    assert not report.lost, report.message
    # The two of STIS are in one file, which counts once.
    assert "5 exposures and 3 composites done" in report.message
    assert "5 of 5 exposures and 3 of 3 composites are in the lake" in report.message
    # Two exposures of each target, and a composite of each two.
    assert rows("SELECT product, count(*) AS n FROM hst_exposures GROUP BY ALL ORDER BY ALL") == [
        {"product": "composite", "n": 3},
        {"product": "exposure", "n": 6},
    ]
    assert rows("SELECT name, status FROM coverage JOIN targets USING (target_id) ORDER BY ALL") == [
        {"name": name, "status": "empty" if name == "none" else "found"} for name in ("fuv", "none", "nuv", "stis")
    ]
    matched = rows("SELECT name, count(*) AS n FROM matches JOIN targets USING (target_id) GROUP BY ALL ORDER BY ALL")
    assert matched == [{"name": name, "n": 2} for name in ("fuv", "nuv", "stis")]
    # SIMBAD's names, which have no second hyphen, are asked for once.
    names = rows("SELECT name, canonical_name, service, method FROM aliases ORDER BY name")
    assert [one["canonical_name"] for one in names] == [one["name"].replace("-B", " B", 1) for one in names]
    assert {one["service"] for one in names} == {"simbad"}
    assert rows("SELECT count(*) AS n FROM hst_exposures WHERE canonical_name = target_name") == [{"n": 0}]
    assert {row["detector"] for row in rows("SELECT DISTINCT detector FROM hst_exposures")} == {
        "FUV",
        "NUV",
        "FUV-MAMA",
    }
    # Members of a composite are in order of time, and share wavelengths.
    bins = rows(
        "SELECT source_id, dataset, exposure_id, min(mjd) AS mjd FROM hst_composites GROUP BY ALL ORDER BY 1, 2"
    )
    assert [row["dataset"] for row in bins] == [1, 2] * 3
    for first, second in zip(bins[::2], bins[1::2], strict=True):
        assert first["mjd"] < second["mjd"]
    light = rows("SELECT DISTINCT name FROM target_lightcurves")
    assert {row["name"] for row in light} == {"fuv", "nuv", "stis"}
    views = {name: rows(f"SELECT count(*) AS n FROM {name}")[0]["n"] for name in ("hst_interesting", "hst_boring")}
    assert sum(views.values()) == 3
    assert rows("SELECT count(*) AS n FROM hst_above(0)") == [{"n": 3}]
    assert errors(targets) == []

    # A second run asks nobody, and does nothing.
    before, tables = asked(mast), rows("SELECT * FROM hst_bins ORDER BY ALL")
    n = len(box.requests)
    again = pulled(targets)
    assert "nothing to do" in again.message
    assert (asked(mast), len(box.requests)) == (before, n)
    assert rows("SELECT * FROM hst_bins ORDER BY ALL") == tables


def dataset(mast: Service, number: int, setup: str = "cos_fuv", **more: Any) -> Dataset:
    """Let MAST have a dataset at a place of its own."""
    given = {"length_s": 60.0, "target": f"MADE-{number}", "ra": 80.0 + number / 10, "dec": -45.0, **more}
    return mast.add(association(900 + number, setup, seed=8, **given))


def place(one: Dataset) -> str:
    """Where it was pointed at."""
    exposure = one.exposures[0]
    return f"{exposure.ra} {exposure.dec}"


def test_a_known_source_comes_back_by_sql(catalog: Catalog, rows: Rows, mast: Service) -> None:
    rate, background, period_s, length_s = 60.0, 0.02, 48.0, 1200.0
    wave = {"period_s": period_s, "amplitude": 0.6, "rate": rate, "background": background, "length_s": length_s}
    made = dataset(mast, 1, n=1, **wave)
    report = pulled(catalog, target=place(made))
    assert not report.lost, report.message
    (sums,) = rows(
        "SELECT sum(counts) AS counts, sum(background) AS background, sum(bins * exposure_fraction) AS observed_s, "
        "sqrt(sum(error ** 2)) AS error FROM hst_timetag"
    )
    assert sums["observed_s"] == pytest.approx(length_s, abs=4)
    assert sums["counts"] / sums["observed_s"] == pytest.approx(rate, abs=4 * sums["error"] / sums["observed_s"])
    # Source boxes of both segments have 51 rows each.
    expected = background * 2 * 51 * sums["observed_s"]
    assert sums["background"] == pytest.approx(expected, abs=4 * np.sqrt(expected))
    (found,) = rows("SELECT * FROM hst_statistics WHERE product = 'exposure'")
    assert found["peak_period_s_short"] == pytest.approx(period_s, rel=0.02)
    assert found["peak_fap_short"] < 1e-6
    assert found["poisson_factor"] > 1.2
    assert rows("SELECT cenwave, grating FROM hst_interesting") == [{"cenwave": 1291, "grating": "G130M"}]


def test_targets_that_mast_cannot_be_asked_for_count_as_such(
    targets: Catalog, rows: Rows, box: Sandbox, mast: Service
) -> None:
    box.fault("/search", "status:503", times=9)
    report = pulled(targets, target="fuv")
    assert (report.failed, report.known) == (1, 0)
    assert "1 of 1 target FAILED" in report.message
    assert "0 of 0 exposures are in the lake" in report.message
    assert rows("SELECT name, status FROM coverage JOIN targets USING (target_id)") == [
        {"name": "fuv", "status": "failed"}
    ]


@pytest.mark.long
def test_what_was_calibrated_anew_is_extracted_again_and_its_composite_rebuilt(
    catalog: Catalog, rows: Rows, mast: Service
) -> None:
    one, other = dataset(mast, 1), dataset(mast, 2)
    for made in (one, other):
        assert not pulled(catalog, target=place(made)).lost
    query = "SELECT source_id, product, calibration_version, granule FROM hst_exposures ORDER BY source_id"
    before = {row["source_id"]: row for row in rows(query)}
    mast.recalibrate(one.name)
    again = pulled(catalog, target=place(one))
    assert (again.done, again.lost) == (3, False), again.message
    after = {row["source_id"]: row for row in rows(query)}
    assert set(after) == set(before)
    assert len(after) == 6
    changed = {name for name in after if after[name]["granule"] != before[name]["granule"]}
    assert changed == {exposure.rootname for exposure in one.exposures} | {
        name for name, row in after.items() if "made-1" in name and row["product"] == "composite"
    }
    assert {after[exposure.rootname]["calibration_version"] for exposure in one.exposures} == {"3.6.0 (2026-01-12)"}
    assert rows(
        "SELECT max(n) AS n FROM (SELECT count(*) AS n FROM hst_bins GROUP BY source_id, dataset, times_s)"
    ) == [{"n": 1}]
    # Other bins replace those that are there; the first ones come back when they are asked for.
    coarse = pulled(catalog, target=place(one), step_s=4.0)
    assert (coarse.done, coarse.lost) == (3, False)
    bin_s = "SELECT DISTINCT bin_s FROM hst_bins WHERE source_id = ?"
    assert rows(bin_s, one.exposures[0].rootname) == [{"bin_s": 4.0}]
    assert rows(bin_s, other.exposures[0].rootname) == [{"bin_s": 2.0}]
    assert pulled(catalog, target=place(one)).done == 3
    assert rows(bin_s, one.exposures[0].rootname) == [{"bin_s": 2.0}]
    assert errors(catalog) == []


@pytest.mark.long
def test_a_segment_alone_and_a_lamp_among_others(catalog: Catalog, rows: Rows, mast: Service) -> None:
    for number, more in enumerate(({"segments": "A"}, {"segments": "B"}, {"wavecal": True})):
        made = dataset(mast, number, n=1, **more)
        assert not pulled(catalog, target=place(made)).lost
    limits = rows(
        "SELECT y_min_a IS NOT NULL AS a, y_min_b IS NOT NULL AS b FROM hst_exposures WHERE product = 'exposure' "
        "ORDER BY target_name"
    )
    assert limits == [{"a": True, "b": False}, {"a": False, "b": True}, {"a": True, "b": True}]
    assert rows("SELECT status, count(*) AS n FROM ledger WHERE reason LIKE '%lamp%' GROUP BY ALL") == [
        {"status": "empty", "n": 1}
    ]
    assert rows("SELECT DISTINCT status FROM coverage") == [{"status": "found"}]


@pytest.mark.long
def test_broken_exposures_hold_up_nothing_and_are_retried_when_asked(
    catalog: Catalog, rows: Rows, mast: Service
) -> None:
    made = dataset(mast, 1, n=5)
    how = ("expflag", "times", "cut", "no_events")
    broken = tuple(replace(one, broken=kind) for one, kind in zip(made.exposures, how, strict=False))
    mast.add(replace(made, exposures=(*broken, made.exposures[-1])))
    report = pulled(catalog, target=place(made))
    assert (report.rejected, report.failed, report.done) == (4, 0, 2), report.message
    reasons = [row["reason"] for row in rows("SELECT reason FROM ledger WHERE status = 'rejected' ORDER BY reason")]
    assert reasons[:3] == ["Bad EXPFLAG", "No events", "Non-linear time"]
    assert "cut" in reasons[3] or "cannot be read" in reasons[3]
    held = rows("SELECT source_id FROM hst_exposures WHERE product = 'exposure'")
    assert held == [{"source_id": made.exposures[-1].rootname}]
    assert rows("SELECT status FROM coverage") == [{"status": "rejected"}]
    n = len(rows("FROM ledger"))
    again = pulled(catalog, target=place(made))
    assert (again.lost, again.rejected_before) == (False, 4)
    assert again.done == 0
    # The files are mended under the same names and sizes; only what is retried is read again.
    retried = pulled(catalog, target=place(made), retry_failed=True)
    assert retried.rejected == 4
    assert len(rows("FROM ledger WHERE status = 'rejected'")) == 8
    assert len(rows("FROM ledger")) > n
    assert errors(catalog) == []


@pytest.mark.long
def test_a_moving_target_by_name_alone(targets: Catalog, rows: Rows, mast: Service) -> None:
    one = next(each for each in mast.datasets.values() if each.exposures[0].is_moving)
    assert pulled(targets, target=place(one)).known == 0
    report = pulled(targets, hst_name="jupiter*")
    assert not report.lost, report.message
    assert rows("SELECT DISTINCT canonical_name, is_moving FROM hst_exposures") == [
        {"canonical_name": "JUPITER-NORTH", "is_moving": True}
    ]
    assert rows("SELECT service, method FROM aliases") == [{"service": None, "method": "moving_target"}]


@pytest.mark.long
def test_names_stay_raw_until_the_service_answers(
    catalog: Catalog, rows: Rows, box: Sandbox, mast: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = dataset(mast, 1, target="NGC-6833-EPOCH2")
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__SIMBAD", box.url("/nothing"))
    assert not pulled(catalog, target=place(made)).lost
    assert {row["canonical_name"] for row in rows("FROM hst_exposures")} == {"NGC-6833-EPOCH2"}
    assert rows("FROM aliases") == []
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__SIMBAD", box.endpoints["simbad"])
    assert not pulled(catalog, target=place(made)).lost
    assert {row["canonical_name"] for row in rows("FROM hst_exposures")} == {"NGC 6833"}
    # The composite of the earlier name is gone.
    assert rows("SELECT source_id FROM sources WHERE left_out = 'composite'") == [
        {"source_id": "cos-fuv_ngc 6833_g130m_1291_psa"}
    ]
    n = len(box.requests)
    assert not pulled(catalog, target=place(made)).lost
    assert not [one for one in box.requests[n:] if "simbad" in one.path]
    assert errors(catalog) == []


@pytest.mark.long
def test_a_folder(targets: Catalog, rows: Rows, mast: Service, box: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "downloaded"
    for name in [one.name for one in mast.datasets.values() if one.exposures[0].target.startswith("QSO")]:
        write_files(folder / name, mast.datasets[name])
    n = len(mast.asked)
    report = pulled(targets, files=str(folder), keep_events=True)
    assert not report.lost, report.message
    assert len(mast.asked) == n
    assert len(rows("FROM hst_exposures WHERE product = 'exposure'")) == 6
    assert len(rows("FROM hst_exposures WHERE product = 'composite'")) == 3
    assert rows("SELECT name, status FROM coverage JOIN targets USING (target_id) ORDER BY ALL") == [
        {"name": name, "status": "found"} for name in ("fuv", "nuv", "stis")
    ]
    assert len(rows("FROM matches")) == 6
    # Any other bins are one query away.
    (own,) = rows(
        "SELECT source_id FROM hst_exposures WHERE detector = 'NUV' AND product = 'exposure' ORDER BY ALL LIMIT 1"
    )
    (mine,) = rows(
        "SELECT count(*) AS n, min(x) AS x, max(wavelength) AS w, count(DISTINCT segment) AS segments FROM events "
        "WHERE source_id = ?",
        own["source_id"],
    )
    assert mine["n"] > 0
    assert rows("SELECT DISTINCT exposure_id = source_id AS same FROM events") == [{"same": True}]
    assert {row["segment"] for row in rows("SELECT DISTINCT segment FROM events")} == {
        "FUVA",
        "FUVB",
        "NUV",
        "FUV-MAMA",
    }
    before = [rows(f"FROM {name} ORDER BY ALL") for name in ("coverage", "matches", "ledger")]
    again = pulled(targets, files=str(folder), keep_events=True)
    assert (again.done, again.lost) == (0, False)
    assert [rows(f"FROM {name} ORDER BY ALL") for name in ("coverage", "matches", "ledger")] == before
    # MAST has not been asked for these targets.
    assert pulled(targets).known > 0
    assert rows("SELECT count(*) AS n FROM events") == [{"n": 0}]
    assert errors(targets) == []
    with pytest.raises(ArchiveError, match="no such folder"):
        pulled(targets, files=str(tmp_path / "elsewhere"))


@pytest.mark.long
def test_an_exposure_in_files_of_two_kinds_comes_once(
    catalog: Catalog, rows: Rows, mast: Service, tmp_path: Path
) -> None:
    made = dataset(mast, 1, "stis", n=1)
    folder = tmp_path / "downloaded"
    write_files(folder, made)
    (tag,) = folder.glob("*_tag.fits")
    tag.with_name(f"{made.exposures[0].rootname}_tag.fits").write_bytes(tag.read_bytes())
    other = dataset(mast, 2, n=1)
    write_files(folder, other)
    report = pulled(catalog, files=str(folder))
    assert (report.rejected, report.failed) == (1, 0), report.message
    assert "other files" in report.message
    assert len(rows("FROM hst_exposures WHERE product = 'exposure'")) == 2
    assert errors(catalog) == []


@pytest.mark.long
def test_a_member_whose_files_are_gone_fails_the_composite(
    catalog: Catalog, rows: Rows, mast: Service, tmp_path: Path
) -> None:
    made = dataset(mast, 1)
    folder = tmp_path / "downloaded"
    for path in write_files(folder / "first", made):
        if made.exposures[1].rootname in path.name:
            path.unlink()
    assert not pulled(catalog, files=str(folder)).lost
    (first,) = rows("SELECT granule, members FROM hst_exposures WHERE product = 'composite'")
    assert first["members"] == 1
    write_files(folder / "second", made)
    for path in (folder / "second").iterdir():
        if made.exposures[0].rootname in path.name:
            path.unlink()
    for path in (folder / "first").iterdir():
        path.unlink()
    report = pulled(catalog, files=str(folder))
    assert (report.failed, report.done) == (1, 1), report.message
    assert "the file is gone" in report.message
    assert rows("SELECT granule, members FROM hst_exposures WHERE product = 'composite'") == [first]


@pytest.mark.long
def test_what_became_public_since_the_last_look(
    catalog: Catalog, rows: Rows, mast: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    for name in list(mast.datasets):
        mast.remove(name)
    made = [
        mast.add(replace(dataset(mast, number, n=1), released=now - timedelta(days=days)))
        for number, days in enumerate((2.0, 50.0))
    ]
    ra, dec = (float(part) for part in place(made[0]).split())
    add_targets(catalog, pa.table({"name": ["there", "elsewhere"], "ra": [ra, 5.0], "dec": [dec, 5.0]}), "test")
    first = pulled(catalog, new=True)
    assert (first.lost, first.done) == (False, 2), first.message
    assert rows("SELECT name, source_id FROM matches JOIN targets USING (target_id)") == [
        {"name": "there", "source_id": made[0].exposures[0].rootname}
    ]
    ids = "SELECT source_id FROM hst_exposures WHERE product = 'exposure' ORDER BY 1"
    assert rows(ids) == [{"source_id": made[0].exposures[0].rootname}]
    n = len(mast.asked)
    assert pulled(catalog, new=True).done == 0
    assert len(mast.asked) > n
    third = mast.add(replace(dataset(mast, 3, n=1), released=datetime.now(UTC)))
    mast.recalibrate(made[0].name)
    mast.add(replace(mast.datasets[made[0].name], generated=datetime.now(UTC)))
    # Nobody can fetch them: the next look begins where this one did.
    with monkeypatch.context() as change:
        change.setattr("tasks.sources.hst_timetag.files.Files.fetch", _unreachable)
        lost = pulled(catalog, new=True)
    assert (lost.failed, lost.done) == (2, 0), lost.message
    mended = pulled(catalog, new=True)
    assert (mended.failed, mended.done) == (0, 4), mended.message
    assert [row["source_id"] for row in rows(ids)] == [one.exposures[0].rootname for one in (made[0], third)]
    assert rows("SELECT count(*) AS n FROM ledger WHERE granule = 'hst_timetag-new'") == [{"n": 3}]


def _unreachable(*_: object) -> list[Path]:
    raise ArchiveError("nobody is there", archive="hst_timetag", endpoint="here")


@pytest.mark.usefixtures("prefect_server")
def test_the_flow(targets: Catalog, rows: Rows, mast: Service, tmp_path: Path) -> None:
    one = next(each for each in mast.datasets.values() if each.exposures[0].broken == "expflag")
    add_targets(targets, pa.table({"name": ["bad"], "ra": [one.exposures[0].ra], "dec": [one.exposures[0].dec]}), "bad")
    state = pull_hst(target="fuv", pages=str(tmp_path / "pages"), return_state=True)
    assert state.is_completed(), state.message
    left = artifacts(state)
    assert (tmp_path / "pages" / "index.html").as_uri() in left["pages-hst-timetag"].data
    page = left["composites-hst-timetag"].data
    assert "1 composite of 2 exposures and 1 target," in page
    assert page.count("data:image/png;base64,") == 1
    (found,) = rows("SELECT total, round(poisson_factor, 2) AS factor FROM hst_above(0)")
    assert f"| {found['total']} | {found['factor']} |" in page
    lost = pull_hst(sample="bad", return_state=True)
    assert lost.is_failed()
    assert "Bad EXPFLAG" in str(lost.message)
    assert all(each.rootname in str(lost.message) for each in one.exposures)
    assert len(rows("FROM hst_exposures")) == 3


def test_the_command(targets: Catalog, rows: Rows, mast: Service, run: Run) -> None:
    url = str(targets.storage.root)
    assert run("hst", "fuv", "--step-s", "4", "--lake", url).code == 0
    assert rows("SELECT DISTINCT bin_s FROM hst_bins") == [{"bin_s": 4.0}]
    for wrong, word in (
        (["fuv", "--new"], "exclude each other"),
        (["nobody"], "nobody"),
        (["--wavelength-min", "1200"], "both"),
    ):
        done = run("hst", *wrong, "--lake", url)
        assert done.code == 2
        assert word in done.err
        assert len(done.err.strip().splitlines()) == 1
    done = run("pull", "hst_timetag", "--lake", url)
    assert done.code == 2
    assert "lightlake hst" in done.err


@pytest.mark.long
def test_out_and_back(targets: Catalog, rows: Rows, mast: Service, run: Run, tmp_path: Path) -> None:
    from astropy.table import Table

    url = str(targets.storage.root)
    bad = next(each for each in mast.datasets.values() if each.exposures[0].broken == "expflag")
    assert pulled(targets, target=place(bad)).rejected == 2
    assert not pulled(targets, target="fuv", keep_events=True).lost
    held = {
        name: rows(f"SELECT * EXCLUDE (granule) FROM {name} ORDER BY ALL") for name in ("hst_bins", "hst_exposures")
    }

    done = run("export", "hlsp", "--to", tmp_path / "hlsp", "--lake", url)
    assert done.code == 0, done
    files = sorted(path.name for path in (tmp_path / "hlsp").iterdir())
    assert [name for name in files if name.endswith("_curve.fits")] == [
        f"{row['source_id']}_curve.fits" for row in held["hst_exposures"] if row["product"] == "exposure"
    ]
    (product,) = (name for name in files if name.startswith("hlsp_hstlc_hst_cos-fuv_"))
    assert product.endswith("_g130m_1291_psa_v1_sci.fits")
    table = Table.read(tmp_path / "hlsp" / product, hdu=1)
    assert len(table) == len([row for row in held["hst_bins"] if row["product"] == "composite"])
    again = run("export", "hlsp", "--to", tmp_path / "hlsp", "--lake", url)
    assert "0 light curves written" in again.out
    assert "3 were there already" in again.out
    # Other bins of one exposure change it and the composite.
    assert not pulled(targets, target="fuv", step_s=4.0).lost
    first = next(name for name in files if name.endswith("_curve.fits"))
    longer = len(Table.read(tmp_path / "hlsp" / first, hdu=1))
    renewed = run("export", "hlsp", "--to", tmp_path / "hlsp", "--lake", url)
    assert "3 light curves written" in renewed.out
    assert len(Table.read(tmp_path / "hlsp" / first, hdu=1)) == longer // 2
    assert not pulled(targets, target="fuv", keep_events=True).lost

    assert run("hst", "pages", "--to", tmp_path / "pages", "--lake", url).code == 0
    assert (tmp_path / "pages" / "index.html").is_file()
    assert (tmp_path / "pages" / "composite" / product.replace(".fits", ".html")).is_file()

    assert run("hst", "reset", "events", "--yes", "--lake", url).code == 0
    assert rows("SELECT count(*) AS n FROM events") == [{"n": 0}]
    done = run("hst", "reset", "--yes", "--lake", url)
    assert done.code == 0, done
    assert "the catalogue as it was" in done.out
    for name in ("sources", "lightcurves", "statistics", "matches", "coverage", *held):
        assert rows(f"SELECT count(*) AS n FROM {name}") == [{"n": 0}]
    assert errors(targets) == []
    assert "nothing to remove" in run("hst", "reset", "--lake", url).out
    back = pulled(targets, target="fuv", keep_events=True)
    assert (back.done, back.lost) == (3, False), back.message
    for name, before in held.items():
        assert rows(f"SELECT * EXCLUDE (granule) FROM {name} ORDER BY ALL") == before
    assert pulled(targets, target=place(bad)).rejected_before == 2
    assert errors(targets) == []


def child(catalog: Catalog, tmp_path: Path, *, pause_s: float = 0.0, **options: Any) -> subprocess.Popen[bytes]:
    """Pull in another process, slowly and in small batches if it is to be killed."""
    here = {name: value for name, value in os.environ.items() if name.startswith("LIGHTLAKE_")}
    code = (
        "import time; from tasks.sources.hst_timetag import work; work.BATCH_GRANULES = 2; "
        "from lake.commit import commit; true = commit.check_staged; "
        f"commit.check_staged = lambda *a: (time.sleep({pause_s}), true(*a)); "
        "from flows import local; from tasks.sources.hst_timetag.options import HstOptions; "
        "from tasks.sources.protocol import Request; from lake.settings import load_settings; "
        f"print(local.pull({str(catalog.storage.root)!r}, "
        f"Request('hst_timetag', HstOptions.of(**{options!r})), load_settings()).message)"
    )
    environment = child_environment(**here, LIGHTLAKE_WORKERS="1")
    return subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=tmp_path, stdout=subprocess.PIPE)


def killed(catalog: Catalog, rows: Rows, tmp_path: Path, after: Sequence[int], **options: Any) -> None:
    """Kill pulls, each when the ledger has so many granules."""
    for wanted in after:
        process = child(catalog, tmp_path, pause_s=0.3, **options)
        patience = time.monotonic() + 120
        try:
            while time.monotonic() < patience and process.poll() is None:
                if rows("SELECT count(DISTINCT granule) AS n FROM ledger")[0]["n"] >= wanted:
                    break
                time.sleep(0.1)
            assert process.poll() is None, "it ended before it was told to"
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)


@pytest.mark.crash
def test_killed_and_resumed(targets: Catalog, rows: Rows, mast: Service, tmp_path: Path) -> None:
    for number in range(8):
        dataset(mast, number)
    ra, dec = zip(*((80.0 + number / 10, -45.0) for number in range(8)), strict=True)
    add_targets(targets, pa.table({"name": [f"m{number}" for number in range(8)], "ra": ra, "dec": dec}), "test")
    # Runs on a folder, with broken files, are killed more often in test_hst_kill.py.
    killed(targets, rows, tmp_path, (3, 8, 14, 19, 23) if os.environ.get("LIGHTLAKE_TEST_FULL") else (4, 15))
    report = pulled(targets)
    assert not report.lost, report.message
    # Three targets and eight, each with two exposures, and a composite of these. STIS has two exposures in a file.
    assert rows("SELECT product, count(*) AS n FROM hst_exposures GROUP BY ALL ORDER BY ALL") == [
        {"product": "composite", "n": 11},
        {"product": "exposure", "n": 22},
    ]
    assert rows(
        "SELECT count(*) AS n, count(DISTINCT granule) AS granules FROM ledger WHERE status = 'done' "
        "AND granule IN (SELECT granule FROM hst_exposures)"
    ) == [{"n": 32, "granules": 32}]
    assert len(rows("FROM matches")) == 22
    assert errors(targets) == []
