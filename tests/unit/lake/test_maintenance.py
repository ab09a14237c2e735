"""verify finds what is wrong, and only that; compact brings a lake to rest."""

import os
import time

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.granules import committed, content, errors, expected, register, staged, target_ids

import lake.transaction
from lake.catalog import Catalog, extension_file
from lake.commit import commit
from lake.errors import CatalogError
from lake.maintenance import compact, status, verify
from lake.progress import as_text, progress
from lake.query import Lake
from lake.s3 import s3_secret
from lake.schema import TABLES
from lake.storage import read_parquet, write_parquet


@pytest.fixture
def kept(catalog):
    register(catalog, range(12))
    committed(catalog, range(10), "g0", exposures={"e1": 58000.0})
    return catalog


def _one(findings, check):
    wrong = [finding for finding in findings if finding.is_error]
    assert [finding.check for finding in wrong] == [check], wrong
    assert wrong[0].hint
    return wrong[0].message


def _file(catalog, table):
    return next(iter(catalog.storage.table_files(table)))


def test_a_sound_lake(kept):
    assert errors(kept) == []


def test_a_missing_file(kept):
    _file(kept, "lightcurves").unlink()
    assert "lightcurves/archive=ztf/g0-" in _one(verify(kept), "files")
    assert "is missing" in _one(verify(kept, quick=True), "files")


def test_a_changed_byte(kept):
    path = _file(kept, "sources")
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.unlink()
    path.write_bytes(data)
    assert "its checksum is not the recorded one" in _one(verify(kept), "files")
    assert {finding.check for finding in verify(kept, quick=True)} <= {"files", "coverage"}


def test_a_truncated_file(kept):
    path = _file(kept, "statistics")
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-100])
    assert "cannot be read" in _one(verify(kept, quick=True), "files")


def test_another_file_in_its_place(kept):
    path = _file(kept, "coverage")
    write_parquet(read_parquet(path).slice(1), path)
    assert "has 9 rows" in _one(verify(kept), "files")


def test_an_orphan(kept):
    path = _file(kept, "lightcurves")
    path.with_name("stray.parquet").write_bytes(path.read_bytes())
    assert "lightcurves/archive=ztf/stray.parquet is in the tree but not in the catalogue" in _one(
        verify(kept, quick=True), "orphans"
    )
    assert compact(kept).orphans == 1
    assert errors(kept) == []


def test_a_hole_in_the_coverage(kept):
    kept.cursor().execute("DELETE FROM coverage WHERE target_id = ?", [target_ids([3])[0]])
    kept.cursor().execute("DELETE FROM matches WHERE target_id = ?", [target_ids([3])[0]])
    kept.cursor().execute("UPDATE coverage SET asked_at = now()")
    assert "3 targets of test have no answer" in _one(verify(kept), "coverage")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("INSERT INTO sources SELECT * FROM sources LIMIT 1", "sources: 1 keys (archive, release"),
        ("INSERT INTO coverage SELECT * FROM coverage LIMIT 2", "coverage: 2 keys"),
        ("UPDATE sources SET dec = -91 WHERE source_id = 's1'", "sources: dec < -90 in 1 rows"),
        ("UPDATE lightcurves SET mjd = 51.5 WHERE source_id = 's1'", "lightcurves: mjd < 33282 in 6 rows"),
        ("DELETE FROM sources WHERE source_id = 's1'", "matches: 1 rows without their sources"),
        ("UPDATE matches SET hpx29 = 0 WHERE source_id = 's1'", "matches: 1 rows without their sources"),
        ("DELETE FROM lightcurves WHERE source_id = 's1' AND band = 'g'", "lightcurves: 1 sources and bands"),
        ("INSERT INTO lightcurves FROM lightcurves WHERE source_id = 's1'", "lightcurves: 2 sources and bands"),
        ("DELETE FROM targets WHERE name = 'T1'", "coverage: 1 rows without their targets"),
        ("DELETE FROM coverage WHERE n_rows > 0", "matches: 10 rows without their coverage"),
    ],
)  # fmt: skip
def test_rows_that_another_tool_broke(kept, harm, message):
    kept.cursor().execute(harm)
    wrong = [finding.message for finding in verify(kept) if finding.is_error]
    assert any(text.startswith(message) for text in wrong), wrong


