"""The commit rule: a source's rows exist once, data and ledger agree, and a repeat changes nothing."""

from pathlib import Path

import duckdb
import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from helpers.granules import attempt, committed, content, count, errors, expected, register, staged, tables, target_ids

from lake.commit import transaction
from lake.commit.commit import _around as around
from lake.commit.commit import commit
from lake.commit.staging import Manifest, stage
from lake.errors import GranuleRejected, StagingLost
from lake.science.sky import hpx29
from lake.upkeep.maintenance import verify


def _fill(catalog):
    register(catalog, range(30))
    committed(catalog, range(10), "g0")


@pytest.fixture
def lake_of_ten(prepared):
    return prepared(_fill)


def _query(catalog, sql, *values):
    cursor = catalog.cursor()
    try:
        return cursor.execute(sql, values).fetchall()
    finally:
        cursor.close()


def test_a_granule_arrives_whole(lake_of_ten):
    assert content(lake_of_ten) == expected(dict.fromkeys(range(10), 1))
    assert count(lake_of_ten, "coverage WHERE status = 'found' AND n_sources = 1") == 10
    row = _query(lake_of_ten, "SELECT status, n_targets, n_sources, n_rows, attempt, snapshot_id FROM ledger")
    snapshot = _query(lake_of_ten, "FROM ducklake_current_snapshot('lake')")[0][0]
    assert row == [("done", 10, 10, 60, 1, snapshot)]
    assert errors(lake_of_ten) == []


def test_the_same_manifest_again_does_nothing(lake_of_ten):
    manifest = staged(lake_of_ten, range(5, 15), "g1")
    first = commit(lake_of_ten, manifest)
    assert (first.replaced, first.kept) == (0, 5)
    before = _query(lake_of_ten, "FROM ducklake_current_snapshot('lake')")
    assert commit(lake_of_ten, manifest).n_rows == 60
    assert _query(lake_of_ten, "FROM ducklake_current_snapshot('lake')") == before
    assert not Path(manifest.folder).exists()


def test_unchanged_sources_stay_and_changed_ones_are_replaced(lake_of_ten):
    receipt = committed(lake_of_ten, {**dict.fromkeys(range(5, 15), 1), 7: 2, 8: 3}, "g1")
    assert (receipt.replaced, receipt.kept) == (2, 3)
    assert content(lake_of_ten) == expected({**dict.fromkeys(range(15), 1), 7: 2, 8: 3})
    who = dict(_query(lake_of_ten, "SELECT source_id, granule FROM sources"))
    assert (who["s6"], who["s7"], who["s12"]) == ("g0", "g1", "g1")
    assert errors(lake_of_ten) == []


def test_pulled_anew_without_change_brings_no_source_file(lake_of_ten):
    committed(lake_of_ten, range(10), "g0", again=1)
    assert count(lake_of_ten, "files WHERE table_name IN ('sources', 'lightcurves', 'statistics')") == 3
    assert _query(lake_of_ten, "SELECT attempt FROM ledger ORDER BY ALL") == [(1,), (2,)]
    assert count(lake_of_ten, "coverage") == count(lake_of_ten, "matches") == 10


@pytest.mark.parametrize("moved", [0.3, 20.0])
def test_a_source_that_moved_is_there_once_and_found_by_all_its_targets(lake_of_ten, moved):
    """Its other target belongs to another granule, and its match knows the old place."""
    made = tables([20], "g1", targets=[20])
    made["sources"] = pa.concat_tables([made["sources"], tables([3], "g1")["sources"]])
    for name in ("lightcurves", "statistics"):
        made[name] = pa.concat_tables([made[name], tables([3], "g1")[name]])
    elsewhere = tables([3], "g1", moved_arcsec=moved)
    for name in ("sources", "lightcurves", "statistics"):
        mine = made[name].filter(pc.not_equal(made[name]["source_id"], "s3"))
        made[name] = pa.concat_tables([mine, elsewhere[name]])
    folder = lake_of_ten.storage.staging / "g1"
    receipt = commit(lake_of_ten, stage(folder, attempt("g1"), made))
    assert receipt.replaced == 1
    assert content(lake_of_ten) == expected(dict.fromkeys([*range(10), 20], 1))
    assert errors(lake_of_ten) == []
    assert count(lake_of_ten, "target_lightcurves WHERE name = 'T3'") == 6


