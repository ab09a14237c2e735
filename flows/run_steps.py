"""The steps of a run that a file describes: get its samples, then pull its archives for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from flows.forms import RunOptions
from flows.run_names import archives_of
from lake.commit.ledger import canonical
from lake.commit.runs import note_samples, samples_of, unfinished
from lake.query import Lake
from lake.settings import Settings
from lake.text import counted
from tasks.archives.estimates import plans
from tasks.pull.recording import Recording
from tasks.pull.refresh import Refreshed, summed_up
from tasks.pull.run import Outcome
from tasks.samples.collect import add_collected, collect, known_samples
from tasks.samples.literature import LITERATURE
from tasks.services.request_counters import Log
from tasks.sources.protocol import Request
from tasks.sources.registry import check_parameters, expand, find

# The sample that the lake has already: its parameter `sample` names it.
IN_LAKE = "lake"


def checked(options: RunOptions) -> list[str]:
    """Check a run before any work; return the archives that it asks.

    Raises
    ------
    ConfigurationError
        If an archive, a sample or a parameter is unknown, or cannot be.
    """
    if options.archives is None:
        names = expand(None)
    else:
        given = options.parameters or {}
        names = list(dict.fromkeys(one for name in options.archives for one in archives_of(name, given)))
    check_parameters(options.parameters, names)
    for name, release in (options.release or {}).items():
        (archive,) = archives_of(name)
        find(archive, None if release == "newest" else release)
    for entry in options.samples or ():
        for name, parameters in entry.items():
            if name != IN_LAKE and (model := known_samples().get(name)) is not None:
                model.of(**parameters)
    _ = options.select  # which refuses both switches
    return names


def run_all(
    lake: Lake,
    options: RunOptions,
    names: Sequence[str],
    recording: Recording,
    pulled: Callable[[list[Request]], list[Outcome]],
    log: Log,
) -> Refreshed:
    """Get the samples of a run, pull its archives for them, and note in its recording how it ended.

    Parameters
    ----------
    names
        The archives.
    pulled
        Pulls requests, and returns the outcome of each.
    """
    earlier = _rows(lake, options.run_id)
    earlier = [row for row in earlier if row["started_at"] < recording.start.started_at]
    before = unfinished(earlier)
    samples = get_samples(lake, options, recording, before if options.again else earlier, lake.settings, log)
    requests = [
        Request(
            name,
            (options.parameters or {}).get(name),
            samples,
            "pending" if options.again else options.select,
            _release_of(name, options),
            options.back_off,
            # What this run answered before it was interrupted is not asked again.
            min([recording.start.started_at, *(row["started_at"] for row in before)]) if options.again else None,
        )
        for name in names
    ]
    done = summed_up(requests, pulled(requests))
    recording.ends(lost=bool(done.lost), message=" | ".join(done.lost or done.lines))
    return done


def get_samples(
    lake: Lake,
    options: RunOptions,
    recording: Recording,
    before: Sequence[dict[str, Any]],
    settings: Settings,
    log: Log,
) -> tuple[str, ...] | None:
    """Add the samples of a run to the lake, those that it has not added yet; return their names, None for all targets.

    Parameters
    ----------
    before
        Starts of this run whose samples are not asked for again.
    """
    if options.samples is None:
        return None
    added = samples_of(before)
    known = samples_of(_rows(lake)) if options.keep_samples else {}
    names: list[str] = []
    for entry in options.samples:
        for name, parameters in entry.items():
            if name == IN_LAKE:
                names.append(str(parameters["sample"]))
                continue
            key = canonical({name: parameters})
            if key not in added and key in known:
                added[key] = known[key]
            if key not in added:
                recording.check()
                log.info("sample %s: asking for it", name)
                collected = collect(name, parameters, settings)
                counts = add_collected(
                    lake, collected, match_radius_arcsec=options.match_radius_arcsec, run_id=recording.run_id
                )
                for one, count in zip(collected, counts, strict=True):
                    log.info("sample %s: %s, %d new targets", one.sample, counted(count.rows, "row"), count.new)
                    for remark in one.remarks:
                        log.warning("sample %s: %s", one.sample, remark)
                added[key] = [one.sample for one in collected]
                note_samples(lake.catalog, recording.start, added)
            names += added[key]
    return tuple(dict.fromkeys(names))


def planned(lake: Lake, options: RunOptions, names: Sequence[str]) -> pa.Table:
    """Return what a run would do: a row for each sample, then one for each archive, with what it would be asked."""
    known = samples_of(_rows(lake))
    rows: list[dict[str, Any]] = []
    there: list[str] = []
    for entry in options.samples or ():
        for name, parameters in entry.items():
            own = [str(parameters["sample"])] if name == IN_LAKE else known.get(canonical({name: parameters}), [])
            there += own
            count = _targets(lake, own) if own else None
            row = {"step": "sample", "name": name, "in_lake": count, "expected": _expected(name, parameters)}
            rows.append({**row, "parameters": canonical(parameters)})
    given = options.parameters or {}
    samples = tuple(dict.fromkeys(there)) if options.samples is not None else None
    for one in plans(lake, names, given, samples, select=options.select, back_off=options.back_off):
        row = {"step": "archive", "name": one.archive, **one.row(), "parameters": canonical(given.get(one.archive, {}))}
        rows.append({key: value for key, value in row.items() if key != "archive"})
    keys = dict.fromkeys(key for row in rows for key in row)
    return pa.Table.from_pylist([{key: row.get(key) for key in keys} for row in rows])


def _expected(name: str, parameters: dict[str, Any]) -> int | None:
    """Return how many targets a sample is known, or asked, to have."""
    if name in LITERATURE:
        return LITERATURE[name].expected
    if name in known_samples():
        options: Any = known_samples()[name].of(**parameters)
        return len(options.oids) if hasattr(options, "oids") else getattr(options, "num", None)
    return None


def _targets(lake: Lake, samples: Sequence[str]) -> int:
    counts = lake.sql(
        "SELECT count(DISTINCT target_id) AS n FROM labels WHERE sample IN (SELECT unnest($samples))",
        {"samples": list(samples)},
    )
    return int(counts["n"][0].as_py())


def _release_of(archive: str, options: RunOptions) -> str | None:
    return next((release for name, release in (options.release or {}).items() if archive in archives_of(name)), None)


def _rows(lake: Lake, run_id: str | None = None) -> list[dict[str, Any]]:
    """Return the starts of a run, or of all runs."""
    query = "FROM runs WHERE $run IS NULL OR run_id = $run ORDER BY started_at"
    rows: list[dict[str, Any]] = lake.sql(query, {"run": run_id}).to_pylist()
    return rows
