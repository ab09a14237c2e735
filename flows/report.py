"""What a person reads of a run: progress while it works, tables and a summary when it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
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

from lake.commit import Receipt

# At most this many reasons are told in full; the ledger has them all.
REASONS_TOLD = 5


@dataclass(frozen=True)
class PullReport:
    """What a pull of one archive did. What a person asks first comes first: the UI shows some eight columns."""

    archive: str
    release: str
    asked: int = 0
    failed: int = 0
    sources: int = 0
    rows: int = 0
    seconds: float = 0.0
    reasons: tuple[str, ...] = field(default=())
    granules: int = 0
    granules_done: int = 0
    granules_empty: int = 0
    granules_split: int = 0
    granules_rejected: int = 0
    granules_failed: int = 0
    bytes: int = 0
    newer: tuple[str, ...] = field(default=())
    shown: bool = True

    def plus(self, receipts: Sequence[Receipt]) -> PullReport:
        """Return the report with some commits added."""
        report = self
        for receipt in receipts:
            lost = receipt.status in ("rejected", "failed")
            count = f"granules_{receipt.status}"
            # The targets of a split granule are counted with its halves.
            asked = 0 if receipt.status == "split" else receipt.n_targets
            reasons = report.reasons
            if lost and receipt.reason and receipt.reason not in reasons:
                reasons = (*reasons, receipt.reason)
            report = replace(
                report,
                asked=report.asked + asked,
                failed=report.failed + (receipt.n_targets if lost else 0),
                granules=report.granules + 1,
                sources=report.sources + receipt.n_sources,
                rows=report.rows + receipt.n_rows,
                bytes=report.bytes + receipt.bytes,
                reasons=reasons,
                **{count: getattr(report, count) + 1},
            )
        return report

    @property
    def message(self) -> str:
        """Return the run in one line: what was lost comes first, releases that may be pulled last."""
        told = self._outcome
        if not self.shown:
            told += f". {self.release} is beside the release before it until it has an answer for all of its targets"
        if self.newer:
            told += f". There is a newer release: lightlake pull {self.archive} --release {self.newer[-1]}"
        return told

    @property
    def _outcome(self) -> str:
        if not self.asked:
            return f"{self.archive}: nothing to do, every target has its answer"
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

    def publish(self) -> None:
        """Leave the report as a table artifact of the run."""
        row = {
            **asdict(self), "seconds": round(self.seconds, 1), "reasons": "; ".join(self.reasons),
            "newer": ", ".join(self.newer),
        }  # fmt: skip
        create_table_artifact([row], key=f"pull-{self.archive.replace('_', '-')}", description=self.message)


@dataclass(frozen=True)
class SurveyReport:
    """What a run did with the pieces of a survey that it found, be they tiles or observations.

    Parameters
    ----------
    survey, what
        Name of the survey, and what its pieces are called.
    found
        How many there are.
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
    reasons: tuple[str, ...] = ()

    def plus(self, asked: int, receipts: Sequence[tuple[str, Receipt]]) -> SurveyReport:
        """Return the report with a batch added."""
        report = replace(self, elsewhere=self.elsewhere + asked - len(receipts))
        for name, receipt in receipts:
            lost = receipt.status in ("rejected", "failed")
            count = receipt.status if lost else "done"
            report = replace(
                report,
                sources=report.sources + receipt.n_sources,
                rows=report.rows + receipt.n_rows,
                bytes=report.bytes + receipt.bytes,
                reasons=(*report.reasons, f"{name}: {receipt.reason}") if lost else report.reasons,
                **{count: getattr(report, count) + 1},
            )
        return report

    @property
    def message(self) -> str:
        """Return the run in one line: what was lost comes first."""
        told = []
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

    def publish(self) -> None:
        """Leave the report as a table artifact of the run."""
        row = {
            **asdict(self), "seconds": round(self.seconds, 1), "reasons": "; ".join(self.reasons[:REASONS_TOLD]),
        }  # fmt: skip
        create_table_artifact([row], key=self.survey.replace("_", "-"), description=self.message)

    def state(self, log: Any) -> State[SurveyReport]:
        """Publish the report, tell the log, and return the run's final state: Failed, if anything was lost."""
        self.publish()
        if self.rejected or self.failed:
            log.error(self.message)
            return Failed(message=self.message, data=self)
        log.info(self.message)
        return Completed(message=self.message, data=self)


def publish_summary(reports: Sequence[PullReport], lost: Sequence[str]) -> None:
    """Leave the summary of a refresh as a Markdown artifact."""
    lines = [
        "# Refresh",
        "",
        "| archive | release | asked | failed | granules | sources | rows | MB | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.archive} | {r.release} | {r.asked} | {r.failed} | {r.granules} | {r.sources} | {r.rows} "
        f"| {r.bytes / 1e6:.1f} | {r.seconds:.1f} |"
        for r in reports
    ]
    lines += ["", "## Missing", "", *(f"- {line}" for line in lost)] if lost else ["", "Nothing is missing."]
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
            TextColumn("{task.description}"),
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
