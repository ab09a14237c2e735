"""Estimate a refresh without running it: how many targets each archive would be asked, why, and what that takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lake.commit.ledger import Select, Waiting, canonical, dated_ahead, history, waiting
from lake.errors import ArchiveError
from lake.names import check_sample
from lake.query import Lake
from lake.text import counted
from tasks.archives.batches import max_age, release_in
from tasks.sources import releases
from tasks.sources.base import Archive
from tasks.sources.registry import find

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What one archive would be asked. Estimates follow from its earlier answers; None if there are none.

    Parameters
    ----------
    waiting
        Targets to ask for.
    answered
        Answers that the estimates are made from.
    seconds
        Time to fetch and stage, one batch after the other; several at a time take less.
    n_rows, bytes
        Measurements, and bytes of Parquet.
    """

    archive: str
    release: str
    waiting: Waiting
    answered: int
    seconds: float | None
    n_rows: int | None
    bytes: int | None

    def row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        return {
            "archive": self.archive,
            "release": self.release,
            "targets": self.waiting.total,
            "new": self.waiting.new,
            "old": self.waiting.old,
            "failed_before": self.waiting.failed,
            "rejected_before": self.waiting.rejected,
            "fetch_s": self.seconds,
            "rows": self.n_rows,
            "bytes": self.bytes,
            "estimated_from": self.answered,
        }

    @property
    def message(self) -> str:
        """Return it in one line."""
        why = {
            "new": self.waiting.new,
            "too old": self.waiting.old,
            "failed before": self.waiting.failed,
            "rejected before": self.waiting.rejected,
        }
        reasons = ", ".join(f"{n} {what}" for what, n in why.items() if n)
        if not reasons:
            return f"{self.archive}: nothing to ask"
        asked = f"{self.archive}: {counted(self.waiting.total, 'target')} to ask ({reasons})"
        if self.seconds is None:
            return f"{asked}; none was answered yet, no estimate"
        return f"{asked}, about {self.seconds:.0f} s of fetching, {counted(self.n_rows or 0, 'row')}"


def plans(
    lake: Lake,
    archives: Sequence[str],
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    sample: str | Sequence[str] | None = None,
    *,
    select: Select = "pending",
    back_off: bool = False,
    newest: bool = False,
) -> list[Plan]:
    """Plan a refresh, archive by archive: each at the release that the lake shows.

    Parameters
    ----------
    archives
        Their names.
    parameters
        By archive, other than the defaults.
    sample
        Only targets of this one, or of any of these.
    select, back_off
        As in a `Request`.
    newest
        Then the newest release that the archive publishes, too.

    Raises
    ------
    ConfigurationError
        If the lake has no such sample.
    """
    samples = [sample] if isinstance(sample, str) else sample
    for one in samples or ():
        check_sample(lake, one)
    made = []
    for name in archives:
        for archive in _at_releases(lake, name, newest=newest):
            given = archive.with_defaults((parameters or {}).get(name))
            made.append(plan(lake, archive, given, samples, select=select, back_off=back_off))
    return made


def _at_releases(lake: Lake, name: str, *, newest: bool) -> list[Archive]:
    """Return an archive at the release that the lake shows, and at the newest; a lake that shows none skips older."""
    shown = find(name, release_in(lake, find(name)))
    if not newest:
        return [shown]
    try:
        release = releases.newest(shown, lake.settings)
    except ArchiveError as error:
        logger.warning("newer releases of %s are not known: %s", name, error)
        return [shown]
    if release == shown.release:
        return [shown]
    later = find(name, release)
    begun = lake.sql("SELECT release FROM archives WHERE archive = ?", [name]).num_rows
    return [shown, later] if begun else [later]


def count_ahead(lake: Lake, archive: Archive) -> int:
    """Count answers of an archive that are dated ahead, and so count as too old: see lake.commit.ledger."""
    if max_age(archive) is None:
        return 0
    with lake.catalog.borrowed() as cursor:
        return dated_ahead(cursor, "coverage").get(f"{archive.name} {archive.release}", (0, None))[0]


def plan(
    lake: Lake,
    archive: Archive,
    parameters: Mapping[str, Any],
    samples: Sequence[str] | None = None,
    *,
    select: Select = "pending",
    back_off: bool = False,
) -> Plan:
    """Plan a pull of an archive.

    Parameters
    ----------
    parameters
        All of the archive's, as from Archive.with_defaults.
    samples
        Only targets of these samples; None for all.
    select, back_off
        As in a `Request`.
    """
    if select == "pending" and (ahead_of_time := count_ahead(lake, archive)):
        logger.warning(
            "%d answers of %s are dated in the future, and count as too old: compare the clocks (lightlake doctor)",
            ahead_of_time,
            archive.name,
        )
    asked = (archive.name, archive.release, canonical(parameters), samples, max_age(archive))
    with lake.catalog.borrowed() as cursor:
        ahead = waiting(cursor, *asked, select=select, back_off=back_off, followed=archive.followed(parameters))
        past = history(cursor, archive.name, archive.release)
    if not past.n_targets:
        return Plan(archive.name, archive.release, ahead, 0, None, None, None)
    each = ahead.total / past.n_targets
    return Plan(
        archive.name,
        archive.release,
        ahead,
        past.n_targets,
        each * past.seconds,
        round(each * past.n_rows),
        round(each * past.bytes),
    )
