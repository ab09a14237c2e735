"""Runs: what a lake knows of each start of a command or flow that fills it, and requests to stop one.

Whether a run is alive is known from its claim, not from its row: a killed process writes no row.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from lake.commit.transaction import Change, write
from lake.errors import ConfigurationError, ReadOnly
from lake.model.schema import TABLES
from lake.redact import redacted, safe_line
from lake.store.catalog import Catalog
from lake.store.claims import held, is_free
from lake.store.storage import Storage, remove, write_text
from lake.text import file_name

if TYPE_CHECKING:
    from upath import UPath

# The page that helps with errors from here.
HELP_TOPIC = "how-to/runs"

State = Literal["running", "done", "incomplete", "failed", "stopped", "interrupted"]

# One who only looks whether a run is alive holds its claim for a moment.
_CLAIM_WITHIN_S = 2.0


@dataclass(frozen=True)
class Start:
    """A start of a run: the row of table runs, before its end is known; without secrets."""

    run_id: str
    name: str
    host: str
    process: int
    started_at: datetime
    request: str | None = None
    flow_run_id: str | None = None

    def __post_init__(self) -> None:
        """Remove secrets."""
        object.__setattr__(self, "name", safe_line(self.name))
        if self.request is not None:
            object.__setattr__(self, "request", redacted(self.request))


@contextmanager
def claimed(catalog: Catalog, run_id: str) -> Iterator[None]:
    """Hold the claim that shows that a run is alive.

    Raises
    ------
    ConfigurationError
        If the run is running already.
    """
    end = time.monotonic() + _CLAIM_WITHIN_S
    while True:
        with held(catalog, _claim(run_id)) as ours:
            if ours:
                yield
                return
        if time.monotonic() > end:
            raise ConfigurationError(
                f"the run {run_id} is running already",
                hint=f"see it with: lightlake status --run {run_id}; end it with: lightlake stop {run_id}",
            )
        time.sleep(0.1)


def is_alive(catalog: Catalog, run_id: str) -> bool | None:
    """Say whether a process holds a run's claim; None if this user may not look."""
    try:
        looking = Catalog(catalog.storage, catalog.settings) if catalog.read_only else catalog
        try:
            return not is_free(looking, _claim(run_id), strict=False)
        finally:
            if looking is not catalog:
                looking.close()
    except ReadOnly:
        return None


def take_stop(storage: Storage, run_id: str) -> State:
    """Remove a request to stop that earlier starts of a run did not live to see; return how these ended."""
    earlier: State = "stopped" if is_stop_requested(storage, run_id) else "interrupted"
    remove(_stop(storage, run_id))
    return earlier


def begin(catalog: Catalog, start: Start, earlier: State = "interrupted", within_s: float | None = None) -> None:
    """Write that a run starts.

    Parameters
    ----------
    start
        The caller holds the run's claim.
    earlier
        How earlier starts without an end ended.
    within_s
        Longest wait for other writers; None: LIGHTLAKE_LOCK_TIMEOUT_S.

    Raises
    ------
    CatalogError
        If the catalogue cannot be locked or written.
    """

    def work(number: int) -> None:
        with Change(catalog, number) as change:

            def rewrites() -> list[str]:
                change.cursor.execute(
                    "UPDATE runs SET state = ?, ended_at = ? WHERE run_id = ? AND state = 'running'",
                    [earlier, start.started_at, start.run_id],
                )
                row = {**vars(start), "state": "running"}
                change.cursor.register("started", TABLES["runs"].cast(pa.Table.from_pylist([row])))
                change.cursor.execute("INSERT INTO runs BY NAME FROM started")
                change.cursor.unregister("started")
                return ["runs"]

            change.bring_in({}, rewrites)

    write(catalog, work, within_s)


def note_samples(catalog: Catalog, start: Start, samples: Mapping[str, Sequence[str]]) -> None:
    """Write which samples a run has added, by what was asked for each."""
    _update(catalog, start, "samples = ?", [json.dumps(samples, sort_keys=True)])


def samples_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the samples that some starts of runs have added, by what was asked for each."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found |= json.loads(row["samples"] or "{}")
    return found


def end(catalog: Catalog, start: Start, state: State, message: str | None, peak_rss_mb: float | None) -> None:
    """Write how a start of a run ended."""
    values = [state, datetime.now(UTC), None if message is None else safe_line(message), peak_rss_mb]
    _update(catalog, start, "state = ?, ended_at = ?, message = ?, peak_rss_mb = ?", values)
    remove(_stop(catalog.storage, start.run_id))


def note_stopped(catalog: Catalog, run_id: str) -> None:
    """Write that a run was stopped which had no time to do so itself."""
    found = catalog.cursor().execute(
        "SELECT name, host, process, started_at FROM runs WHERE run_id = ? AND state = 'running'", [run_id]
    )
    for name, host, process, started_at in found.fetchall():
        end(
            catalog, Start(run_id, name, host, process, started_at), "stopped", "it was ended with work under way", None
        )


def _update(catalog: Catalog, start: Start, values_sql: str, values: Sequence[Any]) -> None:
    """Change the row of a start of a run."""

    def work(number: int) -> None:
        with Change(catalog, number) as change:

            def rewrites() -> list[str]:
                change.cursor.execute(
                    f"UPDATE runs SET {values_sql} WHERE run_id = ? AND started_at = ?",
                    [*values, start.run_id, start.started_at],
                )
                return ["runs"]

            change.bring_in({}, rewrites)

    write(catalog, work)


def request_stop(storage: Storage, run_id: str, who: str) -> None:
    """Ask a run to stop; it looks every few seconds, on whatever machine it is."""
    note = {"who": who, "at": datetime.now(UTC).isoformat()}
    write_text(_stop(storage, run_id), json.dumps(note))


def is_stop_requested(storage: Storage, run_id: str) -> bool:
    """Say whether a run was asked to stop."""
    return bool(_stop(storage, run_id).exists())


def unfinished(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the last starts of a run that did not come to their end, which another start goes on with.

    Parameters
    ----------
    rows
        Rows of table runs, all of one run.
    """
    found = []
    for row in sorted(rows, key=lambda one: one["started_at"], reverse=True):
        if row["state"] in ("done", "incomplete"):
            break
        found.append(row)
    return found[::-1]


def _claim(run_id: str) -> str:
    return f"running-{file_name(run_id)}"


def _stop(storage: Storage, run_id: str) -> UPath:
    return storage.staging / "stops" / f"{file_name(run_id)}.json"
