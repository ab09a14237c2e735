"""verify finds what is wrong, and only that; compact brings a lake to rest."""

import os
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.granules import committed, content, errors, expected, register, staged, target_ids

import lake.commit.transaction
from lake.commit.commit import commit
from lake.commit.ledger import write_plan
from lake.errors import CatalogError
from lake.model.schema import TABLES
from lake.query import Lake
from lake.store.catalog import Catalog
from lake.store.connection import extension_file
from lake.store.s3 import s3_secret
from lake.store.storage import read_parquet, write_parquet
from lake.upkeep import compaction
from lake.upkeep.compaction import Compacted, _merge, compact
from lake.upkeep.maintenance import status, verify
from lake.upkeep.progress import as_text, progress, slowest


def _fill(catalog):
    register(catalog, range(12))
    committed(catalog, range(10), "g0", exposures={"e1": 58000.0})


@pytest.fixture
def kept(prepared):
    return prepared(_fill)


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


def test_compact_does_not_launder_a_flipped_bit(kept):
    """Rewritten, wrong rows would have a right checksum."""
    committed(kept, {**dict.fromkeys(range(10, 12), 1), 0: 2}, "g1")
    paths = sorted(kept.storage.table_files("lightcurves"))
    data = bytearray(paths[0].read_bytes())
    data[len(data) // 3] ^= 4
    paths[0].unlink()  # staging may hold another name of it
    paths[0].write_bytes(data)
    tree = {path: path.read_bytes() for path in (kept.storage.data / "main").rglob("*.parquet")}
    with pytest.raises(CatalogError) as error:
        compact(kept)
    assert paths[0].name in str(error.value)
    assert {path: path.read_bytes() for path in (kept.storage.data / "main").rglob("*.parquet")} == tree
    assert paths[0].name in _one(verify(kept), "files")


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
    assert compact(kept).quarantined == 1
    assert errors(kept) == []


def test_a_hole_in_the_coverage(kept):
    kept.cursor().execute("DELETE FROM coverage WHERE target_id = ?", [target_ids([3])[0]])
    kept.cursor().execute("DELETE FROM matches WHERE target_id = ?", [target_ids([3])[0]])
    kept.cursor().execute("UPDATE coverage SET asked_at = now()")
    assert "3 targets of test have no answer" in _one(verify(kept), "coverage")


def test_an_old_target_with_a_new_label_is_new_to_its_sample(kept):
    """Those of before labels had times are as old as their targets."""
    cursor = kept.cursor()
    cursor.execute("UPDATE targets SET added_at = '2024-01-01'")
    cursor.execute("UPDATE labels SET added_at = '2024-01-02'")  # asked on 2024-05-01
    assert "2 targets of test have no answer" in _one(verify(kept), "coverage")
    cursor.execute("UPDATE labels SET added_at = NULL")
    assert "2 targets of test have no answer" in _one(verify(kept), "coverage")
    for target in (10, 11):
        cursor.execute("DELETE FROM labels WHERE target_id = ?", [target_ids([target])[0]])
    assert [finding for finding in verify(kept) if finding.check == "coverage"] == []
    register(kept, [9, 10, 11])
    assert cursor.execute("SELECT count(*) FROM labels WHERE added_at > now() - INTERVAL 1 HOUR").fetchall() == [(2,)]
    (found,) = (finding for finding in verify(kept) if finding.check == "coverage")
    assert (found.level, found.message) == ("note", "ztf DR1: 2 new targets of test not asked")
    register(kept, range(12), "again")  # with answers for 10 of its 12
    assert {finding.level for finding in verify(kept) if finding.check == "coverage"} == {"note"}


def test_times_in_the_future_are_noted_and_lose_no_target(kept):
    ahead = datetime.now(UTC) + timedelta(days=800)
    cursor = kept.cursor()
    cursor.execute("UPDATE coverage SET asked_at = ?", [ahead])
    cursor.execute("UPDATE ledger SET started_at = ?", [ahead])
    findings = verify(kept)
    assert not any(finding.is_error for finding in findings)
    told = [finding.message for finding in findings if finding.check == "clocks"]
    assert [text.replace(" is dated", " are dated").partition(" are dated")[0] for text in told] == [
        "coverage: 10 rows of ztf DR1",
        "ledger: 1 row of ztf DR1",
    ]
    with Lake(kept.storage.root, kept.settings) as opened:
        assert (progress(opened, "ztf").done, progress(opened, "ztf").per_minute) == (1, None)


HARM = (
    {
        "INSERT INTO sources SELECT * FROM sources WHERE source_id = 's0'": "sources: 1 key (archive, release",
        "INSERT INTO coverage FROM coverage WHERE target_id IN (SELECT target_id FROM targets WHERE name IN ('T5', 'T6'))": (  # noqa: E501
            "coverage: 2 keys"
        ),
        "UPDATE sources SET dec = -91 WHERE source_id = 's1'": "sources: dec < -90 in 1 row",
        "UPDATE lightcurves SET mjd = 51.5 WHERE source_id = 's2'": "lightcurves: mjd < 33282 in 6 rows",
        "DELETE FROM sources WHERE source_id = 's3'": "matches: 1 row without their sources",
        "DELETE FROM lightcurves WHERE source_id = 's4' AND band = 'g'": "lightcurves: 1 source and band",
        "DELETE FROM targets WHERE name = 'T9'": "coverage: 1 row without their targets",
    },
    {
        "UPDATE matches SET hpx29 = 0 WHERE source_id = 's1'": "matches: 1 row without their sources",
        "INSERT INTO lightcurves FROM lightcurves WHERE source_id = 's2'": "lightcurves: 2 sources and bands",
        "DELETE FROM coverage WHERE n_rows > 0": "matches: 10 rows without their coverage",
    },
)


@pytest.mark.parametrize("harm", HARM, ids=["one", "other"])
def test_rows_that_another_tool_broke(kept, harm):
    with closing(kept.cursor()) as cursor:
        for statement in harm:
            cursor.execute(statement)
    wrong = [finding.message for finding in verify(kept) if finding.is_error]
    assert not [message for message in harm.values() if not any(text.startswith(message) for text in wrong)], wrong


def test_null_in_a_required_column(kept):
    """The catalogue itself refuses it by SQL; a file that was added may have it."""
    cursor = kept.cursor()
    with pytest.raises(duckdb.ConstraintException):
        cursor.execute("UPDATE sources SET ra = NULL WHERE source_id = 's1'")
    compact(kept)  # clears the file that the refused statement left
    cursor.execute("ALTER TABLE sources ALTER COLUMN ra DROP NOT NULL")
    cursor.execute("UPDATE sources SET ra = NULL WHERE source_id = 's1'")
    wrong = [finding.message for finding in verify(kept) if finding.is_error]
    assert "sources: ra is NULL in 1 row" in wrong


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
    ).fetchall()


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


