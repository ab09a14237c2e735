"""What changed in the light curves since a snapshot or a date: new points, changed values, sources that went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import ConfigurationError
from lake.names import check_sample
from lake.text import counted

if TYPE_CHECKING:
    from lake.query import Lake

# The page that helps with errors from here.
HELP_TOPIC = "how-to/files-and-citations"

# Points that are so many standard deviations off what their light curve was are a brightening or a fading.
SIGMA = 5.0

# A light curve with fewer good points has no level that a new one could differ from.
_FEWEST = 3

_SUMMARY = """
WITH changed AS MATERIALIZED (FROM {changed}),
matched AS (
    SELECT DISTINCT target_id, archive, release, source_id FROM (
        SELECT target_id, archive, release, source_id FROM matches
        UNION ALL SELECT target_id, archive, release, source_id FROM matches AT (VERSION => {first})
    )
),
gone AS (
    SELECT DISTINCT archive, release, source_id FROM changed WHERE change = 'gone'
        AND (archive, release, source_id) NOT IN (SELECT (archive, release, source_id) FROM sources)
),
level AS (
    SELECT archive, release, source_id, band, unit, flux_median, flux_std
    FROM (FROM statistics AT (VERSION => {first}))
    WHERE n_good >= {fewest} AND flux_std IS NOT NULL
),
off AS (
    SELECT changed.*, CASE WHEN change = 'new' AND good AND detected AND level.unit IS NOT DISTINCT FROM changed.unit
        THEN (flux - flux_median) / nullif(sqrt(pow(coalesce(flux_err, 0), 2) + pow(flux_std, 2)), 0) END AS sigma
    FROM changed LEFT JOIN level USING (archive, release, source_id, band)
)
SELECT targets.target_id, targets.name, off.archive, off.release,
    count(*) FILTER (change = 'new') AS new_points, count(*) FILTER (change = 'changed') AS changed_points,
    count(*) FILTER (change = 'gone') AS gone_points,
    count(DISTINCT off.source_id) FILTER (gone.source_id IS NOT NULL) AS gone_sources,
    count(*) FILTER (sigma >= {sigma}) AS brighter, count(*) FILTER (sigma <= -{sigma}) AS fainter,
    max(sigma) AS most_above_sigma, min(sigma) AS most_below_sigma,
    arg_max(off.band, abs(sigma)) AS band, arg_max(off.mjd, abs(sigma)) AS mjd