def test_null_in_a_required_column(kept):
    """The catalogue itself refuses it by SQL; a file that was added may have it."""
    cursor = kept.cursor()
    with pytest.raises(duckdb.ConstraintException):
        cursor.execute("UPDATE sources SET ra = NULL WHERE source_id = 's1'")
    compact(kept)  # clears the file that the refused statement left
    cursor.execute("ALTER TABLE sources ALTER COLUMN ra DROP NOT NULL")
    cursor.execute("UPDATE sources SET ra = NULL WHERE source_id = 's1'")
    wrong = [finding.message for finding in verify(kept) if finding.is_error]
    assert "sources: ra is NULL in 1 rows" in wrong


def test_what_was_replaced_is_a_note(kept):
    committed(kept, {3: 2, 4: 2}, "g1")
    findings = verify(kept)
    assert {finding.check for finding in findings} >= {"at rest"}
    assert not any(finding.is_error for finding in findings)


def _plain(catalog, table):
    pattern = "archive=*/*.parquet" if TABLES[table].partition else "*.parquet"
    columns = ", ".join(TABLES[table].names)
    reader = duckdb.connect()
    if not catalog.storage.is_local:
        reader.execute(f"LOAD '{extension_file('httpfs')}'")
        reader.execute(s3_secret(catalog.storage))
    return reader.execute(
        f"SELECT {columns} FROM read_parquet('{catalog.storage.table_folder(table)}/{pattern}', "
        f"hive_partitioning = {bool(TABLES[table].partition)}, union_by_name = true) ORDER BY ALL"
    ).fetchall()  # fmt: skip


def test_compact_brings_the_lake_to_rest(kept):
    for k in range(5):
        committed(
            kept, {s: 1 + (s % 3 == k % 3) for s in range(2 * k, 2 * k + 4)}, f"h{k}", exposures={"e1": 58000.0 + k}
        )
    before = content(kept)
    cursor = kept.cursor()
    rows = {t: cursor.execute(f"SELECT {', '.join(TABLES[t].names)} FROM {t} ORDER BY ALL").fetchall() for t in TABLES}
    cursor.close()
    done = compact(kept)
    assert done.files_after < done.files_before
    assert content(kept) == before
    held = [t for t in TABLES if rows[t] and t not in ("files", "schema_version")]
    assert set(held) >= {
        "targets",
        "labels",
        "sources",
        "lightcurves",
        "statistics",
        "matches",
        "coverage",
        "exposures",
        "ledger",
    }
    for table in held:
        assert _plain(kept, table) == rows[table], table
        assert len(list(kept.storage.table_files(table))) == 1, table
    for table in ("sources", "lightcurves", "targets"):
        pixels = read_parquet(_file(kept, table), ["hpx29"])["hpx29"].to_pylist()
        assert pixels == sorted(pixels), table
    assert [(f.level, f.check) for f in verify(kept)] == []
    recorded = {row[0] for row in kept.cursor().execute("SELECT path FROM files").fetchall()}
    assert recorded == {kept.storage.relative(path) for table in held for path in kept.storage.table_files(table)}
    again = compact(kept)
    assert again.files_after == again.files_before
    committed(kept, {0: 3}, "after")
    assert content(kept)["s0"] == expected({0: 3})["s0"]
    assert errors(kept) == []


def test_row_groups_stay_small(catalog, on_disk):
    register(catalog, range(1))
    made = 70_000
    cursor = catalog.cursor()
    cursor.execute(
        "INSERT INTO lightcurves BY NAME SELECT 'ztf' AS archive, 'g' AS band, 's' AS source_id, 'DR1' AS release, "
        f"1 AS hpx29, 58000 + i / 100 AS mjd, true AS detected, true AS good, 'g' AS granule FROM range({made}) t(i)"
    )
    cursor.close()
    compact(catalog)
    meta = pq.read_metadata(_file(catalog, "lightcurves"))
    sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
    assert sum(sizes) == made
    assert max(sizes) <= 32_768


