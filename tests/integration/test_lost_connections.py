"""A lock that is lost, connections that die, a server that restarts: no row is lost or doubled, and no process ends."""

import os
import random
import threading
import time
from contextlib import closing, contextmanager

import pytest
from helpers.granules import committed, content, errors, expected, register
from helpers.postgres import administrator as connected
from helpers.postgres import end_lock_sessions
from helpers.postgres import running as running_postgres
from helpers.proxy import After, AtRandom, proxy
from helpers.writers import write_at_once

from lake import query
from lake.errors import Interrupted, LightlakeError
from lake.query import Lake
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from lake.upkeep.compaction import compact

pytestmark = pytest.mark.server

FULL = bool(os.environ.get("LIGHTLAKE_TEST_FULL"))


@pytest.fixture
def administrator(postgres):
    """A connection of the database's owner."""
    with connected(postgres) as one:
        yield one


def test_who_lost_the_lock_cannot_commit_what_another_has_taken_back(administrator, new, through, monkeypatch):
    """The lock's session is ended in mid-commit; another writer recovers and commits before the first goes on."""
    register(new, range(12))
    committed(new, dict.fromkeys(range(6), 1), "g0")
    other = Catalog(Storage.from_url(through.url), through)
    other.open()
    execute, done = type(new.cursor()).execute, []

    class Slow:
        """A connection before whose COMMIT the lock is lost, and another writer comes."""

        def __init__(self, cursor):
            self.cursor = cursor

        def execute(self, sql, *values):
            if sql == "COMMIT" and not done:
                done.append(end_lock_sessions(administrator))
                assert committed(other, {2: 3, 7: 1}, "g2").n_rows
            return execute(self.cursor, sql, *values)

        def __getattr__(self, name):
            return getattr(self.cursor, name)

    lend = new.borrowed

    @contextmanager
    def lent():
        with lend() as cursor:
            yield Slow(cursor)

    monkeypatch.setattr(new, "borrowed", lent)
    committed(new, {2: 2, 6: 2}, "g1")
    assert done == [1]
    # The first was refused, and did it again, after the other.
    assert content(new) == expected({**dict.fromkeys(range(6), 1), 7: 1, 2: 2, 6: 2})
    assert errors(new) == []
    compact(other)
    assert errors(new) == []
    other.close()


def test_lock_sessions_that_end_end_no_process(administrator, new, through):
    """Four writers, while an administrator ends sessions that hold locks."""
    register(new, range(60))
    failures = []

    patient = through.model_copy(update={"lock_timeout_s": 100.0})

    def write(writer):
        catalog = Catalog(Storage.from_url(through.url), patient)
        for number in range(6):
            try:
                committed(
                    catalog, dict.fromkeys(range(10 * writer, 10 * writer + 10), number + 1), f"g{writer}-{number}"
                )
            except LightlakeError as error:
                failures.append(error)
        catalog.close()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for one in writers:
        one.start()
    ended, generator = 0, random.Random(1)
    most = 40 if FULL else 8
    while ended < most and any(one.is_alive() for one in writers):
        ended += end_lock_sessions(administrator)
        writers[0].join(generator.uniform(0.05, 0.4))
    for one in writers:
        one.join()
    assert ended >= most
    assert failures == []
    assert content(new) == expected(dict.fromkeys(range(40), 6))
    assert errors(new) == []


def test_a_server_that_is_away_is_waited_for_and_then_named(faulty, new):
    register(new, range(3))
    faulty.choose = lambda request: "reset"
    new.settings = new.settings.model_copy(update={"lock_timeout_s": 2.0})
    with pytest.raises(Interrupted, match="127") as error:
        committed(new, range(3), "g0")
    assert "\n" not in str(error.value)
    faulty.choose = lambda request: None
    assert committed(new, range(3), "g0").n_sources == 3
    assert errors(new) == []


def test_a_question_is_asked_again_if_its_connection_is_lost(faulty, new, through):
    register(new, range(3))
    committed(new, range(3), "g0")
    with Lake(through.url, through) as lake:
        assert lake.light_curve("T1").num_rows == 6
        faulty.cut()  # as when the server restarts
        assert lake.light_curve("T1").num_rows == 6
        faulty.cut()
        assert lake.sql("SELECT count(*) AS n FROM sources")["n"][0].as_py() == 3


def test_a_question_is_one_line_wherever_the_server_goes_away(faulty, new, through, monkeypatch):
    """While the lake is opened, while its files are listed, and between questions."""
    monkeypatch.setattr(query, "_AWAY_FOR_S", 0.0)
    register(new, range(3))
    committed(new, range(3), "g0")

    def ask():
        with Lake(through.url, through) as lake:
            lake.light_curve("T1")
            lake.targets()

    for number in (8, 13, *range(16, 150, 12)):
        faulty.choose = After(number)
        with pytest.raises(Interrupted, match="cannot reach the catalogue") as error:
            ask()
        assert faulty.choose.requests > number
        assert "\n" not in str(error.value)
        assert "COPY" not in str(error.value)


