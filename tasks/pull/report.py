"""What a run did with a source: counts, what was lost and why, in a line that a person reads; and its log's lines."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from lake.commit.commit import Receipt
from lake.text import one_line
from tasks.services.request_counters import Log

# At most so many losses are kept with what was lost; the ledger has them all.
MOST_LOSSES = 20

# At most this many reasons are told in full; the ledger has them all.
REASONS_TOLD = 5


@dataclass(frozen=True)
class Loss:
    """A granule that a run lost; `name` is what a person calls it, if that is not the granule's id."""

    granule: str
    status: str
    n_targets: int
    retries: int
    reason: str
    name: str | None = None


def is_lost(receipt: Receipt) -> bool:
    """Say whether a granule came to nothing."""
    return receipt.status in ("rejected", "failed")


def with_losses(losses: tuple[Loss, ...], receipt: Receipt, name: str | None = None) -> tuple[Loss, ...]:
    """Return losses with another one, if a granule was lost and there is room for it."""
    n_lost = receipt.n_targets if is_lost(receipt) else receipt.n_unanswered
    if not (is_lost(receipt) or n_lost) or len(losses) >= MOST_LOSSES:
        return losses
    loss = Loss(receipt.granule, receipt.status, n_lost, receipt.retries, receipt.reason or "", name)
    return (*losses, loss)


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
    granules_partly: int = 0
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
    backed_off: int = 0
    ahead: int = 0

    def plus(self, asked: int, told: Sequence[tuple[str | None, Receipt]]) -> Self:
        """Return the report with a batch of so many targets added: its granules, with what became of them."""
        report = self
        for _, receipt in told:
            lost = is_lost(receipt)
            count = f"granules_{receipt.status}"
            failed = receipt.n_targets if lost else receipt.n_unanswered
            # The targets of a split granule are counted with its halves.
            answered = 0 if receipt.status == "split" else receipt.n_targets
            reasons = report.reasons
            if failed and receipt.reason and receipt.reason not in reasons:
                reasons = (*reasons, receipt.reason)
            report = replace(
                report,
                asked=report.asked + answered,
                found=report.found + receipt.n_found,
                failed=report.failed + failed,
                granules_partly=report.granules_partly + bool(receipt.n_unanswered),
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
        if self.backed_off:
            told += f". {self.backed_off} targets that failed lately were left alone for now"
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
            return f"{self.archive}: nothing to do{'' if self.backed_off else ', every target has its answer'}"
        done = f"{self.asked - self.failed} of {self.asked} targets answered, {self.rows} rows"
        if not self.failed:
            return f"{self.archive}: {done}"
        lost = self.granules_lost
        told = "; ".join(self.reasons[:REASONS_TOLD])
        more = len(self.reasons) - REASONS_TOLD
        return (
            f"{self.archive}: {self.failed} of {self.asked} targets FAILED in {lost} of {self.granules} granules: "
            f"{told}{f'; and {more} other reasons' if more > 0 else ''}. {done}"
        )

    @property
    def granules_lost(self) -> int:
        """Return how many granules came to nothing, or left targets without an answer."""
        return self.granules_failed + self.granules_rejected + self.granules_partly

    @property
    def empty(self) -> int:
        """Return how many targets the archive has nothing of."""
        return self.asked - self.found - self.failed

    def row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        return {
            "archive": self.archive,
            "release": self.release,
            "asked": self.asked,
            "found": self.found,
            "empty": self.empty,
            "failed": self.failed,
            "rows": self.rows,
            "sources": self.sources,
            **_spent(self),
            "granules": self.granules,
            "granules lost": self.granules_lost,
        }


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

    def plus(self, asked: int, told: Sequence[tuple[str | None, Receipt]]) -> Self:
        """Return the report with a batch of so many pieces added: those that came to something here, with what."""
        report = replace(self, elsewhere=self.elsewhere + asked - len(told))
        for name, receipt in told:
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
    def lost(self) -> bool:
        """Say whether something came to nothing."""
        return bool(self.rejected or self.failed or self.unreadable)

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
            "survey": self.survey,
            "found": self.found,
            "done before": self.done_before,
            "done": self.done,
            "rejected": self.rejected,
            "failed": self.failed,
            "rejected before": self.rejected_before,
            "not read": len(self.unreadable),
            "elsewhere": self.elsewhere,
            "sources": self.sources,
            "rows": self.rows,
            **_spent(self),
        }


class Report(Protocol):
    """Either of them."""

    def plus(self, asked: int, told: Sequence[tuple[str | None, Receipt]]) -> Self:
        """Return the report with a batch added."""


def _sum(total: int | None, one: int | None) -> int | None:
    return total if one is None else (total or 0) + one


def _most(most: float | None, one: float | None) -> float | None:
    return one if most is None else max(most, one or 0.0)


def _larger(largest: Receipt | None, one: Receipt) -> Receipt | None:
    return one if one.n_rows > (largest.n_rows if largest else 0) else largest


def _spent(report: PullReport | SurveyReport) -> dict[str, Any]:
    return {
        "seconds": round(report.seconds, 1),
        "MB of Parquet": round(report.bytes / 1e6, 3),
        "tried again": report.retries,
        "requests": report.requests,
        "peak memory, MB": None if report.peak_rss_mb is None else round(report.peak_rss_mb),
    }


def log_receipt(log: Log, receipt: Receipt, name: str | None = None, *, level: int = logging.INFO) -> None:
    """Leave a line in the log on a granule: a warning with the reason, if it is lost."""
    what = receipt.granule if name is None else f"{one_line(name)} ({receipt.granule})"
    parts = [receipt.status]
    if receipt.n_targets:
        parts.append(f"{receipt.n_targets} targets, {receipt.n_found} found")
    parts += [f"{receipt.n_sources} sources", f"{receipt.n_rows} rows", f"{receipt.seconds:.1f} s"]
    if receipt.retries:
        parts.append(f"tried again {receipt.retries} times")
    if receipt.reason:
        parts.append(receipt.reason)
    log.log(logging.WARNING if is_lost(receipt) else level, "%s: %s", what, ", ".join(parts))
