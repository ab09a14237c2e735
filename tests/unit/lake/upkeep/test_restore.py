"""No catalogue, whatever its age or lake, leads to the loss of a file; a backup comes back, and the rest is due."""

import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from helpers.granules import ARCHIVE, ASKED, PARAMETERS, RELEASE, committed, content, count, errors, expected, register
from helpers.older import make_version_6

from lake.commit import quarantine
from lake.commit.intents import PUBLISHING
from lake.commit.ledger import count_pending
from lake.commit.quarantine import held
from lake.errors import CatalogError, ConfigurationError
from lake.store.backup import backups
from lake.store.catalog import Catalog
from lake.store.identity import MARK
from lake.store.storage import Storage, write_parquet
from lake.upkeep.compaction import compact
from lake.upkeep.maintenance import verify
from lake.upkeep.restore import restore, summary


def _fill(catalog):
    register(catalog, range(12))
    committed(catalog, range(6), "g0", exposures={"e1": 58000.0})


@pytest.fixture
def kept(prepared):
    return prepared(_fill)


def _files(catalog):
    root = catalog.storage.root
    return {path.relative_to(root): path.read_bytes() for path in (root / "data").rglob("*.parquet")}


def _other(lake, **changed):
    return Catalog(lake.storage, lake.settings.model_copy(update=changed))


def _refused(act):
    with pytest.raises(CatalogError) as error:
        act()
    assert "\n" not in str(error.value)
    assert error.value.hint
    return str(error.value)


def _in_quarantine(catalog):
    return [path for path in (catalog.storage.root / "quarantine").rglob("*") if path.is_file()]


def test_a_tree_without_its_catalogue_is_not_taken_for_a_new_lake(kept, on_disk):
    kept.close()
    before = _files(kept)
    Path(kept.location.target).unlink()
    for act in (kept.open, kept.create):
        assert "lightlake restore" in _refused(act)
        kept.close()
    assert _files(kept) == before


@pytest.mark.parametrize("made_for_another", [False, True])
def test_a_catalogue_of_another_lake_is_refused(kept, tmp_path, made_for_another, on_disk):
    """A fresh database in LIGHTLAKE_CATALOG, or one that has a lake of its own."""
    before = _files(kept)
    spec = f"sqlite:{tmp_path / 'fresh.sqlite'}"
    if made_for_another:
        empty = Catalog(Storage(tmp_path / "empty"), kept.settings.model_copy(update={"catalog": spec}))
        empty.create()
        empty.close()
    other = _other(kept, catalog=spec)
    for act in (other.open, other.create):
        assert "the tree at" in _refused(act)
        other.close()
    assert _files(kept) == before
    assert errors(kept) == []


def test_a_new_catalogue_of_an_empty_lake_takes_over_from_the_old_one(catalog, tmp_path, on_disk):
    other = _other(catalog, catalog=f"sqlite:{tmp_path / 'new.sqlite'}")
    assert other.create()
    other.close()
    catalog.close()
    assert "is not that of the tree" in _refused(catalog.open)


def test_a_mark_that_is_gone_is_put_back_by_init_and_only_then(kept, on_disk):
    mark = kept.storage.root / MARK
    marked = json.loads(mark.read_text())
    mark.unlink()
    kept.close()
    assert "lightlake init" in _refused(kept.open)
    kept.close()
    assert kept.create()
    assert json.loads(mark.read_text()) == marked
    assert content(kept) == expected(dict.fromkeys(range(6), 1))
    mark.write_text("{")
    kept.close()
    assert str(mark) in _refused(kept.open)


def _older(catalog):
    """Copy the catalogue as it is."""
    catalog.close()
    copy = Path(catalog.location.target).with_name("older")
    shutil.copyfile(catalog.location.target, copy)
    return copy


def test_an_older_catalogue_deletes_nothing_and_what_it_does_not_know_is_due(kept, on_disk):
    older = _older(kept)
    committed(kept, [6, 7, 8], "g1")
    before = _files(kept)
    kept.close()
    shutil.copyfile(older, kept.location.target)
    assert {finding.check for finding in errors(kept)} == {"orphans"}
    done = compact(kept)
    assert done.quarantined == len(before) - len(_files(_other(kept)).keys() & before.keys())
    assert {path.read_bytes() for path in _in_quarantine(kept)} <= set(before.values())
    assert errors(kept) == []
    assert [finding.check for finding in verify(kept)].count("quarantine") == 1
    cursor = kept.cursor()
    assert count_pending(cursor, ARCHIVE, RELEASE, PARAMETERS) == 6
    cursor.close()


