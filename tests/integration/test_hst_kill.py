"""HST exposures from a folder, some broken in every way, by runs killed at random: nothing lost, nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.processes import child_environment

from deployments.sandbox import simbad
from deployments.sandbox.hst_datasets import survey, write_files
from deployments.sandbox.hst_events import BROKEN, Exposure
from deployments.sandbox.server import Sandbox
from lake.errors import GranuleRejected
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.sources.hst_timetag.composites import Group, Member, composite
from tasks.sources.hst_timetag.exposure import open_exposure, open_exposures
from tasks.sources.hst_timetag.extract import Selection
from tasks.sources.hst_timetag.files import Files
from tasks.sources.hst_timetag.options import HstOptions
from tasks.sources.hst_timetag.products import bin_rows
from tasks.sources.hst_timetag.work import Job

Rows = Callable[..., list[dict[str, Any]]]
Bins = dict[str, pa.Table]

pytestmark = pytest.mark.crash

FULL = bool(os.environ.get("LIGHTLAKE_TEST_FULL"))
# Numbers of exposures and targets, and the share that is broken: in the short test, too, each way occurs.
EXPOSURES, TARGETS, SHARE = (500, 23, 0.05) if FULL else (40, 9, 1 / 4)
KILLS = 5 if FULL else 3
# The published list of bad proposals is empty.
WAYS = tuple(how for how in BROKEN if how != "proposal")
REASONS = {
    "expflag": "Bad EXPFLAG",
    "no_events": "No events",
    "times": "Non-linear time",
    "singular": "Singular event",
    "short": "Short Exposure",
}

# Batches are small, so that there is much to interrupt.
RUN = """
import sys
from flows import local
from lake.settings import load_settings
from tasks.sources.hst_timetag import work
from tasks.sources.hst_timetag.options import HstOptions
from tasks.sources.protocol import Request
url, folder, granules = sys.argv[1:]
work.BATCH_GRANULES = int(granules)
outcome = local.pull(url, Request("hst_timetag", HstOptions(files=folder)), load_settings())
if isinstance(outcome, Exception):
    raise outcome
