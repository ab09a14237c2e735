"""From a real TAP service into the lake: 50,000 targets in bounded memory, killed and resumed; and splitting."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.dachs import Dachs
from helpers.processes import child_environment, lightlake
from helpers.servers import PrefectServer
from helpers.tap_tables import TABLES, positions_in, sky

from deployments.sandbox.gaia import DataLink
from deployments.sandbox.server import Sandbox
from lake.commit.targets import add_targets
from lake.query import Lake
from lake.science.sky import match
from lake.settings import Settings
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.pull import commit_batch, fetch_batch, lake_at, plan_batches
from tasks.register import register_archive
from tasks.sources import heasarc
from tasks.sources.gaia import archive as gaia

pytestmark = pytest.mark.server

FULL = bool(os.environ.get("LIGHTLAKE_TEST_FULL"))
TARGETS = 50_000 if FULL else 6_000
SOURCES = TABLES["gaiadr3.gaia_source"]
Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def datalink() -> Iterator[str]:
    """Epoch photometry of the real service's sources; DaCHS has no DataLink of Gaia's kind."""
    with Sandbox() as box:
        lit = SOURCES.filter(SOURCES["has_epoch_photometry"])["source_id"].to_numpy()
        yield DataLink(box, "/gaia/data", lit, 7).url


@pytest.fixture
def reached(
    dachs: Dachs, datalink: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """The environment of a pull from it."""
    values = {
        "LIGHTLAKE_URL": settings.url,
        "LIGHTLAKE_RETRY_DELAY_S": "0.5",
        "LIGHTLAKE_ENDPOINTS__GAIA": dachs.url,
        "LIGHTLAKE_ENDPOINTS__GAIA_DATALINK": datalink,
        "LIGHTLAKE_ENDPOINTS__HEASARC": dachs.url,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    heasarc._count_without_position.cache_clear()
    yield values
    lake_at.cache_clear()


def register(catalog: Catalog, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Register n targets, half of them at a source of Gaia's, less than an arcsecond off."""
    rng = np.random.default_rng(50_000)
    ra, dec = sky(rng, n)
    row = rng.choice(SOURCES.num_rows, n // 2, replace=False)
    there = positions_in("gaiadr3.gaia_source")
    ra[: n // 2] = there[0][row]
    dec[: n // 2] = np.clip(there[1][row] + rng.uniform(-0.9, 0.9, n // 2) / 3600, -90, 90)
    add_targets(catalog, pa.table({"ra": ra, "dec": dec, "name": [f"T{i}" for i in range(n)]}), "many")
    return ra, dec


def pull(lake: Lake, name: str, **parameters: Any) -> None:
    source = gaia.ARCHIVE if name == "gaia" else {a.name: a for a in heasarc.ARCHIVES}[name]
    register_archive(lake, source)
    asked = source.with_defaults(parameters)
    for batch in plan_batches(lake, source, asked, None, lake.storage.staging / "pull"):
        commit_batch(lake.settings.url, fetch_batch(batch))


def errors(catalog: Catalog) -> list[str]:
    return [finding.message for finding in verify(catalog) if finding.is_error]


def test_what_is_cut_is_split_until_it_fits(
    catalog: Catalog, lake: Lake, rows: Rows, reached: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ra, dec = register(catalog, 400)
    monkeypatch.setattr(gaia, "_MAXREC", 40)
    pull(lake, "gaia")
    assert errors(catalog) == []
    ledger = rows("FROM ledger ORDER BY started_at")
    split = [row for row in ledger if row["status"] == "split"]
    assert len(split) >= 4, "200 pairs, 39 at a time at most"
    for row in split:
        assert row["error_type"] == "TruncatedAnswer"
        assert (
            f"the answer was cut at 40 rows [{reached['LIGHTLAKE_ENDPOINTS__GAIA']}]; asked again as gaia-"
            in row["reason"]
        )
    assert sum(row["n_targets"] for row in ledger if row["status"] in ("done", "empty")) == 400
    assert rows("SELECT count(*) AS n FROM coverage WHERE status <> 'failed'") == [{"n": 400}]
    one, _, _ = match(ra, dec, *positions_in("gaiadr3.gaia_source"), 1.0)
    assert rows("SELECT count(*) AS n FROM matches") == [{"n": len(one)}]


def test_a_single_target_that_is_cut_fails_by_name(
    catalog: Catalog, lake: Lake, rows: Rows, reached: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ra, dec = positions_in("icecubepsc")
    add_targets(catalog, pa.table({"ra": ra[:3], "dec": dec[:3], "name": ["a", "b", "c"]}), "few")
    monkeypatch.setattr(heasarc, "CAP", 1)
    pull(lake, "icecubepsc")
    ledger = rows("SELECT status, n_targets, reason FROM ledger ORDER BY started_at")
    assert [(row["status"], row["n_targets"]) for row in ledger if row["status"] == "split"] == [
        ("split", 3),
        ("split", 2),
    ]
    failed = [row for row in ledger if row["status"] == "failed"]
    assert failed
    assert all("the answer was cut at" in row["reason"] for row in failed)
    assert rows("SELECT count(*) AS n FROM coverage") == [{"n": 3}]


@pytest.mark.parametrize("name", ["fermigtrig", "saxgrbmgrb", "icecubepsc"])
def test_events_of_heasarc(catalog: Catalog, lake: Lake, rows: Rows, reached: dict[str, str], name: str) -> None:
    ra, dec = register(catalog, 1500)
    pull(lake, name)
    assert errors(catalog) == []
    event_ra, event_dec = positions_in(name)
    radius = TABLES[name]["error_radius"].to_numpy()
    _, event, distance = match(ra, dec, np.nan_to_num(event_ra), np.nan_to_num(event_dec, nan=-90.0), 3 * 3600.0)
    limit, reach = {"fermigtrig": (1.0, 180), "saxgrbmgrb": (3.0, 180), "icecubepsc": (np.inf, 2.0)}[name]
    near = (radius[event] < limit) & (distance <= radius[event] * 3600) & (distance <= reach * 3600)
    near &= np.isfinite(event_ra[event])
    assert rows("SELECT count(*) AS n FROM matches") == [{"n": int(near.sum())}]
    assert rows("SELECT count(*) AS n FROM sources") == [{"n": len(np.unique(event[near]))}]
    assert rows("SELECT count(*) AS n FROM coverage") == [{"n": 1500}]
    lost = int(np.isnan(event_ra).sum())
    reasons = {row["reason"] for row in rows("SELECT reason FROM ledger")}
    assert reasons == {f"{lost} events of {name} have no position and match nothing" if lost else None}


def test_one_more_table_by_configuration(catalog: Catalog, rows: Rows, reached: dict[str, str], tmp_path: Path) -> None:
    """The setting of the how-to page in the environment, and the command after it."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "heasarc-table.md").read_text()
    described = re.search(r"LIGHTLAKE_TABLES__XMMSSC='(.*?)'", page, re.S)
    ra, dec = positions_in("xmmssc")
    names = [f"X{n}" for n in range(200)]
    add_targets(catalog, pa.table({"ra": ra[:200], "dec": dec[:200] + 4 / 3600, "name": names}), "x")
    environment = {**reached, "LIGHTLAKE_TABLES__XMMSSC": described[1]}
    done = lightlake("pull", "xmmssc", cwd=tmp_path, environment=environment)
    assert (done.returncode, done.stdout) == (0, "xmmssc: 200 of 200 targets answered, 200 rows\n")
    assert errors(catalog) == []
    flux = dict(zip(*(TABLES["xmmssc"][name].to_pylist() for name in ("detid", "ep_8_flux")), strict=True))
    for row in rows("SELECT source_id, flux, unit, separation_arcsec FROM target_lightcurves"):
        wanted = flux[int(row["source_id"])]
        assert row["flux"] == (None if wanted is None else pytest.approx(wanted, rel=1e-6))
        assert row["unit"] == "erg.cm**-2.s**-1"
        assert row["separation_arcsec"] == pytest.approx(4.0, abs=1e-3)


@pytest.mark.timeout(900)
def test_many_targets_in_bounded_memory_killed_and_resumed(
    catalog: Catalog, rows: Rows, reached: dict[str, str], prefect_server: PrefectServer, tmp_path: Path
) -> None:
    ra, dec = register(catalog, TARGETS)
    environment = {
        **reached,
        **prefect_server.environment,
        "LIGHTLAKE_WORKERS": "2",
        "LIGHTLAKE_ARCHIVE_CONCURRENCY": "2",
    }
    child = subprocess.Popen(
        [sys.executable, "-c", "from lake.cli import main; main()", "pull", "gaia"],
        cwd=tmp_path,
        env=child_environment(**environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    answered = threading.Event()

    def kill_when_some_are_answered() -> None:
        # Granules are committed one by one: when the second is shown, the first is in.
        while not answered.wait(0.02):
            if child.poll() is not None or len(list(catalog.storage.table_files("coverage"))) >= 2:
                child.send_signal(signal.SIGKILL)
                return

    watcher = threading.Thread(target=kill_when_some_are_answered)
    watcher.start()
    child.wait(400)
    answered.set()
    watcher.join()
    assert child.returncode == -signal.SIGKILL
    before = rows("SELECT count(*) AS n FROM coverage")[0]["n"]
    assert 0 < before < TARGETS
    done = lightlake("pull", "gaia", cwd=tmp_path, environment=environment, timeout_s=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"gaia: {TARGETS - before} of {TARGETS - before} targets answered")
    assert errors(catalog) == []
    assert rows("SELECT status <> 'failed' AS ok, count(DISTINCT target_id) AS n FROM coverage GROUP BY ALL") == [
        {"ok": True, "n": TARGETS}
    ]
    one, _, _ = match(ra, dec, *positions_in("gaiadr3.gaia_source"), 1.0)
    assert rows("SELECT count(*) AS n FROM matches") == [{"n": len(one)}]
    assert rows("SELECT count(*) AS n FROM (SELECT DISTINCT source_id, band, mjd FROM lightcurves)") == rows(
        "SELECT count(*) AS n FROM lightcurves"
    )
    if not FULL:  # so few granules show no growth; benchmarks.tap does
        return
    # Peaks as the resumed process knew them, in the order of its granules.
    peaks = [row["peak_rss_mb"] for row in rows("SELECT peak_rss_mb FROM ledger ORDER BY started_at")][before // 2000 :]
    assert max(peaks) < 1.25 * max(peaks[: max(4, len(peaks) // 4)])
