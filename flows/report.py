"""What a person reads of a run: progress while it works, tables and a summary when it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flows.artifacts import (
    Loss,
    answers_picture,
    credits_of,
    harmless,
    is_lost,
    key_of,
    losses_table,
    names_of,
    publish_light_curves,
    whereabouts,
    with_losses,
)
from flows.markdown import cells, row, text
from lake.commit import Receipt
from lake.ledger import count_failed
from lake.query import Lake
from tasks.archives.base import Origin
from tasks.effort import Log

# At most this many reasons are told in full; the ledger has them all.
REASONS_TOLD = 5


@dataclass(frozen=True)
class PullReport:
    """What a pull of one archive did.

    `resting` are targets that failed lately and were left alone for now, `ahead` answers that were dated in the future.
    """

    archive: str
    release: str
    asked: int = 0
    found: int = 0
    failed: int = 0
    granules: int = 0
    granules_done: int = 0
    granules_empty: int = 0
    granules_split: int = 0
    granules_rejected: int = 0
    granules_failed: int = 0
    sources: int = 0
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    retries: int = 0
    requests: int | None = None
    peak_rss_mb: float | None = None
    largest: Receipt | None = None
    losses: tuple[Loss, ...] = ()
    reasons: tuple[str, ...] = field(default=())
    newer: tuple[str, ...] = field(default=())
    shown: bool = True
    resting: int = 0
    ahead: int = 0

    def plus(self, receipts: Sequence[Receipt]) -> PullReport:
        """Return the report with some commits added."""
        report = self
        for receipt in receipts:
            lost = is_lost(receipt)
            count = f"granules_{receipt.status}"
            # The targets of a split granule are counted with its halves.
            asked = 0 if receipt.status == "split" else receipt.n_targets
            reasons = report.reasons
            if lost and receipt.reason and receipt.reason not in reasons:
                reasons = (*reasons, receipt.reason)
            report = replace(
                report,
                asked=report.asked + asked,
                found=report.found + receipt.n_found,
                failed=report.failed + (receipt.n_targets if lost else 0),
                granules=report.granules + 1,
                sources=report.sources + receipt.n_sources,
                rows=report.rows + receipt.n_rows,
                bytes=report.bytes + receipt.bytes,
                retries=report.retries + receipt.retries,
                requests=_sum(report.requests, receipt.requests),
                peak_rss_mb=_most(report.peak_rss_mb, receipt.peak_rss_mb),
                largest=_larger(report.largest, receipt),
                losses=with_losses(report.losses, receipt),
                reasons=reasons,
                **{count: getattr(report, count) + 1},
            )
        return report

    @property
    def message(self) -> str:
        """Return the run in one line: what was lost comes first, releases that may be pulled last."""
        told = self._outcome
        if self.resting:
            told += f". {self.resting} targets that failed lately were left alone for now"
        if self.ahead:
            told += (
                f". {self.ahead} answers were dated in the future, and counted as too old: compare the clocks of the "
                "machines that pull (lightlake doctor)"
            )
        if not self.shown:
            told += f". {self.release} is beside the release before it until it has an answer for all of its targets"
        if self.newer:
            told += f". There is a newer release: lightlake pull {self.archive} --release {self.newer[-1]}"
        return told

    @property
    def _outcome(self) -> str:
        if not self.asked:
            return f"{self.archive}: nothing to do{'' if self.resting else ', every target has its answer'}"
        done = f"{self.asked - self.failed} of {self.asked} targets answered, {self.rows} rows"
        if not self.failed:
            return f"{self.archive}: {done}"
        lost = self.granules_failed + self.granules_rejected
        told = "; ".join(self.reasons[:REASONS_TOLD])
        more = len(self.reasons) - REASONS_TOLD
        return (
            f"{self.archive}: {self.failed} of {self.asked} targets FAILED in {lost} of {self.granules} granules: "
            f"{told}{f'; and {more} other reasons' if more > 0 else ''}. {done}"
        )

    @property
    def granules_lost(self) -> int:
        """Return how many granules came to nothing."""
        return self.granules_failed + self.granules_rejected

    @property
    def empty(self) -> int:
        """Return how many targets the archive has nothing of."""
        return self.asked - self.found - self.failed

    def row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        return {
            "archive": self.archive, "release": self.release, "asked": self.asked, "found": self.found,
            "empty": self.empty, "failed": self.failed, "rows": self.rows, "sources": self.sources,
            **_spent(self), "granules": self.granules, "granules lost": self.granules_lost,
        }  # fmt: skip

    def publish(self, lake: Lake, origin: Origin, log: Log) -> None:
        """Leave a table of the run, what is missing and why, and a plot of what came."""
        description = f"{text(self.message)}\n\n{credits_of(origin)}"
        create_table_artifact([cells(self.row())], key=key_of("pull", self.archive), description=description)
        with harmless(log, "the list of what is missing"):
            create_markdown_artifact(self.missing(lake), key=key_of("missing", self.archive))
        if self.largest is not None:
            with harmless(log, "the plot of what came"):
                publish_light_curves(lake, origin, self.largest.granule)

    def missing(self, lake: Lake) -> str:
        """Return what the run lost and why, in Markdown, and how many have no answer since runs before."""
        lines = [f"# What is missing of {self.archive} {text(self.release)}", ""]
        with closing(lake.catalog.cursor()) as cursor:
            unanswered = count_failed(cursor, self.archive, self.release)
        if self.failed:
            lines += [
                f"{self.failed} of {self.asked} targets, in {self.granules_lost} of {self.granules} granules.",
                "",
            ]
            names = names_of(lake, self.archive, self.release, self.losses)
            lines += losses_table(self.losses, self.granules_lost, names)
        else:
            lines.append(f"Nothing is missing: {self.asked} targets were asked for, and all have their answer.")
        if unanswered > self.failed:
            lines += ["", f"{unanswered - self.failed} targets have had no answer since runs before this one."]
        if unanswered or self.failed:
            again = f"`lightlake pull {self.archive}` asks for them again; scheduled runs do so by themselves."
            lines += whereabouts(self.archive, again)
        return "\n".join(lines)


@dataclass(frozen=True)
class SurveyReport:
    """What a run did with the pieces of a survey that it found, be they tiles or observations.

    Parameters
    ----------
    survey, what
        Name of the survey, and what its pieces are called.
    found
        How many there are.
    unreadable
        Folders and files that could not be looked at, and why: of what is in there nothing is known.
    """

    survey: str
    what: str
    found: int
    done_before: int = 0
    rejected_before: int = 0
    done: int = 0
    rejected: int = 0
    failed: int = 0
    elsewhere: int = 0
    sources: int = 0
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    retries: int = 0
    requests: int | None = None
    peak_rss_mb: float | None = None
    largest: Receipt | None = None
    losses: tuple[Loss, ...] = ()
    reasons: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    def plus(self, asked: int, receipts: Sequence[tuple[str, Receipt]]) -> SurveyReport:
        """Return the report with a batch added."""
        report = replace(self, elsewhere=self.elsewhere + asked - len(receipts))
        for name, receipt in receipts:
            lost = is_lost(receipt)
            count = receipt.status if lost else "done"
            report = replace(
                report,
                sources=report.sources + receipt.n_sources,
                rows=report.rows + receipt.n_rows,
                bytes=report.bytes + receipt.bytes,
                retries=report.retries + receipt.retries,
                requests=_sum(report.requests, receipt.requests),
                peak_rss_mb=_most(report.peak_rss_mb, receipt.peak_rss_mb),
                largest=_larger(report.largest, receipt),
                losses=with_losses(report.losses, receipt, name),
                reasons=(*report.reasons, f"{name}: {receipt.reason}") if lost else report.reasons,
                **{count: getattr(report, count) + 1},
            )
        return report

    @property
    def message(self) -> str:
        """Return the run in one line: what was lost comes first."""
        told = []
        if self.unreadable:
            more = len(self.unreadable) - REASONS_TOLD
            others = f"; and {more} more" if more > 0 else ""
            told.append(f"{len(self.unreadable)} NOT READ: {'; '.join(self.unreadable[:REASONS_TOLD])}{others}")
        if self.rejected or self.failed:
            reasons = "; ".join(self.reasons[:REASONS_TOLD])
            more = len(self.reasons) - REASONS_TOLD
            others = f"; and {more} more, see the ledger" if more > 0 else ""
            told.append(f"{self.rejected} {self.what} REJECTED and {self.failed} FAILED: {reasons}{others}")
        if self.done:
            told.append(f"{self.done} {self.what} done, {self.sources} sources, {self.rows} rows")
        if self.elsewhere:
            told.append(f"{self.elsewhere} {self.what} were taken by other processes")
        if not told:
            told.append("nothing to do")
        told.append(f"{self.done_before + self.done} of {self.found} {self.what} are in the lake")
        if self.rejected_before:
            told.append(f"{self.rejected_before} were rejected before: --retry-failed tries them again")
        return f"{self.survey}: {'. '.join(told)}"

    def row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        return {
            "survey": self.survey, "found": self.found, "done before": self.done_before, "done": self.done,
            "rejected": self.rejected, "failed": self.failed, "rejected before": self.rejected_before,
            "not read": len(self.unreadable), "elsewhere": self.elsewhere, "sources": self.sources,
            "rows": self.rows, **_spent(self),
        }  # fmt: skip

    def publish(self, lake: Lake, origin: Origin, log: Log) -> None:
        """Leave a table of the run, what is missing and why, and a plot of what came."""
        description = f"{text(self.message)}\n\n{credits_of(origin)}"
        create_table_artifact([cells(self.row())], key=self.survey.replace("_", "-"), description=description)
        with harmless(log, "the list of what is missing"):
            names = names_of(lake, origin.name, origin.release, self.losses)
            create_markdown_artifact(self.missing(origin, names), key=key_of("missing", self.survey))
        if self.largest is not None:
            with harmless(log, "the plot of what came"):
                publish_light_curves(lake, origin, self.largest.granule)

    def missing(self, origin: Origin, names: Mapping[str, Sequence[str]]) -> str:
        """Return what the run lost and why, in Markdown; `names` are of targets of granules that were lost."""
        lost = self.rejected + self.failed
        lines = [f"# What is missing of {self.survey} {text(origin.release)}", ""]
        if self.unreadable:
            lines += ["What is in these could not be looked at:", "", *(f"- {one}" for one in self.unreadable), ""]
        if lost:
            lines += [f"{self.rejected} {self.what} were rejected, {self.failed} failed.", ""]
            lines += losses_table(self.losses, lost, names)
        else:
            lines.append(f"Nothing is missing of the {self.what} that this run took.")
        if self.rejected_before:
            lines += ["", f"{self.rejected_before} {self.what} were rejected in runs before this one."]
        if lost or self.rejected_before:
            lines += whereabouts(origin.name, f"`lightlake {self.survey} ... --retry-failed` tries them again.")
        return "\n".join(lines)

    def state(self, log: Log, lake: Lake, origin: Origin) -> State[SurveyReport]:
        """Publish the report, tell the log, and return the run's final state: Failed, if anything was lost."""
        self.publish(lake, origin, log)
        if self.rejected or self.failed or self.unreadable:
            log.error(self.message)
            return Failed(message=self.message, data=self)
        log.info(self.message)
        return Completed(message=self.message, data=self)


