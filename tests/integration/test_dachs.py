"""The queries of the archives that speak TAP, on a real TAP service: what comes back is what brute force finds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from helpers.dachs import Dachs
from helpers.tap_tables import TABLES, YEARS, around, expected_pairs, pairs_of, positions_in, targets_near
from pyvo.dal import TAPService

from lake.errors import ArchiveError, TruncatedAnswer
from tasks.services.tap import Service
from tasks.sources.gaia.archive import adql
from tasks.sources.heasarc import ICECUBEPSC, SAXGRBMGRB

pytestmark = pytest.mark.server

GAIA, GAIA_MOVED = (adql(pa.table({"years": [years]})) for years in (0.0, YEARS))
BURSTS = SAXGRBMGRB.adql(SAXGRBMGRB.parameters())
EVENTS = ICECUBEPSC.adql(ICECUBEPSC.parameters())
# Some 4e9 rows to look at: minutes.
ENDLESS = """
    SELECT COUNT(*) AS n FROM gaiadr3.gaia_source AS a, gaiadr3.gaia_source AS b WHERE SIN(a.ra * b.dec) > 0.5"""


@pytest.fixture
def ask(dachs: Dachs) -> Callable[..., Table]:
    """A synchronous query by bare pyvo."""

    def ask(query: str, targets: Table | None = None) -> Table:
        uploads = None if targets is None else {"targets": targets}
        return TAPService(dachs.url).run_sync(query, uploads=uploads, maxrec=100_000).to_table()

    return ask


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("gaiadr3.gaia_source", "random_index"),
        ("fermigtrig", "name"),
        ("saxgrbmgrb", "name"),
        ("icecubepsc", "time"),
        ("xmmssc", "detid"),
    ],
)
def test_tables_hold_what_they_were_given(ask, name, key):
    given = TABLES[name].slice(0, 1000)
    answer = ask(f'SELECT TOP 1000 * FROM {name} ORDER BY "{key}"')
    assert answer.colnames == given.column_names
    for column in given.column_names:
        # A VOTable of DaCHS does not tell a NULL text from an empty one; the counts below do.
        null = "" if given.schema.field(column).type == pa.string() else None
        assert answer[column].tolist() == [null if value is None else value for value in given[column].to_pylist()]
    nulls = {column: TABLES[name][column].null_count for column in given.column_names}
    counted = ", ".join(f'COUNT("{column}") AS n_{column}' for column in nulls)
    counts = ask(f"SELECT COUNT(*) AS n, {counted} FROM {name}")[0]
    assert {column: counts["n"] - counts[f"n_{column}"] for column in nulls} == nulls
    assert counts["n"] == TABLES[name].num_rows


def test_simple_questions(ask):
    lost = TABLES["saxgrbmgrb"]["ra"].null_count
    assert lost > 0
    assert ask("SELECT COUNT(*) AS n FROM saxgrbmgrb WHERE ra IS NULL OR dec IS NULL")["n"].tolist() == [lost]
    assert len(ask("SELECT TOP 5 * FROM saxgrbmgrb")) == 5
    varying = ask("SELECT source_id FROM gaiadr3.gaia_source WHERE has_epoch_photometry = 'True'")["source_id"]
    gaia = TABLES["gaiadr3.gaia_source"]
    assert sorted(varying.tolist()) == sorted(gaia.filter(gaia["has_epoch_photometry"])["source_id"].to_pylist())


@pytest.mark.parametrize("moved", [False, True])
def test_gaia_sources_around_targets(ask, dachs, moved):
    name = "gaiadr3.gaia_source"
    targets = targets_near(5000, positions_in(name), 30 / 3600)
    before = _index_scans(dachs, "gaia_source")
    answer = ask(GAIA_MOVED if moved else GAIA, targets)
    one, other, distance = around(targets, name, 0.06)
    near = distance <= targets["reach_deg"][one]
    if moved:
        motion = np.hypot(*(TABLES[name][column].to_numpy()[other] for column in ("pmra", "pmdec")))
        radius = targets["radius_deg"][one]
        with np.errstate(invalid="ignore"):
            near &= (distance <= radius) | (distance <= radius + YEARS * motion / 3.6e6)
    assert near.sum() > 500
    assert pairs_of(answer, "source_id") == expected_pairs(targets, one[near], name, other[near], "source_id")
    # Some still sources are only within the radius itself.
    assert np.ma.count_masked(answer["pmra"]) > 10
    # One look into the index for each target is what keeps this from 3e8 distances.
    patience = time.monotonic() + 20
    while _index_scans(dachs, "gaia_source") - before < 5000 and time.monotonic() < patience:
        time.sleep(0.2)
    assert _index_scans(dachs, "gaia_source") - before >= 5000


def _index_scans(dachs: Dachs, table: str) -> int:
    return int(dachs.sql(f"SELECT SUM(idx_scan) FROM pg_stat_user_indexes WHERE relname = '{table}'"))


def test_bursts_that_may_be_at_targets(ask):
    name = "saxgrbmgrb"
    targets = targets_near(2000, positions_in("fermigtrig"), 3.0)
    one, other, distance = around(targets, name, 3.0)
    radius = TABLES[name]["error_radius"].to_numpy()[other]
    near = (radius < 3.0) & (distance <= radius)
    assert near.sum() > 100
    assert pairs_of(ask(BURSTS, targets), "name") == expected_pairs(targets, one[near], name, other[near], "name")


def test_events_at_targets(ask):
    name = "icecubepsc"
    targets = targets_near(500, positions_in(name), 2.0)
    one, other, distance = around(targets, name, 2.0)
    near = distance < TABLES[name]["error_radius"].to_numpy()[other]
    assert near.sum() > 500
    assert pairs_of(ask(EVENTS, targets), "time") == expected_pairs(targets, one[near], name, other[near], "time")


@pytest.fixture
def service(dachs: Dachs) -> Service:
    """Our own client."""
    return Service("gaia", dachs.url, timeout_s=30, deadline_s=60)


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by([("target_id", "ascending"), ("source_id", "ascending")])


def test_our_client_gets_the_same_sync_and_async(service, ask):
    targets = targets_near(1000, positions_in("gaiadr3.gaia_source"), 30 / 3600)
    uploads = {"targets": pa.table({name: pa.array(np.asarray(targets[name])) for name in targets.colnames})}
    sync = _sorted(service.query(GAIA_MOVED, uploads, maxrec=50_000))
    assert _sorted(service.query(GAIA_MOVED, uploads, maxrec=50_000, asynchronous=True)).equals(sync)
    bare = ask(GAIA_MOVED, targets)
    bare.sort(["target_id", "source_id"])
    assert sync.column_names == bare.colnames
    assert {name: sync[name].to_pylist() for name in bare.colnames} == {c: bare[c].tolist() for c in bare.colnames}
    assert sync["pmra"].null_count > 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_overflow_is_a_truncated_answer(service, asynchronous):
    with pytest.raises(TruncatedAnswer, match="100 rows"):
        service.query("SELECT * FROM saxgrbmgrb", maxrec=100, asynchronous=asynchronous)
    rows = service.query("SELECT TOP 100 * FROM saxgrbmgrb", maxrec=101, asynchronous=asynchronous)
    assert rows.num_rows == 100


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELECT FROM saxgrbmgrb", "Could not parse your query: Expected select list"),
        ("SELECT 1 / (detid - detid) AS x FROM xmmssc", "division by zero"),
    ],
)
def test_what_the_service_refuses_is_said_in_its_own_words(service, dachs, query, told, asynchronous):
    with pytest.raises(ArchiveError, match=told) as error:
        service.query(query, maxrec=100, asynchronous=asynchronous)
    assert not isinstance(error.value, TruncatedAnswer)
    assert error.value.archive == "gaia"
    assert error.value.endpoint == dachs.url
    assert _jobs(dachs) == {}


def test_a_query_that_cannot_be_parsed_is_not_to_be_asked_again(service):
    with pytest.raises(ArchiveError) as error:
        service.query("SELECT FROM saxgrbmgrb", maxrec=100)
    assert not error.value.transient


def test_an_aborted_job_is_an_error(service, dachs):
    abortion = threading.Thread(target=_abort_the_job, args=(dachs,))
    abortion.start()
    with pytest.raises(ArchiveError, match="phase ABORTED"):
        service.query(ENDLESS, maxrec=100, asynchronous=True)
    abortion.join()
    assert _jobs(dachs) == {}
    assert _query_ends(dachs)


def _abort_the_job(dachs: Dachs) -> None:
    """Abort the one job at the service as soon as its query runs."""
    patience = time.monotonic() + 40
    while not (_queries(dachs) and _jobs(dachs)) and time.monotonic() < patience:
        time.sleep(0.1)
    for job in _jobs(dachs):
        httpx.post(f"{dachs.url}/async/{job}/phase", data={"PHASE": "ABORT"}, follow_redirects=True)


@pytest.fixture(scope="module")
def overdue(dachs: Dachs) -> Iterator[tuple[ArchiveError, dict[str, str]]]:
    """A job that came to its deadline: the error, and the jobs that the service then had."""
    with pytest.raises(ArchiveError, match="the job is still EXECUTING after 5 s, given up") as error:
        Service("gaia", dachs.url, timeout_s=30, deadline_s=5).query(ENDLESS, maxrec=100, asynchronous=True)
    yield error.value, _jobs(dachs)
    # Else every later test would share the cores with it.
    dachs.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'untrusted'")


def test_after_the_deadline_the_job_is_deleted(overdue):
    error, jobs = overdue
    assert error.transient
    assert jobs == {}


def test_after_the_deadline_the_query_ends(overdue, dachs):
    assert _query_ends(dachs)


def _query_ends(dachs: Dachs) -> bool:
    """Whether the database soon has nothing to do for users."""
    patience = time.monotonic() + 5
    while _queries(dachs) and time.monotonic() < patience:
        time.sleep(0.2)
    return _queries(dachs) == []


def _queries(dachs: Dachs) -> list[str]:
    """Processes of the database that work on users' queries."""
    return dachs.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'untrusted' AND state = 'active'").split()


def _jobs(dachs: Dachs) -> dict[str, str]:
    """Phase of each job that the service has of this file's tests."""
    lines = dachs.sql("SELECT jobid, phase FROM tap_schema.tapjobs").split()
    return {job: phase for job, phase in (line.split("|", 1) for line in lines) if job not in _OF_OTHERS}


# Jobs that processes of other tests left when they were killed.
_OF_OTHERS: set[str] = set()


@pytest.fixture(scope="module", autouse=True)
def _know_the_jobs_of_others(dachs: Dachs) -> None:
    _OF_OTHERS.update(_jobs(dachs))