sys.exit(1 if outcome.failed else 0)
"""


def start(url: str, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    ours = {name: value for name, value in os.environ.items() if name.startswith("LIGHTLAKE_")}
    command = [sys.executable, "-c", RUN, url, str(folder), "8" if FULL else "2"]
    environment = child_environment(**ours, LIGHTLAKE_WORKERS="2", LIGHTLAKE_TURN_TIMEOUT_S="600")
    with log.open("ab") as errors:
        return subprocess.Popen(command, env=environment, stdout=errors, stderr=errors)


def direct(paths: Mapping[str, list[Path]], exposures: Mapping[str, Exposure]) -> tuple[Bins, dict[str, str]]:
    """Extract exposures, then composites of them; return bins by source, and why exposures have none."""
    bins, reasons, groups = Bins(), dict[str, str](), dict[Group, list[str]]()
    for name in sorted(paths):
        try:
            with open_exposures(paths[name]) as (one,):
                one.check()
                bins[name] = bin_rows([(name, one.curve(Selection()))], "exposure")
                number = int(exposures[name].target.rpartition("-")[2])
                groups.setdefault(Group.of(one.first, f"V* S{number}"), []).append(name)
        except GranuleRejected as error:
            reasons[name] = str(error)
    for group, members in groups.items():
        made = composite([Member(name, partial(open_exposure, paths[name], name)) for name in members])
        bins[group.source_id] = bin_rows(made.curves, "composite")
    return bins, reasons


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reach a service of names that knows the survey's targets."""
    with Sandbox.start(tmp_path / "box", archives=[]) as box:
        known = simbad.serve(box, [(f"V* S{number}", f"SURVEY-{number:03d}") for number in range(TARGETS)])
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__SIMBAD", known.url)
        for name in ("lref", "oref"):
            monkeypatch.delenv(name, raising=False)
        yield


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("pull_settings", "names")
def test_runs_killed_at_random_lose_nothing(catalog: Catalog, rows: Rows, tmp_path: Path) -> None:
    folder, log, chance = tmp_path / "exposures", tmp_path / "log", random.Random(19)
    made = survey(EXPOSURES, seed=19, length_s=24.0, broken=SHARE, targets=TARGETS)
    paths = {one.exposures[0].rootname: write_files(folder / one.name, one) for one in made}
    exposures = {one.exposures[0].rootname: one.exposures[0] for one in made}
    bad = {name: str(one.broken) for name, one in exposures.items() if one.broken in WAYS}
    assert set(bad.values()) == set(WAYS)
    assert len({exposures[name].setup for name in bad}) > 2

    url, kills = str(catalog.storage.root), 0
    # Each run ends at a moment of its own: after some entries of the ledger, and a little later.
    moments = [*sorted(chance.sample(range(1, EXPOSURES), KILLS - 1)), EXPOSURES + 1 + chance.randrange(1, TARGETS - 3)]
    for entries in moments:
        child = start(url, folder, log)
        try:
            end = time.monotonic() + 300
            while child.poll() is None and time.monotonic() < end:
                if rows("SELECT count(*) AS n FROM ledger")[0]["n"] >= entries:
                    break
                time.sleep(0.05)
            time.sleep(chance.uniform(0, 0.4))
            kills += child.poll() is None
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(60)
    assert kills == KILLS, log.read_text()[-3000:]
    both = [start(url, folder, log) for _ in range(2)]
    try:
        codes = [one.wait(timeout=900) for one in both]
    finally:
        for one in both:
            one.kill()
            one.wait()
    assert codes == [0, 0], log.read_text()[-3000:]

    expected, reasons = direct(paths, exposures)
    assert set(reasons) == set(bad)
    assert all(REASONS[how] in reasons[name] for name, how in bad.items() if how in REASONS)
    options = HstOptions(files=str(folder))
    with Files(options.files, load_settings()) as files:
        granules = {Job(one.rootname, (one,)).granule(options.extraction): one for one in files.pieces()}
    # STIS files are named by their association.
    rootnames = {path.name[:9]: name for name, found in paths.items() for path in found if not name.startswith("l")}
    ended = rows("SELECT granule, status, reason FROM ledger WHERE granule IN (SELECT unnest(?))", list(granules))
    of_each = {rootnames.get(one.rootname, one.rootname): granule for granule, one in granules.items()}
    assert len(ended) == len({row["granule"] for row in ended}) == EXPOSURES, "each exposure has one entry"
    ledger = {row["granule"]: row for row in ended}
    for name, granule in of_each.items():
        status, reason = ledger[granule]["status"], ledger[granule]["reason"]
        assert (status, reason) == (("rejected", reasons[name]) if name in bad else ("done", None)), name

    columns = expected[next(iter(expected))].column_names
    held = rows(f"SELECT source_id, {', '.join(columns)} FROM hst_bins ORDER BY source_id, dataset, times_s")
    found: dict[str, list[dict[str, Any]]] = {}
    for row in held:
        found.setdefault(row.pop("source_id"), []).append(row)
    assert set(found) == set(expected)
    for name, table in expected.items():
        assert found[name] == table.to_pylist(), name
    for table in ("hst_exposures", "hst_statistics", "sources"):
        ids = Counter(row["source_id"] for row in rows(f"SELECT source_id FROM {table}"))
        assert ids == Counter(expected.keys()), table
    light = rows("SELECT source_id, count(*) AS n, count(DISTINCT mjd) AS times FROM lightcurves GROUP BY ALL")
    assert {row["source_id"]: (row["n"], row["times"]) for row in light} == {
        name: (table.num_rows, table.num_rows) for name, table in expected.items() if name in exposures
    }
    assert len(rows("FROM aliases")) == len({one.target for name, one in exposures.items() if name not in bad})
    assert [finding.message for finding in verify(catalog) if finding.is_error] == []
