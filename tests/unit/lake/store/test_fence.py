"""The fence: only the newest holder of the lock commits, and nobody takes back what a living commit has shown."""

from contextlib import closing, nullcontext, suppress

import pytest
from helpers.granules import ARCHIVE, committed, content, count, errors, expected, register

from lake.commit.intents import PUBLISHING, Intent, recover, unknown_files
from lake.commit.transaction import Change
from lake.errors import CatalogError, Interrupted
from lake.store import fence
from lake.store.backup import copy_database
from lake.store.catalog import Catalog
from lake.store.pruning import METADATA
from lake.store.storage import Storage, publish


def _number(catalog):
    with closing(catalog.cursor()) as cursor:
        return fence.newest(cursor, catalog.location)


def _fill(catalog):
    register(catalog, range(10))
    committed(catalog, range(6), "g0")


@pytest.fixture
def held(prepared):
    return prepared(_fill)


@pytest.fixture
def lockless(held, on_disk, monkeypatch):
    """Another process's handle of the same lake, on a file system that loses locks."""
    other = Catalog(Storage.from_url(held.settings.url), held.settings)
    other.open()
    monkeypatch.setattr(other, "_held", lambda *_, **__: nullcontext(True))
    yield other
    other.close()


def test_numbers_follow_each_other_and_the_clock(held):
    first = _number(held)
    assert first > 1.7e12  # milliseconds since 1970
    with held.lock() as second:
        assert second > first
    with held.lock(reading=True) as none:
        assert none == 0
    assert _number(held) == second


def test_numbers_grow_where_the_clock_was_set_back(held):
    ahead = "UPDATE lightlake_fence SET number = number + 86400000 RETURNING number"
    with closing(held.cursor()) as cursor:
        (found,) = cursor.execute(f"FROM sqlite_query('{METADATA}', ?)", [ahead]).fetchall()
    with held.lock() as first:
        pass
    with held.lock() as second:
        pass
    assert int(found[0]) < first < second


def test_a_number_is_newer_than_all_before_where_an_older_catalogue_was_brought_back(held, tmp_path, on_disk):
    copy = tmp_path / "older.sqlite"
    copy_database(held.location.target, copy)
    before = _number(held)
    for _ in range(3):
        with held.lock() as newest:
            pass
    held.close()
    copy_database(copy, held.location.target)
    held.open()
    assert _number(held) == before
    with held.lock() as after:
        pass
    assert after > newest


def test_who_was_overtaken_is_refused_and_does_it_again(held, lockless, monkeypatch):
    """Two that both think they have the lock; the second comes and goes before the first one's COMMIT."""
    commit, came = Change._commit, []

    def slow(change):
        if not came and change.catalog is held:
            came.append(committed(lockless, {2: 3, 7: 1}, "g2").granule)
            # It took back what the first had shown: the first must not be able to register it.
            assert not any((held.storage.data / "main" / name).exists() for name in change._intent.files)
        commit(change)

    monkeypatch.setattr(Change, "_commit", slow)
    committed(held, {2: 2, 6: 2}, "g1")
    assert came == ["g2"]
    assert content(held) == expected({**dict.fromkeys(range(6), 1), 7: 1, 2: 2, 6: 2})
    assert errors(held) == []
    assert count(held, "ledger") == 3


def test_the_database_refuses_an_old_number_and_files_stay_as_they_are(held, on_disk):
    before = content(held)
    with held.lock() as number:
        pass
    with held.lock():
        pass

    def late() -> None:
        with held.changing(), Change(held, number) as change:
            change.cursor.execute("DELETE FROM lightcurves WHERE source_id = 's3'")
            change.keep_aside(("lightcurves",), ARCHIVE)

    with pytest.raises(Interrupted):
        late()
    assert content(held) == before
    with held.lock() as newest:
        recover(held, newest)
    assert errors(held) == []


def test_a_file_that_another_writer_takes_back_meanwhile_stops_nobody(held, on_disk, monkeypatch):
    """As when that one lost its lock after it had shown its files."""
    another = held.storage.table_folder("lightcurves", ARCHIVE) / "taken-back.parquet"
    monkeypatch.setattr("lake.commit.transaction._of_partition", lambda *_: [another])
    with held.lock() as number, held.changing(), Change(held, number, rewrites=True) as change:
        change.cursor.execute("DELETE FROM labels")
        change.keep_aside(("labels",))
    assert count(held, "labels") == 0
    assert errors(held) == []


