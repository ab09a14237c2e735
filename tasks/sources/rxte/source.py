"""Pull RXTE's observations of targets: find them in xtemaster, have them staged and committed, then match them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from lake.commit.ledger import canonical, pending, write_plan
from lake.errors import ArchiveError, ConfigurationError, GranuleRejected
from lake.names import check_sample
from lake.store.storage import remove_folder
from tasks.pull.driver import Driver, Run
from tasks.pull.limits import connection_slots, exclusive_pull, of_archive
from tasks.pull.report import SurveyReport
from tasks.services.request_counters import count_requests
from tasks.services.retry import with_retries
from tasks.sources.base import Origin
from tasks.sources.heasarc import SERVICE
from tasks.sources.rxte import observations as rxte_pull
from tasks.sources.rxte import targets as rxte_targets
from tasks.sources.rxte.files import Mirror
from tasks.sources.rxte.find import RADIUS_DEG, Found, check_radius, find, read_csv, select
from tasks.sources.rxte.mission import NAME
from tasks.sources.rxte.observations import Extraction, Observations, Part, extraction_of

# Targets that xtemaster is asked for at once.
TARGETS = 2_000


@dataclass(frozen=True)
class Asked:
    """What a run asks of RXTE.

    Parameters
    ----------
    extraction
        What is taken of each observation.
    target, sample
        One target, by name or place; or those of a sample. None: all that have no answer yet.
    radius_deg
        Observations within this of a target, degrees.
    limit
        At most so many of each target; None: all.
    slews
        Slews, too.
    xtemaster
        A CSV file of its rows; None: HEASARC is asked.
    again
        Targets that were answered before, too.
    retry_failed
        Exactly observations that were rejected or failed before.

    Raises
    ------
    ConfigurationError
        If it makes no sense.
    """

    extraction: Extraction
    target: str | None = None
    sample: str | None = None
    radius_deg: float = RADIUS_DEG
    limit: int | None = None
    slews: bool = False
    xtemaster: str | None = None
    again: bool = False
    retry_failed: bool = False

    def __post_init__(self) -> None:
        check_radius(self.radius_deg)
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(f"limit cannot be {self.limit}", hint="1 or more; default: all observations")

    @property
    def parameters(self) -> dict[str, Any]:
        """Return what makes it another question, of a target."""
        more = {"radius_deg": self.radius_deg, "slews": self.slews, "limit": self.limit}
        return {**self.extraction.parameters, **more}


def asked_of(**given: Any) -> Asked:
    """Return what parameters of the command and of the flow ask for: those of Asked, and of `extraction_of`."""
    mine = {field.name for field in fields(Asked)}
    extraction = extraction_of(**{name: value for name, value in given.items() if name not in mine})
    return Asked(extraction, **{name: value for name, value in given.items() if name in mine})


def pull(run: Run, asked: Asked) -> tuple[Origin, SurveyReport]:
    """Bring every RXTE observation of targets into the lake, each a granule of its own; then their matches.

    Raises
    ------
    ArchiveError
        If the archive's place is not there at all.
    LightlakeError
        If another run has the turn, or the places at HEASARC, for too long.
    """
    lake, log, settings = run.lake, run.log, run.settings
    started = time.monotonic()
    check_sample(lake, asked.sample)
    with Mirror(settings) as mirror:
        far, work = not mirror.is_local, Observations(mirror.url)
    with exclusive_pull(lake, of_archive(NAME), run.name, log, run.check):
        extraction = rxte_pull.with_requested_bands(lake, asked.extraction)
        asked = replace(asked, extraction=extraction)
        origin = run.here(rxte_pull.register, lake, extraction)
        driver = Driver(run, work, SurveyReport(NAME, "observations", 0))
        folder = lake.storage.staging / run.id / NAME
        seen, planned, unanswered = set[str](), list[str](), 0
        at_heasarc = connection_slots(
            settings, SERVICE, min(settings.workers, settings.archive_concurrency), log, run.check
        )
        with at_heasarc if far else nullcontext(settings.workers) as width:
            for targets in _targets(run, asked, origin):
                asked_at = datetime.now(UTC)
                with count_requests("xtemaster", log) as asking:
                    try:
                        if unanswered >= work.give_up_after:
                            raise ArchiveError(
                                f"not asked: {work.give_up_after} questions before had no answer",
                                archive=NAME,
                                endpoint=SERVICE,
                                hint="see why, and pull again",
                            )
                        found, endpoint = _found(run, targets, asked, has_place=far)
                        unanswered = 0
                    except (ArchiveError, GranuleRejected) as error:
                        unanswered += 1
                        log.error("xtemaster could not be asked: %s", error)
                        receipt = run.here(rxte_targets.give_up, run.url, targets, extraction, asked.parameters, error)
                        driver.report = driver.report.plus(1, [(f"{targets.num_rows} targets", receipt)])
                        continue
                observations = [one for one in found.each() if one.obsid not in seen]
                seen.update(one.obsid for one in observations)
                now = rxte_pull.waiting(lake, observations, extraction, retry_failed=asked.retry_failed)
                rejected = 0 if asked.retry_failed else now.rejected
                driver.report = replace(
                    driver.report,
                    found=driver.report.found + len(observations),
                    done_before=driver.report.done_before + now.done,
                    rejected_before=driver.report.rejected_before + rejected,
                )
                log.info(
                    "%d observations of %d targets, %d to do", len(observations), targets.num_rows, len(now.waiting)
                )
                planned += [extraction.granule(one.obsid) for one in observations]
                write_plan(lake.storage, origin.name, planned)
                run.here(run.watch.begin, NAME, len(now.waiting), "observations")
                driver.work_off(Part.each(run.url, folder, now.waiting, extraction), width)
                run.here(
                    rxte_targets.answer,
                    run.url,
                    targets,
                    found,
                    extraction,
                    asked.parameters,
                    asked_at,
                    endpoint,
                    asking.facts(),
                )
        remove_folder(folder)
    return origin, replace(driver.report, seconds=time.monotonic() - started)


def _targets(run: Run, asked: Asked, origin: Origin) -> Iterator[pa.Table]:
    """Yield the targets to be asked for: the one that is named, or all that have no answer yet."""
    if asked.target is not None:
        yield run.here(rxte_targets.target_of, run.lake, asked.target)
        return
    yield from pending(
        run.lake.catalog,
        origin.name,
        origin.release,
        canonical(asked.parameters),
        None if asked.sample is None else [asked.sample],
        timedelta(0) if asked.again or asked.retry_failed else None,
        batch_size=TARGETS,
    )


def _found(run: Run, targets: pa.Table, asked: Asked, *, has_place: bool) -> tuple[Found, str]:
    """Return what xtemaster has near targets, and who said so."""
    settings, radius_deg = run.settings, asked.radius_deg
    if asked.xtemaster is not None:
        found, endpoint = select(targets, read_csv(asked.xtemaster), radius_deg=radius_deg), asked.xtemaster
    else:
        endpoint = settings.endpoints.get(SERVICE, "xtemaster at HEASARC")
        with nullcontext() if has_place else connection_slots(settings, SERVICE, 1, run.log, run.check):
            found = with_retries(lambda: find(targets, settings, radius_deg=radius_deg), settings)
    return (found if asked.slews else found.without_slews()).limited(asked.limit), endpoint