@pytest.mark.parametrize(("before", "after", "told"), [(14, 19, True), (19, 14, False), (3, 3, False)])
def test_a_compaction_says_why_there_are_more_files(before: int, after: int, told: bool) -> None:
    summary = Compacted(before, after, 100_000, 1, 2.0).summary
    assert ("in the catalogue" in summary) == told
    assert f"became {after} files (0.1 MB), 1 unknown file moved" in summary


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


def test_a_lake_of_before_is_written_as_a_new_one_is(kept):
    """The bytes of floats are split in files that compaction writes, as in those of granules."""

    def encodings():
        group = pq.read_metadata(_file(kept, "lightcurves")).row_group(0)
        return {group.column(n).path_in_schema: group.column(n).encodings for n in range(group.num_columns)}

    for number in range(2):
        committed(kept, dict.fromkeys(range(10 * number, 10 * number + 10), 40), f"h{number}")
    with closing(kept.cursor()) as cursor:
        cursor.execute("CALL ducklake_set_option('lake', 'parquet_version', 1)")
    compact(kept)
    assert "BYTE_STREAM_SPLIT" in encodings()["flux"]


def test_files_of_half_the_size_stay_and_others_are_merged_a_few_at_a_time(kept, monkeypatch):
    for number in range(2, 6):
        archive = "ztf" if number < 4 else "wise"
        committed(kept, range(10 * number, 10 * number + 10), f"h{number}", archive=archive)
    sizes = {path.name: path.stat().st_size for path in kept.storage.table_files("lightcurves")}
    monkeypatch.setattr(compaction, "_MERGED_AT_ONCE", 1)
    changes = []
    monkeypatch.setattr(compaction, "_merge", lambda *given: changes.append(_merge(*given)) or changes[-1])
    monkeypatch.setattr(compaction, "MERGED_BELOW_BYTES", min(sizes.values()))
    before = content(kept)
    compact(kept)
    assert {path.name for path in kept.storage.table_files("lightcurves")} == set(sizes)
    monkeypatch.undo()
    monkeypatch.setattr(compaction, "_MERGED_AT_ONCE", 1)
    monkeypatch.setattr(compaction, "_merge", lambda *given: changes.append(_merge(*given)) or changes[-1])
    changes.clear()
    compact(kept)
    assert changes == [True, True, False]
    assert len(list(kept.storage.table_files("lightcurves"))) == 2
    assert content(kept) == before
    assert errors(kept) == []