def test_a_first_change_ends_no_process_wherever_the_server_goes_away(faulty, new, through):
    """Also where it attaches the catalogue, while it holds the lock: in a session that is lost, too."""
    impatient = through.model_copy(update={"lock_timeout_s": 0.05})
    for number in range(14, 40, 5):
        faulty.choose = After(number)
        with closing(Catalog(Storage.from_url(through.url), impatient)) as catalog, pytest.raises(LightlakeError):
            register(catalog, range(3))
    assert faulty.choose.requests > number
    faulty.choose = lambda request: None
    register(new, range(3))
    assert errors(new) == []


def _write_at_once(settings, going, seed):
    """Let four writers commit, register and compact as long as it goes; return what each granule was, and failures."""
    brought, failures = {}, []

    def write(writer):
        generator = random.Random(seed + writer)
        catalog = Catalog(Storage.from_url(settings.url), settings)
        number = 0
        while going():
            number += 1
            name = f"g{writer}-{number}"
            change = {10 * writer + source: number for source in generator.sample(range(10), 4)}
            try:
                register(catalog, change, f"sample{number % 3}")
                brought[name] = change
                committed(catalog, change, name)
                if generator.random() < 0.1:
                    compact(catalog)
            except LightlakeError:  # whole or not at all, as the ledger says
                continue
            except BaseException as error:
                failures.append(error)
                raise
        catalog.close()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    return brought, failures


def _check(catalog, brought, failures):
    """Compare a lake with one in which nothing ever failed."""
    assert failures == []
    wanted = {}
    with closing(catalog.cursor()) as cursor:
        order = cursor.execute("SELECT granule FROM ledger ORDER BY snapshot_id").fetchall()
    for (granule,) in order:
        wanted.update(brought[granule])
    assert len({granule for (granule,) in order}) == len(order) >= 4
    assert content(catalog) == expected(wanted)
    # What DuckLake wrote for a change that was cut short may lie there until somebody writes again.
    assert {finding.check for finding in errors(catalog)} <= {"orphans"}
    compact(catalog)
    assert content(catalog) == expected(wanted)
    assert errors(catalog) == []


FAULTS = 200 if FULL else 6


@pytest.mark.crash
@pytest.mark.timeout(3000 if FULL else 300)
def test_four_writers_whose_connections_to_postgresql_fail(faulty, new, through, tmp_path_factory):
    faulty.choose = choose = AtRandom(11, 0.004)
    brought = write_at_once(through, tmp_path_factory.mktemp("writers"), lambda: faulty.faults < FAULTS, 7)
    choose.quiet = True
    _check(new, brought, [])


@pytest.mark.crash
@pytest.mark.timeout(3000 if FULL else 300)
def test_four_writers_whose_connections_to_s3_fail(s3, s3_lake, tmp_path, monkeypatch):
    settings = load_settings(url=s3_lake, catalog=f"sqlite:{tmp_path / 'catalog.sqlite'}", lock_timeout_s=60.0)
    with closing(Catalog(Storage.from_url(settings.url), settings)) as catalog:
        catalog.create()
        with proxy("127.0.0.1", s3.ports["s3"]) as faulty:
            for name, value in s3.environment_at(f"http://127.0.0.1:{faulty.port}").items():
                monkeypatch.setenv(name, value)
            faulty.choose = choose = AtRandom(13, 0.05)
            brought, failures = _write_at_once(settings, lambda: faulty.faults < FAULTS, 17)
            choose.quiet = True
            _check(catalog, brought, failures)


@pytest.mark.crash
@pytest.mark.timeout(9000 if FULL else 300)
def test_four_writers_while_the_server_restarts(tmp_path):
    """With LIGHTLAKE_TEST_FULL for two hours."""
    generator = random.Random(3)
    longest, wait = (7200, 8) if FULL else (10, 3)
    with running_postgres() as server:
        settings = load_settings(
            url=str(tmp_path / "lake"), catalog=f"postgres:{server.connection} schema=lake", lock_timeout_s=100.0
        )
        with closing(Catalog(Storage.from_url(settings.url), settings)) as catalog:
            catalog.create()
            end = threading.Event()
            restarts = []

            def restart():
                started = time.monotonic()
                while time.monotonic() - started < longest:
                    end.wait(generator.uniform(1, wait))
                    server.stop(generator.choice(["fast", "immediate"]))
                    end.wait(generator.uniform(0, 2))
                    server.start()
                    restarts.append(True)
                end.set()

            restarter = threading.Thread(target=restart)
            restarter.start()
            brought, failures = _write_at_once(settings, lambda: not end.is_set(), 23)
            restarter.join()
            assert len(restarts) >= 2
            _check(catalog, brought, failures)