def test_a_source_without_measurements_any_more(lake_of_ten):
    made = tables([3], "g1")
    del made["lightcurves"], made["statistics"]
    commit(lake_of_ten, stage(lake_of_ten.storage.staging / "g1", attempt("g1"), made))
    assert count(lake_of_ten, "lightcurves WHERE source_id = 's3'") == 0
    assert count(lake_of_ten, "sources WHERE source_id = 's3'") == 1
    assert errors(lake_of_ten) == []


def test_an_empty_answer_is_remembered(lake_of_ten):
    receipt = committed(lake_of_ten, [], "g1", targets=range(10, 13))
    assert (receipt.status, receipt.n_targets, receipt.n_sources) == ("empty", 3, 0)
    assert count(lake_of_ten, "coverage WHERE status = 'empty'") == 3
    assert errors(lake_of_ten) == []


def test_a_failure_is_recorded_but_does_not_overwrite_an_answer(lake_of_ten):
    committed(lake_of_ten, [], "g1", targets=range(8, 12), status="failed", attempt_status="failed")
    status = dict(_query(lake_of_ten, "SELECT target_id, status FROM coverage"))
    assert [status[t] for t in target_ids(range(8, 12))] == ["found", "found", "failed", "failed"]
    assert count(lake_of_ten, "matches") == 10
    committed(lake_of_ten, range(8, 12), "g1", again=1)
    assert count(lake_of_ten, "coverage WHERE status = 'failed'") == 0
    assert errors(lake_of_ten) == []


def test_a_match_that_is_gone_goes(lake_of_ten):
    committed(lake_of_ten, [], "g1", targets=[4])
    assert count(lake_of_ten, "matches") == 9
    assert count(lake_of_ten, "sources") == 10, "the source is the archive's, not the target's"


def test_exposures_are_there_once(lake_of_ten):
    committed(lake_of_ten, [10], "g1", exposures={"e1": 58000.0, "e2": 58001.0})
    committed(lake_of_ten, [11], "g2", exposures={"e2": 58001.5, "e3": 58002.0})
    assert _query(lake_of_ten, "SELECT exposure_id, mjd_start FROM exposures ORDER BY ALL") == [
        ("e1", 58000.0),
        ("e2", 58001.5),
        ("e3", 58002.0),
    ]


def test_archives_and_releases_do_not_mix(lake_of_ten):
    committed(lake_of_ten, {3: 2}, "g1", release="DR2")
    committed(lake_of_ten, {3: 5}, "g2", archive="wise")
    assert count(lake_of_ten, "sources WHERE source_id = 's3'") == 3
    assert count(lake_of_ten, "coverage") == 12
    assert errors(lake_of_ten) == []


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), "is damaged"),
        (lambda path: path.write_bytes(b"PAR1" + bytes(20) + path.read_bytes()[24:]), "is not the one"),
    ],
)
def test_staging_that_is_lost_or_changed_is_not_committed(lake_of_ten, harm, error):
    manifest = staged(lake_of_ten, range(10, 14), "g1")
    harm(next((lake_of_ten.storage.staging / "g1-0").glob("sources-*")))
    with pytest.raises(StagingLost, match=error):
        commit(lake_of_ten, manifest)
    assert count(lake_of_ten, "sources") == 10
    assert errors(lake_of_ten) == []
    committed(lake_of_ten, range(10, 14), "g1", again=1)  # the lock and the transaction are free again


def test_granules_with_ids_longer_than_names_of_files_can_be(catalog):
    register(catalog, range(4))
    ids = ["x" * 239, "x" * 300, "天" * 100]
    for number, granule in enumerate(ids):
        with catalog.claim(granule) as ours, catalog.claim(granule + "y") as other:
            assert (ours, other) == (True, True)
            folder = catalog.storage.staging / str(number)
            assert committed(catalog, [number], granule, folder=folder).granule == granule
    assert content(catalog) == expected(dict.fromkeys(range(3), 1))
    assert count(catalog, "(SELECT DISTINCT granule FROM lightcurves)") == 3
    assert errors(catalog) == []


