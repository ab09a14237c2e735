"""Pull one archive for a sample: plan, fetch and stage, commit, report."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.base import ServerType
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.tasks import exponential_backoff

from flows.forms import Shown, archives
from flows.report import PullReport, Watch
from flows.runners import task_runner, windowed
from flows.turns import turn
from lake.commit import Receipt
from lake.errors import ArchiveError
from lake.query import Lake
from lake.settings import load_settings
from lake.staging import Manifest
from lake.storage import remove_folder
from tasks.archives import find, releases
from tasks.archives.base import Archive
from tasks.pull import (
    Batch,
    commit_batch,
    commit_staged,
    count_to_ask,
    fetch_and_stage,
    lake_at,
    lose_batch,
    plan_batches,
    register_archive,
    release_in,
)

# After this many batches lost in a row the archive counts as unreachable: the rest is noted as failed,
# unasked, rather than waited for.
GIVE_UP_AFTER = 8


def run_name() -> str:
    """Return the name of a run, for the UI: what it pulls, and for which sample."""
    given = flow_run.parameters
    return f"pull {given.get('archive')} for {given.get('sample') or 'all targets'}"


@flow(name="pull", flow_run_name=run_name, validate_parameters=True)
def pull_archive(
    archive: Annotated[str, Shown("Archive, as `lightlake archives` names it", choices=archives)],
    sample: Annotated[str | None, Shown("Only targets of this sample; empty: all")] = None,
    lake: Annotated[str | None, Shown("The lake; empty: LIGHTLAKE_URL")] = None,
    parameters: Annotated[dict[str, Any] | None, Shown("Parameters of the archive, other than its defaults")] = None,
    again: Annotated[bool, Shown("Ask for what was answered before, too")] = False,
    release: Annotated[str | None, Shown("Data release, such as DR24; empty: the one that the lake shows")] = None,
    back_off: Annotated[
        bool, Shown("Leave alone what failed lately: an hour, and twice as long after each further failure")
    ] = False,
) -> State[PullReport]:
    """Ask an archive for every target that it has not answered yet, and commit what it gives.

    The run ends Failed if anything asked for was not got; its message says what. All the rest is in the
    lake all the same, and the next run asks for what is missing. While another run pulls the same archive into
    the same lake, this one waits.
    """
    url = str(lake or load_settings().url)
    opened = lake_at(url)
    with turn(opened, find(archive).name):
        source = find(archive, release or release_in(opened, find(archive)))
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
    samples = [sample] if sample else None
    total = count_to_ask(opened, source, asked_for, samples, again=again, back_off=back_off)
    report = PullReport(source.name, source.release, newer=_newer(source))
    if total == 0:
        report = replace(report, shown=register_archive(opened, source))
        report.publish()
        return Completed(message=report.message, data=report)
    log.info("%s %s: %d targets to ask", source.name, source.release, total)
    _limit(source.name, settings.archive_concurrency)
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
    # The run has its places at the archive from beginning to end: taking one for each task would cost two seconds
    # whenever Prefect's server, on SQLite, is busy with another's. The shortest lease: after it, those of a run that
    # was killed are free again.
    with (
        Watch(source.name, total) as watch,
        concurrency(f"lightlake-{source.name}", occupy=settings.workers, lease_duration=60),
        task_runner(settings) as runs,
    ):

        def to_ask() -> Iterator[tuple[Batch, dict[str, Any]]]:
            nonlocal report
            for batch in plan_batches(opened, source, asked_for, samples, folder, again=again, back_off=back_off):
                if lost_in_a_row < GIVE_UP_AFTER:
                    yield batch, {"batch": batch, "retries": settings.retries}
                    continue
                reason = ArchiveError(
                    f"not asked: {GIVE_UP_AFTER} batches before were lost", archive=source.name,
                    endpoint=source.reach(settings), hint="see why, and pull again",
                )  # fmt: skip
                report = report.plus(commit_batch(url, lose_batch(batch, reason)))
                watch.advance(batch.n_targets)

        # A window, so that neither futures nor plans pile up with the size of the sample.
        for batch, staged in windowed(runs, fetch, to_ask(), width):
            receipts = _receipts(url, batch, staged)
            report = report.plus(receipts)
            lost = all(receipt.status == "failed" for receipt in receipts)
            lost_in_a_row = lost_in_a_row + 1 if lost else 0
            watch.advance(batch.n_targets)
    remove_folder(folder)
    report = replace(report, seconds=time.monotonic() - started, shown=register_archive(opened, source))
    report.publish()
    if report.failed:
        log.error(report.message)
        return Failed(message=report.message, data=report)
    log.info(report.message)
    return Completed(message=report.message, data=report)


def _receipts(url: str, batch: Batch, staged: list[Manifest] | BaseException) -> list[Receipt]:
    """Return what a batch came to; one that was lost on the way is noted as failed in the ledger.

    The lake takes one commit at a time, so it is made here: as a task of its own in another process it would wait
    there for its turn, and cost a fifth of a second more.
    """
    if isinstance(staged, BaseException):
        return commit_batch(url, lose_batch(batch, staged))
    state: State[list[Receipt]] = commit_staged(url, staged, return_state=True)
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


def _limit(archive: str, slots: int) -> None:
    """Make sure that Prefect lets only so many tasks at an archive at once."""
    name = f"lightlake-{archive}"
    with get_client(sync_client=True) as client:
        # A pull that was killed leaves its slots taken. A real server frees them when their lease ends;
        # the one that Prefect starts for a run never does, so there they are freed here.
        free = {"active_slots": 0} if client.server_type is ServerType.EPHEMERAL else {}
        try:
            client.read_global_concurrency_limit_by_name(name)
            client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=slots, **free))
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=slots))