def test_compact_clears_staging_of_the_dead_and_leaves_that_of_the_living(kept, on_disk):
    dead, alive = kept.storage.staging / "dead", kept.storage.staging / "alive"
    for folder in (dead, alive):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep/sources.parquet").write_text("x")
    # A clock that ran ahead has left times that would never be old.
    ahead = kept.storage.staging / "ahead"
    (ahead / "deep").mkdir(parents=True)
    old = (dead, dead / "deep", dead / "deep/sources.parquet", alive, alive / "deep")
    for days, paths in ((-2, old), (700, (ahead, ahead / "deep"))):
        for path in paths:
            os.utime(path, (time.time() + 86400 * days,) * 2)
    manifest = staged(kept, range(3), "g9")
    compact(kept)
    assert not dead.exists()
    assert not ahead.exists()
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
    commit(kept, staged(kept, [], "g1", targets=[10]).with_details(**spent))
    commit(
        kept,
        staged(kept, [], "g1", targets=[10], again=1).with_details(**spent | {"peak_rss_mb": 70.0, "requests": None}),
    )
    # An archive that gave nothing but failures is told of, too.
    commit(
        kept, staged(kept, [], "lost", archive="virac", targets=[], attempt_status="failed").with_details(seconds=1.24)
    )
    cursor = kept.cursor()
    rows = {row["archive"]: row for row in status(cursor).to_pylist()}
    cursor.close()
    names = ("seconds", "retries", "requests", "peak_rss_mb")
    assert [rows["ztf"][name] for name in names] == [7.0, 4, 5, 100.0]
    assert [rows["virac"][name] for name in ("asked", *names)] == [0, 1.2, 0, None, None]
    with Lake(kept.storage.root, kept.settings) as opened:
        now = progress(opened, "ztf")
        assert (now.retries, now.requests, now.peak_rss_mb) == (4, 5, 70.0)
        assert "\n  4 retries, 5 requests\n" in as_text(now)
        assert "\n  0 retries\n" in as_text(progress(opened, "virac"))
        assert "retries" not in as_text(progress(opened, "gaia"))


