"""Pull one archive for a sample: plan, fetch and stage, commit, report."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.tasks import exponential_backoff

from flows.artifacts import told_of
from flows.forms import Shown, archives
from flows.living import living
from flows.places import places
from flows.report import PullReport, Watch
from flows.runners import task_runner, windowed
from flows.turns import of_archive, turn
from lake.commit import Receipt
from lake.errors import ArchiveError
from lake.names import check_sample
from lake.query import Lake
from lake.redact import safe_line
from lake.settings import load_settings
from lake.staging import Manifest
from lake.storage import remove_folder
from tasks.archives import find, releases
from tasks.archives.base import Archive
from tasks.effort import several
from tasks.plan import count_ahead
from tasks.pull import (
    Batch,
    commit_batch,
    commit_staged,
    count_to_ask,
    fetch_and_stage,
    lake_at,
    lose_batch,
    plan_batches,
    release_in,
)
from tasks.register import register_archive

# After this many batches lost in a row the archive counts as unreachable: the rest is noted as failed,
# unasked, rather than waited for.
GIVE_UP_AFTER = 8


def run_name() -> str:
    """Return the name of a run, for the UI: what it pulls, and for which sample."""
    given = flow_run.parameters
    return safe_line(f"pull {given.get('archive')} for {given.get('sample') or 'all targets'}")


@flow(name="pull", flow_run_name=run_name, validate_parameters=True)
def pull_archive(
    archive: Annotated[str, Shown("The archive to ask", choices=archives)],
    sample: Annotated[str | None, Shown("Only targets of this sample", empty="all targets")] = None,
    lake: Annotated[str | None, Shown("The lake: a folder or s3://BUCKET/PREFIX", empty="LIGHTLAKE_URL")] = None,
    parameters: Annotated[
        dict[str, Any] | None, Shown('Parameters of the archive other than its defaults, such as {"radius_arcsec": 2}')
    ] = None,
    again: Annotated[bool, Shown("Ask for what was answered before, too")] = False,
    release: Annotated[
        str | None, Shown("Data release, such as DR24, or newest", empty="the one that the lake shows")
    ] = None,
    back_off: Annotated[
        bool, Shown("Leave alone what failed lately: an hour, and twice as long after each further failure")
    ] = False,
) -> State[PullReport]:
    """Ask an archive for every target that it has not answered yet, and commit what it gives.

    The run ends Failed if anything asked for was not got; its message says what. All the rest is in the
    lake all the same, and the next run asks for what is missing. While another run pulls the same archive into
    the same lake, this one waits.
    """
    settings = load_settings()
    url = str(lake or settings.url)
    opened = lake_at(url)
    check_sample(opened, sample)
    with living(opened), turn(opened, of_archive(find(archive).name)):
        source = find(archive, release_in(opened, find(archive)))
        if release is not None:
            source = find(archive, releases.newest(source, settings) if release == releases.NEWEST else release)
        given = source.with_defaults(parameters)
        return _pull(opened, url, source, given, sample, again=again, back_off=back_off)


def _pull(
    opened: Lake,
    url: str,
    source: Archive,
    asked_for: dict[str, Any],
    sample: str | None,
    *,
    again: bool,
    back_off: bool,
) -> State[PullReport]:
    log = get_run_logger()
    started = time.monotonic()
    settings = load_settings()
    register_archive(opened, source)
    samples = None if sample is None else [sample]
    total = count_to_ask(opened, source, asked_for, samples, again=again, back_off=back_off)
    everyone = count_to_ask(opened, source, asked_for, samples, again=again) if back_off else total
    ahead = count_ahead(opened, source, again=again)
    report = PullReport(source.name, source.release, newer=_newer(source), resting=everyone - total, ahead=ahead)
    if total == 0:
        report = replace(report, shown=register_archive(opened, source))
        report.publish(opened, source, log)
        return Completed(message=report.message, data=report)
    log.info("%s %s: %d targets to ask", source.name, source.release, total)
    # No more tasks at once than may ask the archive. On a cluster that others started, only what is handed in counts.
    settings = settings.model_copy(update={"workers": min(settings.workers, settings.archive_concurrency)})
    width = settings.workers if settings.runner == "dask" and settings.dask_address else 2 * settings.workers
    folder = opened.storage.staging / str(flow_run.id or uuid.uuid4())
    fetch = fetch_and_stage.with_options(
        retries=settings.retries,
        retry_delay_seconds=exponential_backoff(settings.retry_delay_s),
        retry_jitter_factor=0.5,
        # Prefect cannot interrupt a thread; there the archives' own time-outs hold.
        timeout_seconds=None if settings.runner == "threads" else settings.task_timeout_s,
        tags=[source.name],
    )
    lost_in_a_row = 0
    with (
        Watch(source.name, total) as watch,
        places(opened, source, settings.workers),
        task_runner(settings) as runs,
    ):

        def settle(batch: Batch, receipts: list[Receipt]) -> None:
            nonlocal report
            report = report.plus(receipts)
            for receipt in receipts:
                told_of(log, receipt)
            watch.advance(batch.n_targets)

        def to_ask() -> Iterator[tuple[Batch, dict[str, Any]]]:
            for batch in plan_batches(opened, source, asked_for, samples, folder, again=again, back_off=back_off):
                if lost_in_a_row < GIVE_UP_AFTER:
                    yield batch, {"batch": batch, "retries": settings.retries}
                    continue
                reason = ArchiveError(
                    f"not asked: {GIVE_UP_AFTER} batches before were lost", archive=source.name,
                    endpoint=source.reach(settings), hint="see why, and pull again",
                )  # fmt: skip
                settle(batch, commit_batch(url, lose_batch(batch, reason)))

        # A window, so that neither futures nor plans pile up with the size of the sample.
        for batch, staged in windowed(runs, fetch, to_ask(), width):
            receipts = _receipts(url, batch, staged)
            settle(batch, receipts)
            lost = all(receipt.status == "failed" for receipt in receipts)
            lost_in_a_row = lost_in_a_row + 1 if lost else 0
    remove_folder(folder)
    report = replace(report, seconds=time.monotonic() - started, shown=register_archive(opened, source))
    report.publish(opened, source, log)
    if report.failed:
        log.error(report.message)
        return Failed(message=report.message, data=report)
    log.info(report.message)
    return Completed(message=report.message, data=report)


def _receipts(url: str, batch: Batch, staged: list[Manifest] | BaseException) -> list[Receipt]:
    """Return what a batch came to; one that was lost on the way is noted as failed in the ledger.

    The lake takes one commit at a time, so it is made here: as a task of its own in another process it would wait
    there for its turn, and cost more: see benchmarks.orchestration.
    """
    if isinstance(staged, BaseException):
        return commit_batch(url, lose_batch(batch, staged))
    commit = commit_staged.with_options(task_run_name=f"commit {several(batch.granules)}")
    state: State[list[Receipt]] = commit(url, staged, return_state=True)
    outcome: Any = state.result(raise_on_failure=False)
    if state.is_completed():
        receipts: list[Receipt] = outcome
        return receipts
    if not isinstance(outcome, BaseException):
        outcome = RuntimeError(state.message or state.name)
    return commit_batch(url, lose_batch(batch, outcome))


def _newer(source: Archive) -> tuple[str, ...]:
    """Return the releases after this one; a pull does not fail for want of their list, it says so."""
    try:
        return tuple(releases.newer(source, load_settings()))
    except ArchiveError as error:
        get_run_logger().warning("newer releases of %s are not known: %s", source.name, error)
        return ()
