"""Report what a run did with a source: counts, losses with their reasons, one line to read, and the log's lines."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lake.commit.commit import Receipt
from lake.commit.ledger import Select
from lake.text import counted, one_line
from tasks.services.request_counters import Log
from tasks.sources.protocol import Receipts

# A report names at most so many losses; the ledger has all.
MOST_LOSSES = 20

_SHARED = ("asked", "failed", "rejected", "known", "done_before", "rejected_before", "elsewhere")

# A message has at most so many reasons in full; the ledger has all.
REASONS_TOLD = 5


@dataclass(frozen=True)
class Loss:
    """A granule that a run could not bring in; `name` is what a person calls it, if that is not its id."""

    granule: str
    status: str
    n_targets: int
    retries: int
    reason: str
    name: str | None = None


def is_lost(receipt: Receipt) -> bool:
    """Say whether a granule was rejected or failed."""
    return receipt.status in ("rejected", "failed")


@dataclass(frozen=True)
class Share:
    """Numbers of a report that are of one kind, such as composites among exposures: see `PullReport`."""

    what: str
    asked: int
    failed: int
    rejected: int
    known: int
    done_before: int
    rejected_before: int
    elsewhere: int

    @property
    def done(self) -> int:
        """Return how many have a sound answer from this run."""
        return self.asked - self.failed - self.rejected


@dataclass(frozen=True)
class PullReport:
    """What a run did with one source. Targets, tiles or observations are counted, as `what` says.

    Parameters
    ----------
    select
        What the run asked for, as in a `Request`.
    asked, found, failed, rejected
        Asked in this run; with data; without an answer; with an answer that was rejected.
    known, done_before, rejected_before
        What the source has, if that is known; in the lake before this run; skipped because it was rejected before.
    elsewhere
        Taken by other processes meanwhile.
    backed_off
        Skipped because it failed recently.
    ahead
        Answers dated in the future.
    newer
        Later releases that the source has.
    shown
        The lake shows this release.
    unreadable
        Folders and files that could not be read, and why.
    granules_partly
        Granules with targets whose answer was rejected, beside others.
    others
        What of the numbers is of another kind than `what`.
    """

    archive: str
    release: str
    what: str = "targets"
    select: Select = "pending"
    asked: int = 0
    found: int = 0
    failed: int = 0
    rejected: int = 0
    known: int = 0
    done_before: int = 0
    rejected_before: int = 0
    elsewhere: int = 0
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
    reasons: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()
    shown: bool = True
    backed_off: int = 0
    ahead: int = 0
    others: tuple[Share, ...] = ()

    def with_share(self, what: str, before: PullReport) -> PullReport:
        """Note that all that was counted since an earlier report is of another kind."""
        numbers = {name: getattr(self, name) - getattr(before, name) for name in _SHARED}
        return replace(self, others=(*self.others, Share(what, **numbers)))

    @property
    def shares(self) -> list[Share]:
        """Return the numbers of each kind, its own first."""
        own = {name: getattr(self, name) - sum(getattr(one, name) for one in self.others) for name in _SHARED}
        return [Share(self.what, **own), *self.others]

    def counting(self, counts: Mapping[str, Any]) -> PullReport:
        """Add numbers to fields of the report, and append tuples."""
        return replace(self, **{name: getattr(self, name) + value for name, value in counts.items()})

    def plus(self, size: int, receipts: Receipts) -> PullReport:
        """Add a batch of so many targets, tiles or observations, with the receipts of its granules."""
        report = self
        if not self._by_target:
            report = replace(report, elsewhere=report.elsewhere + max(size - len(receipts), 0))
        for name, receipt in receipts:
            report = report._with(name, receipt)
        return report

    def _with(self, name: str | None, receipt: Receipt) -> PullReport:
        n = receipt.n_targets if self._by_target else 1
        unanswered = receipt.n_unanswered if self._by_target else 0
        failed = n if receipt.status == "failed" else 0
        rejected = n if receipt.status == "rejected" else unanswered
        count = f"granules_{receipt.status}"
        losses, reasons = self.losses, self.reasons
        if failed or rejected:
            reason = receipt.reason or ""
            if len(losses) < MOST_LOSSES:
                n_lost = receipt.n_targets if is_lost(receipt) else unanswered
                losses = (*losses, Loss(receipt.granule, receipt.status, n_lost, receipt.retries, reason, name))
            if name is not None:
                reasons = (*reasons, f"{name}: {reason}")
            elif reason and reason not in reasons:
                reasons = (*reasons, reason)
        largest = self.largest
        return replace(
            self,
            # The targets of a split granule are counted with its halves.
            asked=self.asked + (0 if receipt.status == "split" else n),
            found=self.found + (receipt.n_found if self._by_target else receipt.status == "done"),
            failed=self.failed + failed,
            rejected=self.rejected + rejected,
            granules=self.granules + 1,
            granules_partly=self.granules_partly + bool(unanswered),
            sources=self.sources + receipt.n_sources,
            rows=self.rows + receipt.n_rows,
            bytes=self.bytes + receipt.bytes,
            retries=self.retries + receipt.retries,
            requests=self.requests if receipt.requests is None else (self.requests or 0) + receipt.requests,
            peak_rss_mb=max((mb for mb in (self.peak_rss_mb, receipt.peak_rss_mb) if mb is not None), default=None),
            largest=receipt if receipt.n_rows > (largest.n_rows if largest else 0) else largest,
            losses=losses,
            reasons=reasons,
            **{count: getattr(self, count) + 1},
        )

    @property
    def _by_target(self) -> bool:
        return self.what == "targets"

    @property
    def done(self) -> int:
        """Return how many have a sound answer from this run, empty ones among them."""
        return self.asked - self.failed - self.rejected

    @property
    def empty(self) -> int:
        """Return of how many the source has nothing."""
        return self.done - self.found

    @property
    def granules_lost(self) -> int:
        """Return how many granules were rejected or failed, or have targets without an answer."""
        return self.granules_failed + self.granules_rejected + self.granules_partly

    @property
    def lost(self) -> bool:
        """Say whether anything was rejected, failed or could not be read: such a run ends Failed."""
        return bool(self.failed or self.rejected or self.unreadable)

    @property
    def message(self) -> str:
        """Return the run in one line: what is missing comes first, releases that may be pulled last."""
        parts = []
        if self.unreadable:
            parts.append(f"{len(self.unreadable)} NOT READ: {_few(self.unreadable)}")
        missing = [
            f"{n} of {counted(one.asked, one.what[:-1])} {name.upper()}"
            for name in ("failed", "rejected")
            for one in self.shares
            if (n := getattr(one, name))
        ]
        if missing:
            lost, reasons = f"{self.granules_lost} of {counted(self.granules, 'granule')}", _few(self.reasons)
            parts.append(f"{' and '.join(missing)} in {lost}: {reasons}")
        if self._by_target and self.asked:
            parts.append(f"{self.done} of {counted(self.asked, 'target')} answered, {counted(self.rows, 'row')}")
        elif self.done:
            done = " and ".join(counted(one.done, one.what[:-1]) for one in self.shares if one.done)
            parts.append(f"{done} done, {counted(self.sources, 'source')}, {counted(self.rows, 'row')}")
        if self.elsewhere:
            parts.append(f"{self._each('elsewhere')} taken by other processes")
        if not parts:
            parts.append(f"nothing to do{self._why_nothing}")
        if not self._by_target:
            here = [
                f"{one.done_before + one.done} of {counted(one.known, one.what[:-1])}"
                for one in self.shares
                if one.known or one.what == self.what
            ]
            parts.append(f"{' and '.join(here)} are in the lake")
        if self.backed_off:
            some = counted(self.backed_off, self.what[:-1])
            parts.append(f"{some} that failed recently {_was(self.backed_off)} skipped for now")
        if self.rejected_before:
            parts.append(f"{self._each('rejected_before')} rejected before: --retry-failed tries them again")
        if self.ahead:
            parts.append(
                f"{counted(self.ahead, 'answer was', 'answers were')} dated in the future, and counted as too old: "
                "compare the clocks of the machines that pull (lightlake doctor)"
            )
        if self._by_target and not self.shown:
            parts.append(f"{self.release} is beside the release before it until it has an answer for all its targets")
        if self.newer:
            parts.append(f"There is a newer release: lightlake pull {self.archive} --release {self.newer[-1]}")
        return f"{self.archive}: {'. '.join(parts)}"

    def _each(self, name: str) -> str:
        """Return a number of each kind, without zeros, and the verb that goes with them."""
        found = [(n, one.what) for one in self.shares if (n := getattr(one, name))]
        told = " and ".join(counted(n, what[:-1]) for n, what in found)
        return f"{told} {_was(sum(n for n, _ in found))}"

    @property
    def _why_nothing(self) -> str:
        if self.select == "failed":
            return f", no {self.what} failed or were rejected before"
        skipped = not self._by_target or self.backed_off or self.rejected_before
        return "" if skipped else ", every target has its answer"

    def row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        row = {
            "archive": self.archive,
            "release": self.release,
            "asked": self.asked,
            "found": self.found,
            "empty": self.empty,
            "failed": self.failed,
            "rejected": self.rejected,
            "rejected before": self.rejected_before,
            "rows": self.rows,
            "sources": self.sources,
            "seconds": round(self.seconds, 1),
            "MB of Parquet": round(self.bytes / 1e6, 3),
            "tried again": self.retries,
            "requests": self.requests,
            "peak memory, MB": None if self.peak_rss_mb is None else round(self.peak_rss_mb),
            "granules": self.granules,
            "granules lost": self.granules_lost,
        }
        if self._by_target:
            return row
        more = {"known": self.known, "done before": self.done_before, "elsewhere": self.elsewhere}
        return {**row, **more, "not read": len(self.unreadable)}


def _few(reasons: tuple[str, ...]) -> str:
    more = len(reasons) - REASONS_TOLD
    return "; ".join(reasons[:REASONS_TOLD]) + (f"; and {more} other reasons, see the ledger" if more > 0 else "")


def log_receipt(log: Log, receipt: Receipt, name: str | None = None, *, level: int = logging.INFO) -> None:
    """Write a line on a granule to the log: a warning with the reason, if it was rejected or failed."""
    what = receipt.granule if name is None else f"{one_line(name)} ({receipt.granule})"
    parts = [receipt.status]
    if receipt.n_targets:
        parts.append(f"{counted(receipt.n_targets, 'target')}, {receipt.n_found} found")
    parts += [
        f"{counted(receipt.n_sources, 'source')}",
        f"{counted(receipt.n_rows, 'row')}",
        f"{receipt.seconds:.1f} s",
    ]
    if receipt.retries:
        parts.append(f"tried again {counted(receipt.retries, 'time')}")
    if receipt.reason:
        parts.append(receipt.reason)
    log.log(logging.WARNING if is_lost(receipt) else level, "%s: %s", what, ", ".join(parts))


def _was(n: int) -> str:
    return "was" if n == 1 else "were"