def test_what_is_staged_anew_is_another_file(lake_of_ten):
    """DuckDB knows a file again by its path, the second of its time and its size, and reads with the footer of then."""
    manifests = [staged(lake_of_ten, dict.fromkeys(range(5), version), "again", again=0) for version in (2, 5)]
    names = [{file.name for file in manifest.files} for manifest in manifests]
    assert not names[0] & names[1]
    assert commit(lake_of_ten, manifests[1]).replaced == 5
    assert content(lake_of_ten) == expected({**dict.fromkeys(range(10), 1), **dict.fromkeys(range(5), 5)})
    assert errors(lake_of_ten) == []


def test_a_manifest_survives_its_file(catalog):
    manifest = staged(catalog, range(3), "g0", exposures={"e": 58000.0})
    folder = catalog.storage.staging / "g0-0"
    assert Manifest.read(folder) == manifest
    assert Manifest.read(folder / "nowhere") is None
    assert {file.table for file in manifest.files} == {
        "sources",
        "lightcurves",
        "statistics",
        "matches",
        "coverage",
        "exposures",
    }


def test_a_commit_that_fails_half_way_leaves_the_lake_as_it_was(lake_of_ten, monkeypatch):
    before = content(lake_of_ten), errors(lake_of_ten)
    manifest = staged(lake_of_ten, {3: 2, 20: 1}, "g1")
    with monkeypatch.context() as patch:
        patch.setattr("lake.commit.transaction.record_files", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            commit(lake_of_ten, manifest)
    assert (content(lake_of_ten), errors(lake_of_ten)) == before
    assert list((lake_of_ten.storage.staging / "publishing").glob("*.json")) == []
    assert commit(lake_of_ten, manifest).replaced == 1
    assert errors(lake_of_ten) == []


class _LosesItsConnection:
    """A cursor whose COMMIT fails, once, before or after it went through."""

    left = 1

    def __init__(self, cursor, through):
        self._cursor, self._through = cursor, through

    def execute(self, sql, *arguments):
        if sql == "COMMIT" and type(self).left:
            type(self).left -= 1
            self._cursor.execute("COMMIT" if self._through else "ROLLBACK")
            raise duckdb.TransactionException("server closed the connection")
        return self._cursor.execute(sql, *arguments)

    def __getattr__(self, name):
        return getattr(self._cursor, name)


@pytest.mark.parametrize("through", [True, False])
def test_a_connection_lost_at_the_commit_is_not_guessed_about(lake_of_ten, monkeypatch, through):
    """Whether it went through is for the catalogue to say; files that it names must not be removed."""
    original = lake_of_ten.cursor
    monkeypatch.setattr(_LosesItsConnection, "left", 1)
    monkeypatch.setattr(lake_of_ten, "cursor", lambda: _LosesItsConnection(original(), through))
    committed(lake_of_ten, {3: 2, 20: 1}, "g1")
    assert _LosesItsConnection.left == 0
    assert content(lake_of_ten) == expected({**dict.fromkeys(range(10), 1), 3: 2, 20: 1})
    assert count(lake_of_ten, "ledger") == 2
    assert errors(lake_of_ten) == []


def test_a_rejected_granule_leaves_nothing(catalog):
    made = tables(range(3))
    made["lightcurves"] = made["lightcurves"].set_column(
        made["lightcurves"].column_names.index("mjd"), "mjd", pa.array([1.0] * made["lightcurves"].num_rows)
    )
    with pytest.raises(GranuleRejected, match=r"lightcurves.mjd is below 33282 in 18 of 18 rows, such as 1.0"):
        stage(catalog.storage.staging / "bad", attempt(), made)
    assert not (catalog.storage.staging / "bad").exists()


def test_what_was_rejected_now_is_noted_beside_the_answer_of_before(lake_of_ten):
    """The earlier rows stay; the target counts as rejected, and so it is not asked at each run."""
    more = {"targets": range(12), "status": "rejected", "attempt_status": "rejected"}
    committed(lake_of_ten, [], "g1", **more)
    assert content(lake_of_ten) == expected(dict.fromkeys(range(10), 1))
    assert count(lake_of_ten, "matches") == 10
    rows = _query(lake_of_ten, "SELECT status, granule, n_sources, count(*) FROM coverage GROUP BY ALL ORDER BY ALL")
    assert rows == [("rejected", "g1", 0, 2), ("rejected", "g1", 1, 10)]
    assert errors(lake_of_ten) == []
    # A failure says nothing of the answers; a sound answer takes the place of all.
    committed(lake_of_ten, [], "g2", targets=range(10), status="failed", attempt_status="failed")
    committed(lake_of_ten, range(10), "g3")
    assert count(lake_of_ten, "coverage WHERE status = 'found'") == 10
    assert errors(lake_of_ten) == []


def test_new_targets_of_a_sample_are_a_note_not_an_error(lake_of_ten):
    committed(lake_of_ten, range(10, 20), "g1")
    assert [f.check for f in verify(lake_of_ten)] == ["coverage"]


# --- light curves in parts, and dictionaries


def _with_dictionaries(table):
    return pa.table(
        {
            name: table[name].combine_chunks().dictionary_encode() if table[name].type == pa.string() else table[name]
            for name in table.column_names
        }
    )


def _parts(table, rows=7):
    return [_with_dictionaries(table.slice(at, rows)) for at in range(0, table.num_rows, rows)]


def _staged_in_parts(catalog, sources, granule, change=lambda parts: parts):
    made = tables(sources, granule)
    parts, later = change(_parts(made.pop("lightcurves"))), {"statistics": made.pop("statistics")}
    folder = catalog.storage.staging / granule
    return stage(
        folder,
        attempt(granule, n_targets=made["coverage"].num_rows),
        made,
        {"g": "mJy", "r": "mJy"},
        lightcurves=iter(parts),
        afterwards=lambda: later,
    )


def test_light_curves_in_parts_arrive_as_whole_ones_do(lake_of_ten):
    manifest = _staged_in_parts(lake_of_ten, {**dict.fromkeys(range(5, 15), 1), 7: 2}, "g1")
    assert manifest.attempt.n_rows == 60
    assert {file.table for file in manifest.files} == {"sources", "lightcurves", "statistics", "matches", "coverage"}
    receipt = commit(lake_of_ten, manifest)
    assert (receipt.replaced, receipt.kept) == (1, 4)
    assert content(lake_of_ten) == expected({**dict.fromkeys(range(15), 1), 7: 2})
    assert errors(lake_of_ten) == []


def test_parts_are_validated_and_written_as_they_come(catalog):
    seen = []

    def parts():
        for part in _parts(tables(range(4), "g1")["lightcurves"]):
            seen.append(len(list((catalog.storage.staging / "g1").glob("*"))))
            yield part

    made = {"sources": tables(range(4), "g1")["sources"]}
    stage(catalog.storage.staging / "g1", attempt("g1"), made, lightcurves=parts())
    assert seen == [0, 1, 1, 1]  # the first one opens the file


def test_what_comes_afterwards_is_asked_for_when_all_parts_have_come(catalog):
    made, order = tables(range(4), "g1"), []

    def parts():
        yield from _parts(made["lightcurves"])
        order.append("parts")

    def afterwards():
        order.append("afterwards")
        return {"statistics": _with_dictionaries(made["statistics"])}

    manifest = stage(
        catalog.storage.staging / "g1",
        attempt("g1"),
        {"sources": made["sources"]},
        lightcurves=parts(),
        afterwards=afterwards,
    )
    assert order == ["parts", "afterwards"]
    assert {file.table: file.rows for file in manifest.files} == {"sources": 4, "lightcurves": 24, "statistics": 8}


def _spoil(column, value):
    def change(parts):
        last = parts[-1]
        values = [*last[column].to_pylist()[:-1], value]
        kind = last[column].type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        place = last.column_names.index(column)
        return [*parts[:-1], last.set_column(place, column, pa.array(values, kind))]

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_spoil("mjd", 1.0), "lightcurves.mjd is below 33282 in 1 of"),
        (_spoil("source_id", "other"), "lightcurves.source_id is not among the granule's sources"),
        (_spoil("hpx29", 7), "lightcurves.hpx29 differs from its source's"),
        (_spoil("band", "z"), "lightcurves.band 'z' is none of g, r"),
        (_spoil("unit", "Jy"), "lightcurves.unit of band r is 'Jy', not 'mJy'"),
        (_spoil("archive", "wise"), "lightcurves.archive is not 'ztf'"),
        (_spoil("detected", None), "lightcurves.detected is NULL"),
        (lambda parts: [*parts, parts[0].append_column("nonsense", parts[0]["mjd"])], "has no column nonsense"),
    ],
)
def test_a_bad_last_part_rejects_the_granule_and_leaves_no_file(lake_of_ten, change, reason):
    with pytest.raises(GranuleRejected, match=reason):
        _staged_in_parts(lake_of_ten, range(10, 14), "g1", change)
    folder = lake_of_ten.storage.staging / "g1"
    assert Manifest.read(folder) is None
    assert list(folder.iterdir()) == []
    assert errors(lake_of_ten) == []


