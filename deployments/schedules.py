"""When what runs: archives that grow by their age, the lake's upkeep by night. All clocks are UTC."""

from __future__ import annotations

from collections.abc import Iterable

from prefect.schedules import Cron, Schedule

from tasks.sources.base import Archive

MAINTENANCE = "30 1 * * *"
VERIFY = "30 2 * * 0"
REFRESH = "30 3 * * *"

# Pulls start after this hour, each so many minutes after the one before.
_FIRST_HOUR, _APART = 4, 5


def maintenance() -> tuple[Schedule, ...]:
    """Return the schedule of compaction: every night."""
    return (Cron(MAINTENANCE, timezone="UTC", slug="nightly"),)


def verification() -> tuple[Schedule, ...]:
    """Return the schedule of verify: every week."""
    return (Cron(VERIFY, timezone="UTC", slug="weekly"),)


def refreshing(*, follow: bool) -> tuple[Schedule, ...]:
    """Return the schedule of what no other asks: targets of frozen archives that failed, or whose event was lost.

    Parameters
    ----------
    follow
        And new releases.
    """
    return (Cron(REFRESH, timezone="UTC", slug="nightly", parameters={"back_off": True, "newest": follow}),)


def pulls(archives: Iterable[Archive]) -> tuple[Schedule, ...]:
    """Return a schedule for each archive that is live; one that is frozen is asked when there are new targets."""
    live = sorted((archive for archive in archives if archive.cadence == "live"), key=lambda archive: archive.name)
    return tuple(
        Cron(
            cron(archive.max_age_days, place),
            timezone="UTC",
            slug=archive.name,
            parameters={"archive": archive.name, "back_off": True},
        )
        for place, archive in enumerate(live)
    )


def cron(max_age_days: float | None, place: int) -> str:
    """Return when an archive is looked at: four times or more before an answer is too old, once a week at least.

    A pull asks only what is due, so that a look too many costs the archive nothing.

    Parameters
    ----------
    max_age_days
        Age at which an answer is asked for again.
    place
        Number of the archive among the live ones: no two begin together.
    """
    minute, hour = place * _APART % 60, (_FIRST_HOUR + place * _APART // 60) % 24
    often = (max_age_days or 4.0) / 4
    if often >= 7:
        return f"{minute} {hour} * * {(1 + place) % 7}"
    if often >= 1:
        return f"{minute} {hour} * * *"
    if often >= 0.25:
        return f"{minute} {hour % 6}-23/6 * * *"
    return f"{minute} * * * *"
