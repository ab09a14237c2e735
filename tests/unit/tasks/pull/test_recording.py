"""A run is recorded, and what cannot be recorded just now does not hold it up."""

from __future__ import annotations

import pytest

from lake.query import Lake
from lake.store.catalog import Catalog
from tasks.pull import recording
from tasks.pull.recording import recorded


def test_a_run_begins_while_others_write_and_is_written_down_later(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_BEGIN_WITHIN_S", 0.1)
    monkeypatch.setattr(recording, "_BEGIN_AGAIN_S", 0.0)
    writer = Catalog(catalog.storage, catalog.settings)
    held = writer.lock()
    held.__enter__()
    with recorded(lake, "pull", "one") as run:
        assert not run.is_begun
        run.look()
        assert not run.is_begun
        held.__exit__(None, None, None)
        run.look()
        assert run.is_begun
        assert lake.sql("SELECT run_id, state FROM runs").to_pylist() == [{"run_id": "one", "state": "running"}]
    assert lake.sql("SELECT state FROM runs").to_pylist() == [{"state": "done"}]
    writer.close()


def test_a_run_that_ends_first_is_written_with_its_end(
    catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_BEGIN_WITHIN_S", 0.1)
    writer = Catalog(catalog.storage, catalog.settings)
    held = writer.lock()
    held.__enter__()
    with recorded(lake, "pull", "one") as run:
        held.__exit__(None, None, None)
        run.ends(lost=True, message="1 target failed")
    assert lake.sql("SELECT state, message FROM runs").to_pylist() == [
        {"state": "incomplete", "message": "1 target failed"}
    ]
    writer.close()