def test_statistics_that_come_afterwards_are_validated(catalog):
    made = tables(range(4), "g1")
    with pytest.raises(GranuleRejected, match=r"statistics.source_id is not among"):
        stage(
            catalog.storage.staging / "g1",
            attempt("g1"),
            {"sources": made["sources"]},
            afterwards=lambda: {"statistics": tables(range(5), "g1")["statistics"]},
        )
    assert Manifest.read(catalog.storage.staging / "g1") is None


@pytest.mark.parametrize("parts", [[], [0], [0, 0]])
def test_no_light_curves_in_parts_are_no_file(catalog, parts):
    made = tables(range(4), "g1")
    none = [_with_dictionaries(made["lightcurves"].slice(0, n)) for n in parts]
    manifest = stage(catalog.storage.staging / "g1", attempt("g1"), {"sources": made["sources"]}, lightcurves=none)
    assert {file.table for file in manifest.files} == {"sources"}
    assert manifest.attempt.n_rows == 0


def test_whole_tables_may_have_dictionaries_too(lake_of_ten):
    made = {name: _with_dictionaries(table) for name, table in tables(range(10, 14), "g1").items()}
    commit(lake_of_ten, stage(lake_of_ten.storage.staging / "g1", attempt("g1"), made, {"g": "mJy", "r": "mJy"}))
    assert content(lake_of_ten) == expected(dict.fromkeys(range(14), 1))
    assert errors(lake_of_ten) == []


