"""Pull RXTE's observations of targets: find them in xtemaster, extract and commit each, match them, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

import pyarrow as pa
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from pydantic import Field

from flows.forms import Shown
from flows.living import living
from flows.report import Watch, state_of
from flows.runners import task_runner, windowed
from lake.errors import ArchiveError, GranuleRejected
from lake.ledger import canonical, pending, write_plan
from lake.names import check_sample
from lake.query import Lake
from lake.redact import safe_line
from lake.settings import Settings, load_settings
from tasks.download import patiently
from tasks.effort import effort, several
from tasks.pull import lake_at
from tasks.pull.limits import of_archive, turn
from tasks.pull.report import SurveyReport, is_lost, told_of
from tasks.surveys import rxte_pull, rxte_targets
from tasks.surveys.rxte import NAME
from tasks.surveys.rxte_cut import GTI
from tasks.surveys.rxte_files import Mirror
from tasks.surveys.rxte_find import RADIUS_DEG, Found, find, read_csv, select
from tasks.surveys.rxte_pull import extract_observations

# Targets that xtemaster is asked for at once; observations that are committed together; and those that one task
# carries, if there are enough for all workers: some seconds of work, where files are near.
_TARGETS = 2_000
_TOGETHER = {"products": 250, "standard2": 50, "heasoft": 4}
_OBSERVATIONS = {"products": 1_000, "standard2": 50, "heasoft": 4}

Piece = TypeVar("Piece")


def run_name() -> str:
    """Return the name of a run, for the UI."""
    given = flow_run.parameters
    who = given.get("target") or given.get("sample") or "all targets"
    return safe_line(f"rxte {who}{' (failed ones)' if given.get('retry_failed') else ''}")


@flow(name="rxte", flow_run_name=run_name, validate_parameters=True)
def pull_rxte(
    target: Annotated[
        str | None, Shown("A target of the lake by name, or a new one as 'RA DEC' in degrees", empty="all targets")
    ] = None,
    sample: Annotated[str | None, Shown("Only targets of this sample", empty="all targets")] = None,
    lake: Annotated[str | None, Shown("The lake: a folder or s3://BUCKET/PREFIX", empty="LIGHTLAKE_URL")] = None,
    radius_deg: Annotated[float, Field(gt=0, le=5), Shown("Observations within this of a target")] = RADIUS_DEG,
    method: Annotated[
        Literal["products", "heasoft", "standard2"],
        Shown(
            "products: the archive's standard light curves. heasoft: chosen channels by pcaextlc2. "
            "standard2: chosen channels without HEASoft, background in them, dead time not corrected"
        ),
    ] = "products",
    bands: Annotated[
        list[str] | None,
        Shown("Of the standard products, such as pca_a, beside those that the lake has", empty="all that there are"),
    ] = None,
    chmin: Annotated[int | None, Field(ge=0, le=255), Shown("First absolute channel")] = None,
    chmax: Annotated[int | None, Field(ge=0, le=255), Shown("Last absolute channel")] = None,
    emin_kev: Annotated[float | None, Field(ge=0), Shown("Instead of channels: lowest energy, keV")] = None,
    emax_kev: Annotated[float | None, Field(gt=0), Shown("Highest energy, keV")] = None,
    pcus: Annotated[list[int] | None, Shown("Detectors 0 to 4", empty="all")] = None,
    layers: Annotated[list[int] | None, Shown("Anode layers 1 to 3", empty="all")] = None,
    bin_s: Annotated[float | None, Shown("Length of a bin, seconds: a multiple of 16", empty="16")] = None,
    gti: Annotated[
        str | None, Shown(f"Good times, as maketime takes them. The usual: {GTI}", empty="the usual")
    ] = None,
    limit: Annotated[int | None, Field(gt=0), Shown("At most so many observations of a target", empty="all")] = None,
    slews: Annotated[bool, Shown("Slews to and from targets, too")] = False,
    xtemaster: Annotated[str | None, Shown("Rows of table xtemaster as a CSV file", empty="HEASARC's service")] = None,
    again: Annotated[bool, Shown("Look for observations of targets that were asked for before, too")] = False,
    retry_failed: Annotated[bool, Shown("Exactly observations that were rejected or failed before")] = False,
    runner: Annotated[
        Literal["threads", "processes", "dask"] | None,
        Shown("What runs the tasks", empty="LIGHTLAKE_RUNNER"),
    ] = None,
) -> State[SurveyReport]:
    """Bring every RXTE observation of targets into the lake, each a granule of its own.

    The run ends Failed if an observation was rejected or failed; its message says which and why. All the rest is in
    the lake all the same. A run that was killed has lost nothing but the observations in hand, and the next goes on.
    While another run does the same for the same lake, this one waits.
    """
    log = get_run_logger()
    started = time.monotonic()
    settings = load_settings(runner=runner)
    url = str(lake or settings.url)
    extraction = rxte_pull.extraction_of(
        method, bands, chmin=chmin, chmax=chmax, emin_kev=emin_kev, emax_kev=emax_kev, pcus=pcus, layers=layers,
        bin_s=bin_s, gti=gti,
    )  # fmt: skip
    Mirror(settings).close()  # is there such a place? Better now than in every task
    opened = lake_at(url)
    check_sample(opened, sample)
    with (
        living(opened),
        turn(opened, of_archive(NAME), flow_run.name or "of a script", log),
        task_runner(settings) as runs,
    ):
        extraction = rxte_pull.widened(opened, extraction)
        origin = rxte_pull.register(opened, extraction)
        parameters = {**extraction.parameters, "radius_deg": radius_deg, "slews": slews, "limit": limit}
        report = SurveyReport(NAME, "observations", 0)
        seen, planned = set[str](), list[str]()
        chunks = _targets(opened, target, sample, origin, parameters, again=again or retry_failed)
        for targets in chunks:
            asked_at = datetime.now(UTC)
            with effort("xtemaster", log) as asking:
                try:
                    found, endpoint = _found(targets, settings, radius_deg, xtemaster)
                except (ArchiveError, GranuleRejected) as error:
                    log.error("xtemaster could not be asked: %s", error)
                    report = report.plus(1, [(f"{targets.num_rows} targets", rxte_targets.give_up(
                        url, targets, extraction, parameters, error
                    ))])  # fmt: skip
                    continue
            found = (found if slews else found.without_slews()).limited(limit)
            observations = [one for one in found.each() if one.obsid not in seen]
            seen.update(one.obsid for one in observations)
            now = rxte_pull.waiting(opened, observations, extraction, retry_failed=retry_failed)
            report = replace(
                report,
                found=report.found + len(observations),
                done_before=report.done_before + now.done,
                rejected_before=report.rejected_before + (0 if retry_failed else now.rejected),
            )
            log.info("%d observations of %d targets, %d to do", len(observations), targets.num_rows, len(now.waiting))
            planned += [extraction.granule(one.obsid) for one in observations]
            write_plan(opened.storage, origin.name, planned)
            more = {"url": url, "extraction": extraction, "together": _TOGETHER[method]}
            work = ((part, {"observations": part, **more}) for part in _parts(now.waiting, method, settings.workers))
            with Watch() as watch:
                watch.begin(NAME, len(now.waiting), "observations")
                for part, outcome in windowed(runs, extract_observations, work, 2 * settings.workers):
                    if isinstance(outcome, BaseException):
                        log.error("a batch was lost: %s", outcome)
                        outcome = rxte_pull.lose(url, part, extraction, outcome)
                    for name, receipt in outcome:
                        told_of(log, receipt, name, level=logging.DEBUG)  # hundreds in a few seconds
                    done = [receipt for _, receipt in outcome if not is_lost(receipt)]
                    told = several([name for name, _ in outcome]) or "no observations"
                    log.info("%s: %d done, %d rows", told, len(done), sum(receipt.n_rows for receipt in done))
                    report = report.plus(len(part), outcome)
                    watch.advance(NAME, len(part))
            rxte_targets.answer(url, targets, found, extraction, parameters, asked_at, endpoint, asking.facts())
    return state_of(replace(report, seconds=time.monotonic() - started), log, opened, origin)


def _parts(waiting: Sequence[Piece], method: str, workers: int) -> list[Sequence[Piece]]:
    """Return what each task is to carry."""
    size = max(_TOGETHER[method], min(_OBSERVATIONS[method], len(waiting) // workers))
    return [waiting[start : start + size] for start in range(0, len(waiting), size)]


def _targets(
    lake: Lake, target: str | None, sample: str | None, origin: Any, parameters: dict[str, Any], *, again: bool
) -> Iterator[pa.Table]:
    """Yield the targets to be asked for: the one that is named, or all that have no answer yet."""
    if target is not None:
        yield rxte_targets.target_of(lake, target)
        return
    age = timedelta(0) if again else None
    yield from pending(
        lake.catalog, origin.name, origin.release, canonical(parameters), None if sample is None else [sample], age,
        batch_size=_TARGETS,
    )  # fmt: skip


def _found(targets: pa.Table, settings: Settings, radius_deg: float, xtemaster: str | None) -> tuple[Found, str]:
    if xtemaster is not None:
        return select(targets, read_csv(xtemaster), radius_deg=radius_deg), xtemaster
    found = patiently(lambda: find(targets, settings, radius_deg=radius_deg), settings)
    return found, settings.endpoints.get("heasarc", "xtemaster at HEASARC")
