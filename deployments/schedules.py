"""Schedules, in UTC: live archives by the age of their answers, maintenance by night."""

from __future__ import annotations

from collections.abc import Iterable

from prefect.schedules import Cron, Schedule

from tasks.sources.base import Archive

MAINTENANCE = "30 1 * * *"
VERIFY = "30 2 * * 0"
REFRESH = "30 3 * * *"
NEW_EXPOSURES = "30 6 * * *"

# Hour of the first pull, and minutes between pulls.
_FIRST_HOUR, _MINUTES_APART = 4, 5


def maintenance() -> tuple[Schedule, ...]:
    """Return the schedule of compaction, every night."""
    return (Cron(MAINTENANCE, timezone="UTC", slug="nightly"),)


def verification() -> tuple[Schedule, ...]:
    """Return the schedule of verify, every week."""
    return (Cron(VERIFY, timezone="UTC", slug="weekly"),)


def refreshing(*, follow: bool) -> tuple[Schedule, ...]:
    """Return the schedule for targets that failed at frozen archives, or whose event was lost.

    Parameters
    ----------
    follow
        Pull new releases, too.
    """
    return (Cron(REFRESH, timezone="UTC", slug="nightly", parameters={"back_off": True, "newest": follow}),)


def new_exposures() -> tuple[Schedule, ...]:
    """Return the schedule for exposures that became public, of a survey that is asked for them by itself."""
    return (Cron(NEW_EXPOSURES, timezone="UTC", slug="nightly", parameters={"new": True}),)


def pulls(archives: Iterable[Archive]) -> tuple[Schedule, ...]:
    """Return a schedule for each live archive; frozen ones are pulled for new targets."""
    live = sorted((archive for archive in archives if archive.cadence == "live"), key=lambda archive: archive.name)
    return tuple(
        Cron(
            cron(archive.max_age_days, index),
            timezone="UTC",
            slug=archive.name,
            parameters={"archive": archive.name, "back_off": True},
        )
        for index, archive in enumerate(live)
    )


def cron(max_age_days: float | None, index: int) -> str:
    """Return when to pull an archive: at least four times before an answer is too old, and once a week.

    A pull asks only for what is due, so a pull too many costs the archive nothing.

    Parameters
    ----------
    max_age_days
        Age at which an answer is too old.
    index
        Number of the archive among the live ones, so that no two pulls begin together.
    """
    minute, hour = index * _MINUTES_APART % 60, (_FIRST_HOUR + index * _MINUTES_APART // 60) % 24
    interval_days = (max_age_days or 4.0) / 4
    if interval_days >= 7:
        return f"{minute} {hour} * * {(1 + index) % 7}"
    if interval_days >= 1:
        return f"{minute} {hour} * * *"
    if interval_days >= 0.25:
        return f"{minute} {hour % 6}-23/6 * * *"
    return f"{minute} * * * *"