def test_a_commit_that_fails_leaves_no_file_in_the_tree(catalog, monkeypatch):
    register(catalog, range(6))
    committed(catalog, range(3), "g0")
    before = {path.name for path in (catalog.storage.data / "main").rglob("*.parquet")}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(transaction, "record_files", full)
        with pytest.raises(OSError, match="No space left"):
            committed(catalog, range(3, 6), "g1")
    assert {path.name for path in (catalog.storage.data / "main").rglob("*.parquet")} == before
    committed(catalog, range(3, 6), "g1")
    assert content(catalog) == expected(dict.fromkeys(range(6), 1))
    assert errors(catalog) == []


@pytest.mark.parametrize("n", [1, 100, 30_000])
@pytest.mark.parametrize("width_deg", [0.01, 5.0, 180.0])
def test_moved_sources_are_searched_in_all_pixels_around(n: int, width_deg: float) -> None:
    rng = np.random.default_rng(n)
    ra, dec = 45 + width_deg * rng.uniform(-1, 1, n), np.clip(width_deg * rng.uniform(-0.5, 0.5, n), -90, 90)
    ranges = around(hpx29(ra, dec))
    own = np.unique(hpx29(ra, dec) >> 32)  # order 13, 26 arcsec wide
    near = np.append(own, hpgeom.neighbors(2**13, own))
    pixels = near[near >= 0] << 32
    assert np.all(sum((low <= pixels) & (pixels + 2**32 - 1 <= high) for low, high in ranges) == 1)
    assert len(ranges) in (1, 2)