def test_progress_counts_the_granules_of_the_last_run_and_each_once(kept):
    """Not those of other parameters or folders, nor the granules that hold matches, nor earlier tries."""
    for granule in ("a", "b", "of another folder"):
        commit(kept, staged(kept, [], granule, archive="rxte", targets=[]))
    commit(kept, staged(kept, [], "lost", archive="rxte", targets=[], attempt_status="failed"))
    commit(kept, staged(kept, [], "b", archive="rxte", targets=[], again=1))
    commit(kept, staged(kept, [], "matches", archive="rxte", targets=[1, 2]))
    with Lake(kept.storage.root, kept.settings) as opened:
        now = progress(opened, "rxte")
        assert (now.granules, now.ended, now.empty, now.failed) == (None, 5, 4, 1)
        write_plan(kept.storage, "rxte", ["a", "b", "lost", "to come", "a"])
        now = progress(opened, "rxte")
        assert (now.granules, now.ended, now.empty, now.failed, now.waiting) == (4, 3, 2, 1, 1)
        assert "3 granules ended of 4 (75.0 %)" in as_text(now)
        assert slowest(opened, "rxte").num_rows == 3
        # As versions before noted it.
        (kept.storage.staging / "plans" / "rxte.json").write_text('{"granules": 2}')
        assert progress(opened, "rxte").granules is None


def test_progress_leaves_out_what_failed_and_was_answered_in_another_granule(kept):
    commit(kept, staged(kept, [], "lost", targets=[10, 11], attempt_status="failed", status="failed"))
    commit(kept, staged(kept, [], "split", targets=[], attempt_status="split"))
    with Lake(kept.storage.root, kept.settings) as opened:
        assert (progress(opened, "ztf").ended, progress(opened, "ztf").failed) == (2, 1)
        commit(kept, staged(kept, [], "half", targets=[10]))
        assert (progress(opened, "ztf").ended, progress(opened, "ztf").failed) == (3, 1)
        commit(kept, staged(kept, [], "other half", targets=[11]))
        assert (progress(opened, "ztf").ended, progress(opened, "ztf").failed) == (3, 0)


def test_verify_while_another_commits_sees_no_ghosts(kept, monkeypatch):
    """Files of a commit in progress are in the tree before they are in the catalogue."""
    seen = []
    original = lake.commit.transaction.add_file

    def meanwhile(cursor, table, final):
        if not seen:
            other = Catalog(kept.storage, kept.settings.model_copy(update={"lock_timeout_s": 0.1}))
            # It does not wait for the commit, which here cannot go on: the commit's intent names the files.
            found = verify(other)
            assert [finding for finding in found if finding.is_error] == []
            assert "changes" in [finding.check for finding in found]
            seen.append(found)
            other.close()
        original(cursor, table, final)

    monkeypatch.setattr(lake.commit.transaction, "add_file", meanwhile)
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


def test_a_table_or_column_that_somebody_dropped_is_named(catalog, settings):
    register(catalog, range(4))
    committed(catalog, range(4))
    cursor = catalog.cursor()
    cursor.execute("DROP TABLE exposures")
    cursor.execute("ALTER TABLE sources DROP COLUMN parallax")
    cursor.close()
    catalog.close()
    with Lake(settings.url, settings) as lake:
        found = verify(lake.catalog)
        assert all(one.is_error and one.check == "schema" and "backup" in one.hint for one in found)
        assert [one.message for one in found] == [
            "column parallax of table sources is missing",
            "table exposures of the schema is missing",
        ]
    cursor = catalog.cursor()
    cursor.execute("DROP TABLE schema_version")
    cursor.close()
    catalog.close()
    with pytest.raises(CatalogError, match="schema_version is missing"):
        Lake(settings.url, settings)


@pytest.mark.parametrize(("archive", "command"), [("gaia", "lightlake pull gaia"), ("rxte", "lightlake rxte")])
def test_hints_name_the_command_that_asks_again(catalog: Catalog, archive: str, command: str) -> None:
    register(catalog, range(3))
    committed(catalog, [], "g1", archive=archive, targets=[0], status="rejected", attempt_status="rejected")
    hints = {one.hint for one in verify(catalog) if f"{archive} " in one.message}
    assert hints
    assert all(hint.startswith(f"run: {command} --") for hint in hints)