def test_who_was_overtaken_takes_nothing_back_and_sets_nothing_aside(held, on_disk):
    with held.lock() as number:
        pass
    file = held.storage.table_folder("lightcurves", ARCHIVE) / "of-a-living-commit.parquet"
    file.write_bytes(b"x")
    intent = Intent(held.storage.staging / PUBLISHING / "later.json", number + 1, [held.storage.relative(file)])
    intent.write()
    for look in (recover, unknown_files):
        with pytest.raises(Interrupted):
            look(held, number)
    assert file.exists()
    assert intent.path.exists()
    with held.lock() as later:  # the living one has died since
        assert recover(held, later) == []
    assert not file.exists()
    assert not intent.path.exists()


def test_a_file_that_an_intent_names_is_not_unknown(held, on_disk):
    file = held.storage.table_folder("lightcurves", ARCHIVE) / "stray.parquet"
    file.write_bytes(b"x")
    with held.lock() as number:
        assert unknown_files(held, number) == [file]
        Intent(held.storage.staging / PUBLISHING / "i.json", number, [held.storage.relative(file)]).write()
        assert unknown_files(held, number) == []
        assert unknown_files(held, number, named=True) == [file]


def test_the_next_commit_undoes_what_a_crash_left(held, on_disk):
    file = held.storage.table_folder("lightcurves", ARCHIVE) / "stray.parquet"
    file.write_bytes(b"x")
    intent = Intent(held.storage.staging / PUBLISHING / "i.json", _number(held), [held.storage.relative(file)])
    intent.write()
    committed(held, [6], "g1")
    assert not file.exists()
    assert not intent.path.exists()
    assert content(held) == expected(dict.fromkeys(range(7), 1))


def test_what_ducklake_deleted_comes_back_if_the_catalogue_knows_it(held, on_disk):
    """As a process leaves it that is killed after DuckLake took a COMMIT whose answer was lost for a failure."""
    live = sorted(held.storage.table_files("lightcurves"))[0]
    intent = Intent(held.storage.staging / PUBLISHING / "i.json", 1)
    intent.write()
    publish(live, intent.aside / held.storage.relative(live))
    stray = intent.aside / "lightcurves" / "of-a-transaction-that-failed.parquet"
    stray.write_bytes(b"x")
    live.unlink()
    assert errors(held)
    with held.lock() as number:
        recover(held, number)
    assert errors(held) == []
    assert content(held) == expected(dict.fromkeys(range(6), 1))
    assert not list((held.storage.staging / PUBLISHING).iterdir())


def test_the_catalogue_says_which_transactions_are_in_it(held):
    timeout = held.settings.lock_timeout_s
    with held.lock() as number:
        with Change(held, number) as change:
            change.cursor.execute("DELETE FROM matches")
        other = Change(held, number)
        with suppress(ZeroDivisionError), other:
            other.cursor.execute("DELETE FROM coverage")
            raise ZeroDivisionError
    with closing(held.cursor()) as cursor:
        assert fence.has(cursor, held.location, change.id, timeout)
        assert not fence.has(cursor, held.location, other.id, timeout)
    assert count(held, "coverage") == 6


def test_a_lake_without_a_fence_says_what_to_run_and_gets_one(held, on_disk):
    with closing(held.cursor()) as cursor:
        query = "DROP TABLE __ducklake_metadata_lake.main.lightlake_fence"
        cursor.execute(query)
    with pytest.raises(CatalogError, match="lightlake init"):
        committed(held, {6: 1}, "g1")
    held.close()
    assert Catalog(held.storage, held.settings).create()
    assert committed(held, {6: 1}, "g1").n_sources == 1


@pytest.mark.parametrize(
    ("text", "number", "files"),
    [
        ('["lightcurves/a.parquet"]', 0, ["lightcurves/a.parquet"]),
        ('{"fence": 7, "files": []}', 7, []),
        ('{"fence": "7", "files": []}', None, None),
        ('{"fence": 7, "files": ["../a"]}', None, None),
        ('{"fence": 7}', None, None),
        ("7", None, None),
    ],
)
def test_what_counts_as_an_intent(tmp_path, text, number, files):
    path = tmp_path / "i.json"
    path.write_text(text)
    found = Intent.read(path)
    assert ((None, None) if found is None else (found.fence, found.files)) == (number, files)