def test_compact_clears_staging_of_the_dead_and_leaves_that_of_the_living(kept, on_disk):
    dead, alive = kept.storage.staging / "dead", kept.storage.staging / "alive"
    for folder in (dead, alive):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep/sources.parquet").write_text("x")
    yesterday = time.time() - 2 * 86400
    for path in (dead, dead / "deep", dead / "deep/sources.parquet", alive, alive / "deep"):
        os.utime(path, (yesterday, yesterday))
    manifest = staged(kept, range(3), "g9")
    compact(kept)
    assert not dead.exists()
    assert (alive / "deep/sources.parquet").exists()
    assert (kept.storage.staging / "g9-0").exists()
    assert manifest.attempt.granule == "g9"


def test_status_counts_what_was_asked_and_also_surveys_without_targets(kept):
    committed(kept, [], "g1", targets=[10])
    committed(kept, range(3), "tile", archive="virac", targets=[])
    cursor = kept.cursor()
    rows = {row["archive"]: row for row in status(cursor).to_pylist()}
    cursor.close()
    ztf, virac = rows["ztf"], rows["virac"]
    assert [ztf[k] for k in ("asked", "found", "empty", "failed", "sources", "rows")] == [11, 10, 1, 0, 10, 60]
    assert [virac[k] for k in ("asked", "sources", "rows")] == [0, 3, 18]
    assert ztf["bytes"] > 0
    assert ztf["age_days"] > 0


def test_status_and_progress_tell_what_attempts_took(kept):
    spent = {"retries": 2, "requests": 5, "seconds": 3.5, "peak_rss_mb": 100.0}
    commit(kept, staged(kept, [], "g1", targets=[10]).told(**spent))
    commit(kept, staged(kept, [], "g1", targets=[10], again=1).told(**spent | {"peak_rss_mb": 70.0, "requests": None}))
    # An archive that gave nothing but failures is told of, too.
    commit(kept, staged(kept, [], "lost", archive="virac", targets=[], attempt_status="failed").told(seconds=1.24))
    cursor = kept.cursor()
    rows = {row["archive"]: row for row in status(cursor).to_pylist()}
    cursor.close()
    names = ("seconds", "retries", "requests", "peak_rss_mb")
    assert [rows["ztf"][name] for name in names] == [7.0, 4, 5, 100.0]
    assert [rows["virac"][name] for name in ("asked", *names)] == [0, 1.2, 0, None, None]
    with Lake(kept.storage.root, kept.settings) as opened:
        now = progress(opened, "ztf")
        assert (now.retries, now.requests, now.peak_rss_mb) == (4, 5, 70.0)
        assert "\n  4 times tried again, 5 requests\n" in as_text(now)
        assert "\n  0 times tried again\n" in as_text(progress(opened, "virac"))
        assert "tried again" not in as_text(progress(opened, "gaia"))


def test_verify_while_another_commits_sees_no_ghosts(kept, monkeypatch):
    """Files of a commit in progress are in the tree before they are in the catalogue."""
    seen = []
    original = lake.transaction.add_file

    def meanwhile(cursor, table, final):
        if not seen:
            other = Catalog(kept.storage, kept.settings.model_copy(update={"lock_timeout_s": 0.1}))
            # What looks wrong makes it wait for the commit, which here cannot go on.
            with pytest.raises(CatalogError, match="held the catalogue") as error:
                verify(other)
            seen.append(error)
            other.close()
        original(cursor, table, final)

    monkeypatch.setattr(lake.transaction, "add_file", meanwhile)
    committed(kept, [10, 11], "g1")
    assert seen
    assert errors(kept) == []


def test_pandas_reads_the_tree_before_and_after_compaction(kept, on_disk):
    """The same call: each file holds its archive, too, as the files that DuckLake's compaction writes do."""
    committed(kept, range(10, 12), "g1")
    for _ in range(2):
        for table in ("sources", "lightcurves", "coverage"):
            frame = pd.read_parquet(kept.storage.table_folder(table), partitioning=None)
            cursor = kept.cursor()
            assert len(frame) == cursor.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
            cursor.close()
            assert frame["archive"].notna().all()
        compact(kept)
