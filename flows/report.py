"""What a person reads of a run: progress while it works, tables and a summary when it is done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.artifacts import (
    answers_picture,
    credits_of,
    key_of,
    log_errors,
    losses_table,
    names_of,
    publish_light_curves,
    where_to_look,
)
from flows.markdown import cells, row, text
from lake.commit.ledger import count_failed
from lake.query import Lake
from tasks.progress import Bars
from tasks.pull.report import PullReport, SurveyReport
from tasks.services.request_counters import Log
from tasks.sources.base import Origin


def publish(report: PullReport, lake: Lake, origin: Origin, log: Log) -> None:
    """Leave a table of the run, what is missing and why, and a plot of what came."""
    description = f"{text(report.message)}\n\n{credits_of(origin)}"
    with log_errors(log, "the table of the run"):
        create_table_artifact([cells(report.row())], key=key_of("pull", report.archive), description=description)
    with log_errors(log, "the list of what is missing"):
        create_markdown_artifact(missing(report, lake), key=key_of("missing", report.archive))
    if report.largest is not None:
        with log_errors(log, "the plot of what came"):
            publish_light_curves(lake, origin, report.largest.granule)


def missing(report: PullReport, lake: Lake) -> str:
    """Return what the run lost and why, in Markdown, and how many have no answer since runs before."""
    lines = [f"# What is missing of {report.archive} {text(report.release)}", ""]
    with closing(lake.catalog.cursor()) as cursor:
        unanswered = count_failed(cursor, report.archive, report.release)
    if report.failed:
        lines += [
            f"{report.failed} of {report.asked} targets, in {report.granules_lost} of {report.granules} granules.",
            "",
        ]
        names = names_of(lake, report.archive, report.release, report.losses)
        lines += losses_table(report.losses, report.granules_lost, names)
    else:
        lines.append(f"Nothing is missing: {report.asked} targets were asked for, and all have their answer.")
    if unanswered > report.failed:
        lines += ["", f"{unanswered - report.failed} targets have had no answer since runs before this one."]
    if unanswered or report.failed:
        again = f"`lightlake pull {report.archive}` asks for them again; scheduled runs do so by themselves."
        lines += where_to_look(report.archive, again)
    return "\n".join(lines)


def publish_survey(report: SurveyReport, lake: Lake, origin: Origin, log: Log) -> None:
    """Leave a table of the run, what is missing and why, and a plot of what came."""
    description = f"{text(report.message)}\n\n{credits_of(origin)}"
    with log_errors(log, "the table of the run"):
        create_table_artifact([cells(report.row())], key=report.survey.replace("_", "-"), description=description)
    with log_errors(log, "the list of what is missing"):
        names = names_of(lake, origin.name, origin.release, report.losses)
        create_markdown_artifact(missing_of_survey(report, origin, names), key=key_of("missing", report.survey))
    if report.largest is not None:
        with log_errors(log, "the plot of what came"):
            publish_light_curves(lake, origin, report.largest.granule)


def missing_of_survey(report: SurveyReport, origin: Origin, names: Mapping[str, Sequence[str]]) -> str:
    """Return what the run lost and why, in Markdown; `names` are of targets of granules that were lost."""
    lost = report.rejected + report.failed
    lines = [f"# What is missing of {report.survey} {text(origin.release)}", ""]
    if report.unreadable:
        lines += ["What is in these could not be looked at:", "", *(f"- {one}" for one in report.unreadable), ""]
    if lost:
        lines += [f"{report.rejected} {report.what} were rejected, {report.failed} failed.", ""]
        lines += losses_table(report.losses, lost, names)
    else:
        lines.append(f"Nothing is missing of the {report.what} that this run took.")
    if report.rejected_before:
        lines += ["", f"{report.rejected_before} {report.what} were rejected in runs before this one."]
    if lost or report.rejected_before:
        lines += where_to_look(origin.name, f"`lightlake {report.survey} ... --retry-failed` tries them again.")
    return "\n".join(lines)


def state_of(report: SurveyReport, log: Log, lake: Lake, origin: Origin) -> State[SurveyReport]:
    """Publish the report, tell the log, and return the run's final state: Failed, if anything was lost."""
    publish_survey(report, lake, origin, log)
    if report.lost:
        log.error(report.message)
        return Failed(message=report.message, data=report)
    log.info(report.message)
    return Completed(message=report.message, data=report)


def publish_summary(lake: Lake, reports: Sequence[PullReport], lost: Sequence[str], log: Log) -> None:
    """Leave the summary of a refresh as a Markdown artifact."""
    lines = ["# Refresh", ""]
    if rows := [report.row() for report in reports]:
        lines += [row(*rows[0]), f"|{'---|' * len(rows[0])}", *(row(*cells(one).values()) for one in rows)]
    answers = [(r.archive, what, getattr(r, what)) for r in reports for what in ("found", "empty", "failed") if r.asked]
    if answers:
        with log_errors(log, "the plot of the answers"):
            lines += ["", answers_picture(answers)]
    lines += ["", "## Missing", "", *(f"- {text(line)}" for line in lost)] if lost else ["", "Nothing is missing."]
    for report in reports:
        if report.losses:
            with log_errors(log, "the list of what is missing"):
                lines += ["", missing(report, lake).replace("# What", "### What", 1)]
    with log_errors(log, "the summary"):
        create_markdown_artifact("\n".join(lines), key="refresh")


class Watch(Bars):
    """The same, and an artifact for each source, for the UI."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log
        self._artifacts: dict[str, _Progress] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Leave both as they are."""
        for one in self._artifacts.values():
            with log_errors(self._log, "the last of the progress"):
                one.tell()
        super().__exit__(kind, error, where)

    def begin(self, source: str, total: int, what: str = "targets") -> None:
        """Note that a source begins."""
        super().begin(source, total, what)
        if (before := self._artifacts.pop(source, None)) is not None:
            with log_errors(self._log, "the last of the progress"):
                before.tell()
        with log_errors(self._log, "the artifact of the progress"):
            self._artifacts[source] = _Progress(source, total, what)

    def advance(self, source: str, done: int) -> None:
        """Note that some are through; the artifact follows at most once a second."""
        super().advance(source, done)
        if (one := self._artifacts.get(source)) is None:
            return
        one.done += done
        if time.monotonic() - one.shown > 1:
            with log_errors(self._log, "the progress"):
                one.tell()


class _Progress:
    """A progress artifact."""

    def __init__(self, source: str, total: int, what: str) -> None:
        self.total, self.done, self.shown = max(total, 1), 0, 0.0
        self.artifact: Any = create_progress_artifact(
            0.0, key=key_of("progress", source), description=f"{source}: {total} {what}"
        )

    def tell(self) -> None:
        """Let the artifact follow."""
        self.shown = time.monotonic()
        update_progress_artifact(self.artifact, progress=min(100.0, 100.0 * self.done / self.total))
