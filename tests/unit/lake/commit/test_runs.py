"""Runs of a lake: begun, ended, resumed, killed, asked to stop; and what their processes measured."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lake.commit import metrics
from lake.commit.ledger import Attempt, current_run, in_run
from lake.commit.runs import (
    Start,
    begin,
    claimed,
    end,
    is_alive,
    is_stop_requested,
    note_samples,
    request_stop,
    samples_of,
    take_stop,
    unfinished,
)
from lake.errors import ConfigurationError
from lake.model.schema import TABLES
from lake.query import Lake
from lake.store.catalog import Catalog
from lake.upkeep.compaction import compact
from lake.upkeep.maintenance import verify
from lake.upkeep.run_status import as_lines, processes_now, run_named, runs

BEGAN = datetime(2026, 11, 29, 12, tzinfo=UTC)


def start(run_id: str = "one", minutes: int = 0, **more: Any) -> Start:
    return Start(run_id, f"pull for {run_id}", "here", 7, BEGAN + timedelta(minutes=minutes), **more)


def states(catalog: Catalog) -> list[tuple[Any, ...]]:
    return catalog.cursor().execute("SELECT run_id, state, message FROM runs ORDER BY started_at").fetchall()


@pytest.mark.crash
def test_a_run_that_was_killed_is_interrupted_when_it_is_started_again(catalog: Catalog) -> None:
    first, second, other = start(), start(minutes=5), start("two", 1)
    begin(catalog, first)
    begin(catalog, other)
    note_samples(catalog, first, {"green22": ["green22"]})
    begin(catalog, second)
    assert states(catalog) == [("one", "interrupted", None), ("two", "running", None), ("one", "running", None)]
    end(catalog, second, "incomplete", "1 of 2 targets FAILED", 512.0)
    end(catalog, other, "done", None, None)
    assert states(catalog)[1:] == [("two", "done", None), ("one", "incomplete", "1 of 2 targets FAILED")]
    compact(catalog)
    begin(catalog, start(minutes=9))  # rows that are in files by now, too
    assert [state for _, state, _ in states(catalog)] == ["interrupted", "done", "incomplete", "running"]
    compact(catalog)
    assert [finding for finding in verify(catalog) if finding.is_error] == []


def test_a_start_goes_on_with_those_that_did_not_come_to_their_end() -> None:
    series = ("done", "interrupted", "stopped", "failed")
    rows = [
        {"state": state, "started_at": BEGAN + timedelta(hours=n), "samples": json.dumps({f"s{n}": [f"S{n}"]})}
        for n, state in enumerate(series)
    ]
    assert [row["state"] for row in unfinished(rows[::-1])] == ["interrupted", "stopped", "failed"]
    assert samples_of(unfinished(rows)) == {"s1": ["S1"], "s2": ["S2"], "s3": ["S3"]}
    assert unfinished(rows[:1]) == unfinished([]) == []


def test_one_run_of_a_name_at_a_time_and_its_claim_says_whether_it_lives(catalog: Catalog) -> None:
    assert is_alive(catalog, "one") is False
    with claimed(catalog, "one"):
        assert is_alive(catalog, "one") is True
        with pytest.raises(ConfigurationError, match="lightlake stop one"), claimed(catalog, "one"):
            pass
        with claimed(catalog, "two"):
            pass
    assert is_alive(catalog, "one") is False


def test_the_list_shows_what_a_claim_and_a_request_to_stop_say(catalog: Catalog, lake: Lake) -> None:
    assert runs(lake).num_rows == 0
    begin(catalog, start(request='{"key": "secret=hunter2"}'))
    assert run_named(lake, "one")["state"] == "interrupted"
    with claimed(catalog, "one"):
        assert run_named(lake, "one")["state"] == "running"
        request_stop(catalog.storage, "one", "somebody")
        assert run_named(lake, "one")["state"] == "stopping"
    assert run_named(lake, "one")["state"] == "stopped"
    assert take_stop(catalog.storage, "one") == "stopped"
    begin(catalog, start(minutes=1), "stopped")
    assert lake.sql("SELECT state FROM runs ORDER BY started_at")["state"].to_pylist() == ["stopped", "running"]
    assert not is_stop_requested(catalog.storage, "one")
    with pytest.raises(ConfigurationError, match="one"):
        run_named(lake, "oen")
    assert "hunter2" not in str(lake.sql("FROM runs").to_pylist())


def test_the_list_fits_80_columns_whatever_the_names(catalog: Catalog, lake: Lake) -> None:
    for number, name in enumerate(("a", "b" * 40, "c" * 100)):
        begin(catalog, start(name, number))
    lines = as_lines(runs(lake))
    assert max(map(len, lines)) <= 100  # an id longer than that has a line of its own
    assert all(len(line) <= 80 for line in lines if not line.startswith("ccc"))
    assert len(lines) == 1 + 1 + 2 + 2


def test_attempts_belong_to_the_run_that_makes_them() -> None:
    def attempt() -> Attempt:
        return Attempt("a", "1", "g", "done", BEGAN)

    assert attempt().run_id is current_run() is None
    with in_run("one"):
        made = attempt()
        assert made.run_id == "one"
    assert Attempt.from_dict(made.as_dict()) == made
    old = {name: value for name, value in made.as_dict().items() if name != "run_id"}
    assert Attempt.from_dict(old).run_id is None


# --- what processes measured ---


def look(minutes: float, archive: str | None = None, **more: Any) -> dict[str, Any]:
    row = {
        "run_id": "one",
        "host": "here",
        "process": 7,
        "archive": archive,
        "time": BEGAN + timedelta(minutes=minutes),
    }
    return {**row, "cpu_s": minutes, "received_bytes": 0, "open_requests": 0, **more}


def test_pieces_are_committed_together_and_once(catalog: Catalog, lake: Lake) -> None:
    folder = metrics.folder_of(catalog.storage, "one")
    assert metrics.commit_pieces(catalog, "one") == 0
    for minute in range(3):
        metrics.write_piece(folder, [look(minute), look(minute, "gaia", received_bytes=5)])
    kept = {path.name: path.read_text() for path in folder.iterdir()}
    (folder / "half.json").write_text("[{")
    assert metrics.commit_pieces(catalog, "one") == 6
    assert metrics.runs_with_pieces(catalog.storage) == ["one"]
    # A process that was killed after its commit has left them behind.
    for name, text in kept.items():
        (folder / name).write_text(text)
    metrics.write_piece(folder, [look(9, resident_bytes=5_000_000)])
    (now,) = processes_now(lake, "one")
    assert (now["last_seen"], now["cpu_s"], now["memory_mb"]) == (BEGAN + timedelta(minutes=9), 9.0, 5.0)
    assert metrics.commit_pieces(catalog, "one") == 1
    cursor = catalog.cursor()
    assert cursor.execute("SELECT count(*), count(DISTINCT (time, archive)), max(cpu_s) FROM metrics").fetchall() == [
        (7, 7, 9.0)
    ]
    assert cursor.execute("SELECT count(*) FROM files WHERE table_name = 'metrics'").fetchall() == [(2,)]
    metrics.remove_pieces(catalog.storage, "one")
    assert metrics.runs_with_pieces(catalog.storage) == []
    assert [finding for finding in verify(catalog) if finding.is_error] == []


def test_every_quantity_has_its_unit() -> None:
    units = {column.name: column.unit for column in TABLES["metrics"].columns if column.unit}
    assert units.pop("cpu_s") == "s"
    assert set(units.values()) == {"byte"}
    assert set(units) == {"resident_bytes", "read_bytes", "written_bytes", "received_bytes"}
