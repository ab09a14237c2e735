"""An archive as a source of the engine: asked for targets, in batches that are staged and committed by the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lake.commit.ledger import canonical, count_rejected, waiting
from lake.commit.staging import Manifest
from lake.errors import ArchiveError
from lake.query import Lake
from lake.settings import Settings
from tasks.archives.batches import Batch, count_to_ask, max_age, plan_batches, release_in
from tasks.archives.estimates import count_ahead
from tasks.archives.work import commit_batch, fetch, mark_batch_failed
from tasks.register import register_archive
from tasks.sources import releases
from tasks.sources.base import Archive, Limits
from tasks.sources.protocol import Context, Receipts, Request, Stage
from tasks.sources.registry import find


class ArchiveSource:
    """An archive at a release, with the parameters of a request."""

    what = "targets"

    def __init__(self, archive: Archive, parameters: Mapping[str, Any], endpoint: str) -> None:
        self.name, self.origin, self.parameters, self.endpoint = archive.name, archive, parameters, endpoint

    @classmethod
    def of(cls, archive: Archive, settings: Settings, parameters: Mapping[str, Any] | None = None) -> ArchiveSource:
        """Return an archive as a source, with parameters other than its defaults."""
        return cls(archive, archive.with_defaults(parameters), archive.endpoint_url(settings))

    @property
    def limits(self) -> Limits:
        """Return the archive's limits."""
        return self.origin.limits

    def prepared(self, lake: Lake, request: Request, settings: Settings) -> ArchiveSource:
        """Return it at the release of a request; another run may have changed the release that the lake shows."""
        archive = find(self.name, release_in(lake, find(self.name)))
        if request.release is not None:
            newest = request.release == releases.NEWEST
            archive = find(self.name, releases.newest(archive, settings) if newest else request.release)
        return self.of(archive, settings, request.options)

    def register(self, lake: Lake) -> bool:
        """Bring the lake's description of the archive up to date; say whether the lake shows this release."""
        return register_archive(lake, self.origin)

    def plan(self, run: Context, request: Request) -> Iterator[Stage]:
        """Yield all targets that are still to be asked, as one stage."""
        lake, archive = run.lake, _expiring(self.origin, request.since)
        asked = (lake, archive, self.parameters, request.samples)
        total = count_to_ask(*asked, select=request.select, back_off=request.back_off)
        everyone = count_to_ask(*asked, select=request.select) if request.back_off else total
        counts = {"backed_off": everyone - total, "ahead": 0, "rejected_before": 0}
        if request.select == "pending":
            counts |= {"rejected_before": self._rejected(lake, request), "ahead": count_ahead(lake, self.origin)}
        if total:
            run.log.info("%s %s: %d targets to ask", archive.name, archive.release, total)
        folder = lake.storage.staging / run.id / archive.name / archive.release.lower()
        batches = plan_batches(*asked, folder, select=request.select, back_off=request.back_off)
        yield Stage(batches, total, {**counts, "newer": self._newer(run)})

    def _rejected(self, lake: Lake, request: Request) -> int:
        """Count the targets that are skipped because their answer was rejected."""
        archive, followed = _expiring(self.origin, request.since), self.origin.followed(self.parameters)
        asked = (archive.name, archive.release, canonical(self.parameters), request.samples)
        with lake.catalog.borrowed() as cursor:
            if not (every := count_rejected(cursor, *asked, followed)):
                return 0
            return every - waiting(cursor, *asked, max_age(archive), followed=followed).rejected

    def _newer(self, run: Context) -> tuple[str, ...]:
        try:
            return tuple(releases.newer(self.origin, run.settings))
        except ArchiveError as error:  # the pull goes on without their list, and says so
            run.log.warning("newer releases of %s are not known: %s", self.name, error)
            return ()

    @property
    def fetch(self) -> Callable[[Batch, bool], list[Manifest]]:
        """Return the function that stages a batch."""
        return fetch

    def mark_failed(self, batch: Batch, error: BaseException) -> list[Manifest]:
        """Stage the failed attempts of a batch."""
        return mark_batch_failed(batch, error)

    def commit(self, url: str, fetched: Sequence[Sequence[Manifest]]) -> list[Receipts]:
        """Commit what is staged."""
        receipts = iter(commit_batch(url, [manifest for batch in fetched for manifest in batch]))
        return [[(None, next(receipts)) for manifest in batch for _ in manifest.attempts] for batch in fetched]


def _expiring(archive: Archive, since: datetime | None) -> Archive:
    """Return an archive whose answers from before a time are too old, beside those that are by its own rule."""
    if since is None:
        return archive
    days = max(0.0, (datetime.now(UTC) - since).total_seconds()) / 86400
    return replace(archive, max_age_days=min(days, archive.max_age_days or days))