def test_restore_brings_the_newest_backup_back_and_names_what_is_due(kept, on_disk):
    compact(kept)
    committed(kept, [6, 7, 8], "g1")
    committed(kept, {0: 2}, "g0", again=1, asked_at=ASKED + timedelta(days=1))
    register(kept, [20], "late")
    kept.close()
    Path(kept.location.target).write_bytes(b"no database")
    # What lies in the tree need not be Parquet, nor ours.
    (kept.storage.table_folder("coverage", ARCHIVE) / "notes.parquet").write_bytes(b"no Parquet")
    write_parquet(pa.table({"x": [1]}), kept.storage.table_folder("sources", ARCHIVE) / "other.parquet")
    done = restore(kept)
    assert done.again.to_pylist() == [
        {"archive": ARCHIVE, "release": RELEASE, "granule": name} for name in ("g0", "g1")
    ]
    assert (done.missing, done.n_targets) == ((), 2)
    assert any("ztf: 2 granules" in line for line in summary(done))
    assert content(kept) == expected(dict.fromkeys(range(6), 1))
    assert errors(kept) == []
    assert count(kept, "ledger WHERE status = 'failed' AND reason LIKE 'lost with its files%'") == 2
    cursor = kept.cursor()
    assert count_pending(cursor, ARCHIVE, RELEASE, PARAMETERS) == 7  # 6 were not asked then, 0 has a newer answer
    cursor.close()
    assert any(path.read_bytes() == b"no database" for path in _in_quarantine(kept))
    committed(kept, {0: 2, 6: 1, 7: 1, 8: 1}, "g2")
    assert content(kept) == expected({0: 2, **dict.fromkeys(range(1, 9), 1)})
    assert errors(kept) == []


@pytest.mark.long
def test_restore_of_an_older_backup_takes_out_what_compaction_has_removed_since(kept, on_disk):
    """Its files are in larger ones by now, which it does not know."""
    compact(kept)
    first = backups(kept.storage)[0]
    aged = first.path.with_name("catalog-20240501T000000Z.sqlite")
    first.path.rename(aged)
    committed(kept, {**dict.fromkeys(range(6, 9), 1), 0: 2}, "g1")
    compact(kept)
    done = restore(kept, "2024-05-01")
    assert done.backup == "20240501T000000Z"
    assert done.missing
    assert {row["granule"] for row in done.again.to_pylist()} == {"g0", "g1"}
    assert errors(kept) == []
    if not done.n_targets:
        register(kept, range(12))
    committed(kept, {**dict.fromkeys(range(9), 1), 0: 2}, "g2")
    assert content(kept) == expected({**dict.fromkeys(range(9), 1), 0: 2})


@pytest.mark.parametrize(
    "table",
    [
        "targets",
        *(
            pytest.param(one, marks=pytest.mark.crash)
            for one in ("lightcurves", "sources", "statistics", "matches", "coverage", "ledger")
        ),
    ],
)
def test_restore_after_the_files_of_a_table_are_gone(kept, table, on_disk):
    committed(kept, [6, 7, 8], "g1")
    compact(kept)
    for path in list(kept.storage.table_files(table)):
        path.unlink()
    done = restore(kept)
    assert [name.partition("/")[0] for name in done.missing] == [table]
    assert errors(kept) == []
    if table not in ("targets", "ledger"):
        assert {row["granule"] for row in done.again.to_pylist()} == {"g0", "g1"}
        with closing(kept.cursor()) as cursor:
            assert count_pending(cursor, ARCHIVE, RELEASE, PARAMETERS) == 12
    register(kept, range(12))
    committed(kept, range(9), "g2")
    assert content(kept) == expected(dict.fromkeys(range(9), 1))
    assert errors(kept) == []


def test_restore_now_gives_up_files_that_are_gone_and_keeps_the_catalogue(kept, on_disk):
    """As older versions left a lake when the answer to a COMMIT was lost, or a lock."""
    committed(kept, [6, 7, 8], "g1")
    gone = next(path for path in kept.storage.table_files("lightcurves") if path.name.startswith("g1"))
    gone.unlink()
    assert any(gone.name in finding.message and "restore now" in finding.hint for finding in errors(kept))
    done = restore(kept, "now")
    assert done.missing == (kept.storage.relative(gone),)
    assert done.again["granule"].to_pylist() == ["g1"]
    assert content(kept) == expected(dict.fromkeys(range(6), 1))
    assert errors(kept) == []
    committed(kept, [6, 7, 8], "g1", again=1)
    assert content(kept) == expected(dict.fromkeys(range(9), 1))
    assert errors(kept) == []