FROM off
LEFT JOIN matched USING (archive, release, source_id)
LEFT JOIN targets USING (target_id)
LEFT JOIN gone USING (archive, release, source_id)
WHERE $sample IS NULL OR matched.target_id IN (SELECT target_id FROM labels WHERE sample = $sample)
GROUP BY ALL
ORDER BY greatest(abs(most_above_sigma), abs(most_below_sigma)) DESC NULLS LAST, new_points DESC, name, archive
"""


@dataclass(frozen=True)
class Changes:
    """What changed between two snapshots.

    Parameters
    ----------
    first, last
        Snapshots: what came after the first, up to the last.
    first_time, last_time
        When they were made.
    rows
        A row for each target and archive: target_id, name, archive, release; new_points, changed_points, gone_points,
        gone_sources; brighter and fainter, the new points that are `sigma` or more off; most_above_sigma and
        most_below_sigma, with band and mjd of the point that is most off.
    sigma
        Standard deviations from which on a new point counts as brighter or fainter.
    """

    first: int
    last: int
    first_time: datetime
    last_time: datetime
    rows: pa.Table
    sigma: float

    def total(self, column: str) -> int:
        """Return the sum of a column."""
        return pc.sum(self.rows[column]).as_py() or 0

    def lines(self) -> list[str]:
        """Return what changed, in few lines.

        Examples
        --------
        >>> import lake
        >>> with lake.open("my-lake") as opened:
        ...     changes_summary(opened, 2).lines()[1]
        'new points: 12; changed: 0; gone: 0, with 0 sources; brighter by 5 sigma: 0, fainter: 0'
        """
        return [
            f"from snapshot {self.first} of {self.first_time:%Y-%m-%d %H:%M:%S} to {self.last} of "
            f"{self.last_time:%Y-%m-%d %H:%M:%S} UTC: "
            f"{counted(len(pc.unique(self.rows['target_id'])), 'target')} with changes",
            f"new points: {self.total('new_points')}; changed: {self.total('changed_points')}; "
            f"gone: {self.total('gone_points')}, with {counted(self.total('gone_sources'), 'source')}; "
            f"brighter by {self.sigma:g} sigma: {self.total('brighter')}, fainter: {self.total('fainter')}",
        ]


def changes_summary(
    lake: Lake, since: int | str | datetime, *, sample: str | None = None, sigma: float = SIGMA
) -> Changes:
    """Sum up what changed in the light curves, by target and archive.

    Measurements are compared by archive, release, source, band and time: rows that were pulled again with the same
    values are no change. A new point is compared with the median and the scatter that its light curve had before.

    Parameters
    ----------
    lake
        The lake.
    since
        A snapshot's number, or a date and time (UTC): the state of the lake then.
    sample
        Only targets of this sample.
    sigma
        Standard deviations from which on a new point counts as brighter or fainter.

    Raises
    ------
    ConfigurationError
        If the snapshot is not known or was removed by maintenance, or the sample is unknown.

    Examples
    --------
    >>> import lake
    >>> with lake.open("my-lake") as opened:
    ...     changes_summary(opened, 2).rows.select(["name", "archive", "new_points"]).to_pylist()
    [{'name': 'A', 'archive': 'ztf', 'new_points': 6}, {'name': 'B', 'archive': 'ztf', 'new_points': 6}]
    """
    if not sigma > 0:
        raise ConfigurationError(f"sigma cannot be {sigma:g}", hint="give standard deviations, more than 0: 5")
    check_sample(lake, sample)
    with lake.snapshot() as cursor:
        ask = partial(lake.run, within=cursor)
        first, first_time = _snapshot_of(since, ask)
        ((last, last_time),) = _snapshots(ask, "ORDER BY snapshot_id DESC LIMIT 1")
        # Nothing comes after the last snapshot; DuckLake would call that an error.
        changed = f"changes({first}, {last})" if first < last else f"changes({last - 1}, {last}) WHERE false"
        query = _SUMMARY.format(changed=changed, first=first, sigma=float(sigma), fewest=_FEWEST)
        rows = ask(query, {"sample": sample})
    return Changes(first, last, first_time, last_time, rows, float(sigma))


def _snapshot_of(since: int | str | datetime, ask: Callable[..., pa.Table]) -> tuple[int, datetime]:
    """Return the snapshot that was the lake's state at a number or a time."""
    ((oldest, oldest_time),) = _snapshots(ask, "ORDER BY snapshot_id LIMIT 1")
    kept = f"lightlake compact removed the older ones; the oldest is {oldest} of {oldest_time:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(since, int) or (isinstance(since, str) and since.strip().isdecimal()):
        number = int(since)
        found = _snapshots(ask, "WHERE snapshot_id = ?", [max(number, 1)])  # at 0 there is no table yet
        if not found and number < oldest:
            raise ConfigurationError(f"snapshot {number} is gone: {kept}", hint=f"ask for --since {oldest}")
        if not found:
            ((newest, _),) = _snapshots(ask, "ORDER BY snapshot_id DESC LIMIT 1")
            raise ConfigurationError(f"there is no snapshot {number}", hint=f"the newest is {newest}")
        return found[0]
    try:
        time = datetime.fromisoformat(since.strip()) if isinstance(since, str) else since
    except ValueError as error:
        raise ConfigurationError(
            f"{since!r} is neither a snapshot nor a date", hint="such as 42, 2026-11-28 or 2026-11-28T12:00"
        ) from error
    time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    found = _snapshots(ask, "WHERE snapshot_time <= ? ORDER BY snapshot_id DESC LIMIT 1", [time])
    if not found and oldest > 0:
        raise ConfigurationError(
            f"no snapshot of {time:%Y-%m-%dT%H:%M:%SZ} is left: {kept}", hint=f"ask for --since {oldest}"
        )
    return (
        found[0]
        if found and found[0][0] > 0
        else _snapshots(ask, "WHERE snapshot_id > 0 ORDER BY snapshot_id LIMIT 1")[0]
    )


def _snapshots(ask: Callable[..., pa.Table], which: str, values: list[Any] | None = None) -> list[tuple[int, datetime]]:
    rows = ask(f"SELECT snapshot_id, snapshot_time FROM ducklake_snapshots('lake') {which}", values)
    return [(row["snapshot_id"], row["snapshot_time"].astimezone(UTC)) for row in rows.to_pylist()]