def _sum(total: int | None, one: int | None) -> int | None:
    return total if one is None else (total or 0) + one


def _most(most: float | None, one: float | None) -> float | None:
    return one if most is None else max(most, one or 0.0)


def _larger(largest: Receipt | None, one: Receipt) -> Receipt | None:
    return one if one.n_rows > (largest.n_rows if largest else 0) else largest


def _spent(report: PullReport | SurveyReport) -> dict[str, Any]:
    return {
        "seconds": round(report.seconds, 1), "MB of Parquet": round(report.bytes / 1e6, 3),
        "tried again": report.retries, "requests": report.requests,
        "peak memory, MB": None if report.peak_rss_mb is None else round(report.peak_rss_mb),
    }  # fmt: skip


def publish_summary(lake: Lake, reports: Sequence[PullReport], lost: Sequence[str], log: Log) -> None:
    """Leave the summary of a refresh as a Markdown artifact."""
    lines = ["# Refresh", ""]
    if rows := [report.row() for report in reports]:
        lines += [row(*rows[0]), f"|{'---|' * len(rows[0])}", *(row(*cells(one).values()) for one in rows)]
    answers = [(r.archive, what, getattr(r, what)) for r in reports for what in ("found", "empty", "failed") if r.asked]
    if answers:
        with harmless(log, "the plot of the answers"):
            lines += ["", answers_picture(answers)]
    lines += ["", "## Missing", "", *(f"- {text(line)}" for line in lost)] if lost else ["", "Nothing is missing."]
    for report in reports:
        if report.losses:
            with harmless(log, "the list of what is missing"):
                lines += ["", report.missing(lake).replace("# What", "### What", 1)]
    create_markdown_artifact("\n".join(lines), key="refresh")


class Watch:
    """Progress of a pull: an artifact for the UI, and a bar where a person watches the terminal."""

    def __init__(self, archive: str, total: int, *, what: str = "targets") -> None:
        self.total = max(total, 1)
        self.done = 0
        self.artifact: Any = create_progress_artifact(
            0.0, key=f"progress-{archive.replace('_', '-')}", description=f"{archive}: {total} {what}"
        )
        self.shown = 0.0
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self.line = self.bar.add_task(archive, total=total)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._tell()
        self.bar.stop()

    def advance(self, done: int) -> None:
        """Note that some are through; the artifact follows at most once a second."""
        self.done += done
        self.bar.update(self.line, completed=self.done)
        if time.monotonic() - self.shown > 1:
            self._tell()

    def _tell(self) -> None:
        self.shown = time.monotonic()
        update_progress_artifact(self.artifact, progress=min(100.0, 100.0 * self.done / self.total))
