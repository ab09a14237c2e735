"""Publish a run in the UI: progress while it works, tables and a summary when it is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from types import TracebackType
from typing import Any

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.artifacts import (
    answers_picture,
    credits_of,
    key_of,
    log_errors,
    losses_table,
    names_of,
    publish_light_curves,
    run_picture,
    where_to_look,
)
from flows.markdown import cells, code, row, text
from lake.commit.ledger import count_failed
from lake.query import Lake
from lake.text import counted
from tasks.progress import Bars
from tasks.pull.report import PullReport
from tasks.services.request_counters import Log
from tasks.sources.base import Origin
from tasks.sources.registry import find


def publish(report: PullReport, lake: Lake, origin: Origin, log: Log) -> None:
    """Leave a table of the run, what is missing and why, and a plot of what came."""
    description = f"{text(report.message)}\n\n{credits_of(origin)}"
    kind = key_of("pull", report.archive) if report.what == "targets" else report.archive.replace("_", "-")
    with log_errors(log, "the table of the run"):
        create_table_artifact([cells(report.row())], key=kind, description=description)
    with log_errors(log, "the list of what is missing"):
        page = missing(report, lake, origin)
        create_markdown_artifact(page, key=key_of("missing", report.archive), description=missing_line(report, lake))
    if report.largest is not None:
        with log_errors(log, "the plot of what came"):
            publish_light_curves(lake, origin, report.largest.granule)


def missing(report: PullReport, lake: Lake, origin: Origin) -> str:
    """Return what the run did not bring in and why, in Markdown, and what is missing since earlier runs."""
    what, archive = report.what, origin.name
    lines = [f"# What is missing of {archive} {text(report.release)}", ""]
    with closing(lake.catalog.cursor()) as cursor:
        without_answer = count_failed(cursor, archive, report.release)
    if report.unreadable:
        lines += ["These could not be read:", "", *(f"- {text(one)}" for one in report.unreadable), ""]
    if report.failed or report.rejected:
        lines += [
            f"{report.failed} of {counted(report.asked, what[:-1])} failed, "
            f"{counted(report.rejected, 'was', 'were')} rejected, in "
            f"{report.granules_lost} of {counted(report.granules, 'granule')}.",
            "",
        ]
        names = names_of(lake, archive, report.release, report.losses)
        lines += losses_table(report.losses, report.granules_lost, names)
    elif not report.unreadable:
        lines.append(
            f"Nothing is missing: {counted(report.asked, f'{what[:-1]} was', f'{what} were')} asked "
            f"for, and all have their answer."
        )
    command = f"lightlake pull {report.archive}" if what == "targets" else f"lightlake {report.archive} ..."
    advice = []
    if what == "targets" and without_answer > report.failed:
        had = counted(without_answer - report.failed, "target has", "targets have")
        lines += ["", f"{had} had no answer since runs before this one."]
    if report.rejected_before:
        lines += [
            "",
            f"{counted(report.rejected_before, f'{what[:-1]} was', f'{what} were')} rejected in runs before this one.",
        ]
    if report.failed or (what == "targets" and without_answer):
        advice.append(f"`{command}` asks again for what failed; scheduled runs do so by themselves.")
    if report.rejected or report.rejected_before:
        advice.append(f"`{command} --retry-failed` tries what was rejected again.")
    if advice:
        lines += where_to_look(archive, " ".join(advice))
    return "\n".join(lines)


def missing_line(report: PullReport, lake: Lake) -> str:
    """Return in one line whether anything is missing, of this run and of those before it."""
    with closing(lake.catalog.cursor()) as cursor:
        without_answer = count_failed(cursor, report.archive, report.release)
    waiting = max(report.failed, without_answer if report.what == "targets" else 0)
    counts = ((waiting, "failed"), (report.rejected + report.rejected_before, "rejected"))
    parts = [f"{n} {report.what} {how}" for n, how in counts if n]
    if report.unreadable:
        parts.append(f"{len(report.unreadable)} could not be read")
    return f"Missing: {', '.join(parts)}" if parts else f"Nothing is missing: all {report.what} have their answer"


def publish_summary(lake: Lake, reports: Sequence[PullReport], lost: Sequence[str], log: Log) -> None:
    """Leave the summary of a refresh as a Markdown artifact."""
    lines = ["# Refresh", ""]
    if rows := [report.row() for report in reports]:
        lines += [row(*rows[0]), f"|{'---|' * len(rows[0])}", *(row(*cells(one).values()) for one in rows)]
    kinds = ("found", "empty", "failed", "rejected")
    answers = [(report.archive, kind, getattr(report, kind)) for report in reports for kind in kinds if report.asked]
    if answers:
        with log_errors(log, "the plot of the answers"):
            lines += ["", answers_picture(answers)]
    lines += ["", "## Missing", "", *(f"- {text(line)}" for line in lost)] if lost else ["", "Nothing is missing."]
    for report in reports:
        if report.losses:
            with log_errors(log, "the list of what is missing"):
                origin = find(report.archive, report.release)
                lines += ["", missing(report, lake, origin).replace("# What", "### What", 1)]
    with log_errors(log, "the summary"):
        about = f"Missing at {len(lost)} of {counted(len(reports), 'archive')}" if lost else "Nothing is missing"
        create_markdown_artifact("\n".join(lines), key="refresh", description=about)


def publish_metrics(lake: Lake, run_id: str) -> None:
    """Leave the plots of what a run used as a Markdown artifact."""
    lines = ["# What the run used", "", run_picture(lake, run_id), "", f"`lightlake status --run {code(run_id)[1:-1]}`"]
    about = "Processor, memory, bytes and requests, by archive and over time"
    create_markdown_artifact("\n".join(lines), key="run-metrics", description=about)


class Watch(Bars):
    """Bars, and a progress artifact for each source, for the UI."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log
        self._artifacts: dict[str, _Progress] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Bring the artifacts up to date, and leave the bars as they are."""
        for one in self._artifacts.values():
            with log_errors(self._log, "the last of the progress"):
                one.update()
        super().__exit__(kind, error, where)

    def begin(self, source: str, total: int, what: str = "targets") -> None:
        """Show that a source begins."""
        super().begin(source, total, what)
        if (before := self._artifacts.pop(source, None)) is not None:
            with log_errors(self._log, "the last of the progress"):
                before.update()
        with log_errors(self._log, "the artifact of the progress"):
            self._artifacts[source] = _Progress(source, total, what)

    def advance(self, source: str, done: int) -> None:
        """Show that some are done; the artifact follows at most once a second."""
        super().advance(source, done)
        if (one := self._artifacts.get(source)) is None:
            return
        one.done += done
        if time.monotonic() - one.shown > 1:
            with log_errors(self._log, "the progress"):
                one.update()


class _Progress:
    """A progress artifact."""

    def __init__(self, source: str, total: int, what: str) -> None:
        self.total, self.done, self.shown = max(total, 1), 0, 0.0
        self.artifact: Any = create_progress_artifact(
            0.0, key=key_of("progress", source), description=f"{source}: {total} {what}"
        )

    def update(self) -> None:
        """Bring the artifact up to date."""
        self.shown = time.monotonic()
        update_progress_artifact(self.artifact, progress=min(100.0, 100.0 * self.done / self.total))