def test_restore_refuses_a_backup_of_another_lake_and_a_date_that_there_is_none_of(kept, tmp_path, on_disk):
    with pytest.raises(ConfigurationError, match="no backup"):
        restore(kept)
    compact(kept)
    (backup,) = backups(kept.storage)
    with pytest.raises(ConfigurationError) as error:
        restore(kept, "1999-01-01")
    assert backup.name in str(error.value)
    kept.close()
    other = Catalog(Storage(tmp_path / "other"), kept.settings.model_copy(update={"url": str(tmp_path / "other")}))
    other.create()
    other.close()
    shutil.copyfile(other.location.target, backup.path)
    assert "is not that of the tree" in _refused(lambda: restore(kept))
    assert content(kept) == expected(dict.fromkeys(range(6), 1))


def test_backups_are_whole_databases_and_the_oldest_go(kept, on_disk):
    kept.settings = kept.settings.model_copy(update={"backups": 2})
    folder = kept.storage.root / "backups"
    folder.mkdir()
    for day in (1, 2, 3):
        (folder / f"catalog-2024050{day}T000000Z.sqlite").write_bytes(b"")
    (folder / "mine.sqlite").write_bytes(b"")
    compact(kept)
    newest, older = backups(kept.storage)
    assert older.name == "20240503T000000Z"
    assert (folder / "mine.sqlite").exists()
    with closing(sqlite3.connect(newest.path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM ducklake_data_file").fetchone()[0] > 0


def test_what_is_long_in_the_quarantine_goes_and_nothing_else_there(kept, on_disk):
    stray = kept.storage.table_folder("lightcurves", ARCHIVE) / "stray.parquet"
    today = datetime.now(UTC).date()
    for age in (31, 30, 0, 0):
        stray.write_bytes(b"x")
        quarantine.set_aside(kept.storage, [stray], day=today - timedelta(days=age))
    (kept.storage.root / "quarantine/mine").mkdir()
    assert [(one.files, one.bytes) for one in held(kept.storage)] == [(1, 1), (1, 1), (2, 2)]
    compact(kept)
    assert [one.day for one in held(kept.storage)] == [today - timedelta(days=30), today]
    assert (kept.storage.root / "quarantine/mine").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"a": 1}', '["../../../precious.parquet"]', '["/etc/precious"]', '["nosuch/x.parquet"]']
)
def test_an_intent_that_is_not_ours_deletes_nothing_and_blocks_nobody(kept, text, on_disk):
    precious = kept.storage.root / "precious.parquet"
    precious.write_bytes(b"x")
    folder = kept.storage.staging / PUBLISHING
    folder.mkdir(exist_ok=True)
    (folder / "broken.json").write_text(text)
    (folder / "cut-short.part").write_text(text)  # of a writer that was killed as it wrote its own
    committed(kept, [6], "g1")
    assert precious.exists()
    assert [path.read_text() for path in _in_quarantine(kept)] == [text]
    assert not list(folder.iterdir())
    assert errors(kept) == []


def test_an_intent_cannot_name_a_file_that_the_catalogue_knows(kept, on_disk):
    live = [kept.storage.relative(path) for path in kept.storage.table_files("lightcurves")]
    stray = kept.storage.table_folder("lightcurves", ARCHIVE) / "stray.parquet"
    stray.write_bytes(b"x")
    folder = kept.storage.staging / PUBLISHING
    folder.mkdir(exist_ok=True)
    (folder / "forged.json").write_text(json.dumps([*live, kept.storage.relative(stray)]))
    committed(kept, [6], "g1")
    assert not stray.exists()
    assert content(kept) == expected(dict.fromkeys(range(7), 1))
    assert errors(kept) == []
    assert not _in_quarantine(kept)


@pytest.mark.long
def test_a_lake_of_version_6_gets_an_id_if_the_tree_is_its_own(kept, tmp_path, on_disk):
    make_version_6(kept)
    (kept.storage.root / MARK).unlink()
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "data/main").mkdir(parents=True)
    moved = Catalog(Storage(elsewhere), kept.settings.model_copy(update={"catalog": f"sqlite:{kept.location.target}"}))
    assert "knows none of the files" in _refused(moved.create)
    moved.close()
    assert kept.create()
    assert len(json.loads((kept.storage.root / MARK).read_text())["lake_id"]) == 32
    assert count(kept, "schema_version WHERE lake_id IS NOT NULL") == 1
    assert content(kept) == expected(dict.fromkeys(range(6), 1))
    assert not list(elsewhere.rglob("*.parquet"))
    # The catalogue of before the migration is kept, and may be put back.
    assert len(backups(kept.storage)) == 1
    committed(kept, [6], "g1")
    assert [row["granule"] for row in restore(kept).again.to_pylist()] == ["g1"]
    assert content(kept) == expected(dict.fromkeys(range(6), 1))
    assert errors(kept) == []
