"""HST's photons as a source of the engine: exposures are found and extracted, then named, then put into composites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa

from lake.commit.ledger import canonical, pending
from lake.errors import ArchiveError, GranuleRejected
from lake.model.declared import Declaration
from lake.query import Lake
from lake.settings import Settings
from lake.text import counted
from tasks.register import register_archive
from tasks.services.request_counters import count_requests
from tasks.services.retry import with_retries
from tasks.services.simbad import SIMBAD
from tasks.sources import observed
from tasks.sources.base import Limits, Origin
from tasks.sources.hst_timetag import find, groups, looks, names, work
from tasks.sources.hst_timetag.exposures_status import held, status_of
from tasks.sources.hst_timetag.files import Files, Piece, pieces_of
from tasks.sources.hst_timetag.matches import Listed, is_known, near_targets
from tasks.sources.hst_timetag.options import HstOptions
from tasks.sources.hst_timetag.tables import NAME, ORIGIN, SERVICE
from tasks.sources.hst_timetag.work import Batch, Job, Staged, batches
from tasks.sources.observed import Question, target_of
from tasks.sources.protocol import Context, Receipts, Request, Stage

# MAST is asked for so many targets at a time, one request each.
TARGETS = 100


@dataclass(frozen=True)
class Hst:
    """Exposures of COS and STIS in TIME-TAG mode, with the options of a request.

    Parameters
    ----------
    endpoint
        Address of MAST, or the folder.
    is_local
        The files are in a folder here: reading them takes no connection slots.
    """

    options: HstOptions = field(default_factory=HstOptions)
    endpoint: str = ORIGIN.endpoint
    is_local: bool = False

    name, what = NAME, "exposures"

    @property
    def declarations(self) -> Sequence[Declaration]:
        """Return its tables, views and bands."""
        return [ORIGIN.declaration]

    @property
    def origin(self) -> Origin:
        """Return where its rows are from."""
        return ORIGIN

    @property
    def limits(self) -> Limits:
        """Return its limits; a folder here has no service."""
        return Limits(service=None if self.is_local else SERVICE, granules=work.BATCH_GRANULES, bytes=work.BATCH_BYTES)

    def prepared(self, lake: Lake, request: Request, settings: Settings) -> Hst:
        """Return it with the options of a request.

        Raises
        ------
        ArchiveError
            If there is no such folder.
        """
        options: HstOptions = request.options
        with Files(options.files, settings) as files:
            return Hst(options, files.endpoint, files.is_local)

    def register(self, lake: Lake) -> bool:
        """Bring the lake's description of it up to date; say whether the lake shows this release."""
        return register_archive(lake, ORIGIN)

    def plan(self, run: Context, request: Request) -> Iterator[Stage]:
        """Yield exposures, chunk by chunk, with what they match; then composites of all that changed."""
        planned: list[str] = []
        if self.options.files is not None:
            yield self._of_folder(run, request, planned)
        elif self.options.new:
            yield self._of_new(run, request, planned)
        elif self.options.hst_name is not None:
            yield self._of_name(run, request, planned)
        else:
            yield from self._of_targets(run, request, planned)
        self._name(run)
        yield self._composites(run, request, planned)

    def _stage(
        self,
        run: Context,
        request: Request,
        planned: list[str],
        pieces: Sequence[Piece],
        finish: Callable[[], Receipts] | None = None,
    ) -> Stage:
        """Return the stage that extracts the pieces which are to be extracted."""
        jobs = {job.granule(self.options.extraction): job for job in (Job(one.rootname, (one,)) for one in pieces)}
        return self._of_jobs(run, request, planned, jobs, finish)

    def _of_jobs(
        self,
        run: Context,
        request: Request,
        planned: list[str],
        jobs: dict[str, Job],
        finish: Callable[[], Receipts] | None = None,
        what: str | None = None,
    ) -> Stage:
        jobs = {granule: job for granule, job in jobs.items() if granule not in planned}
        now = status_of(run.lake, jobs, request.select)
        run.log.info("%d %s, %d to do", len(jobs), what or self.what, len(now.waiting))
        planned += jobs
        folder = run.lake.storage.staging / run.id / NAME
        return Stage(
            batches(run.url, folder, now.waiting, self.options, run.settings.workers),
            len(now.waiting),
            {"known": len(jobs), "done_before": now.done, "rejected_before": now.skipped},
            tuple(planned),
            finish,
            what,
        )

    def _of_folder(self, run: Context, request: Request, planned: list[str]) -> Stage:
        with Files(self.options.files, run.settings) as files:
            pieces = files.pieces()
        return self._stage(run, request, planned, pieces, partial(self._match, run.lake, pieces))

    def _of_name(self, run: Context, request: Request, planned: list[str]) -> Stage:
        found = self._asked(run, lambda: find.named([str(self.options.hst_name)], run.settings))
        pieces = self._listed(run, found).pieces
        return self._stage(run, request, planned, pieces, partial(self._match, run.lake, pieces))

    def _match(self, lake: Lake, pieces: Sequence[Piece]) -> Receipts:
        """Match exposures that were not looked for by target with the lake's targets."""
        granules = [Job(one.rootname, (one,)).granule(self.options.extraction) for one in pieces]
        targets, pairs = near_targets(lake, granules, self.options.radius_arcsec)
        if targets.num_rows and not is_known(lake, self.options.question, targets, pairs):
            question = Question(ORIGIN, self.options.question, targets, datetime.now(UTC), self.endpoint)
            observed.answer(lake, question, pairs, lambda source: source)
        return []

    def _of_new(self, run: Context, request: Request, planned: list[str]) -> Stage:
        asked_at = datetime.now(UTC)
        since = looks.since(run.lake, asked_at, is_first=request.select != "pending")
        run.log.info("exposures that became public, or were calibrated anew, since %s", since.isoformat())
        released = self._asked(run, lambda: find.since(since, run.settings))
        renewed = self._asked(run, lambda: find.since(since, run.settings, what="generated"))
        known = held(run.lake, "source_id", "association")
        is_held = pa.array([one in known for one in renewed.exposures["exposure_id"].to_pylist()], pa.bool_())
        others = {*released.exposures["exposure_id"].to_pylist()}
        renewed_held = renewed.exposures.filter(is_held)
        is_other = pa.array([one not in others for one in renewed_held["exposure_id"].to_pylist()], pa.bool_())
        both = find.Found(
            pa.concat_tables([released.exposures, renewed_held.filter(is_other)]), remarks=released.remarks
        )
        pieces = self._listed(run, both).pieces

        def finish() -> Receipts:
            granules = [Job(one.rootname, (one,)).granule(self.options.extraction) for one in pieces]
            return [*self._match(run.lake, pieces), *looks.note(run.lake, asked_at, self.endpoint, granules)]

        return self._stage(run, request, planned, pieces, finish)

    def _of_targets(self, run: Context, request: Request, planned: list[str]) -> Iterator[Stage]:
        """Yield, for one chunk of targets after the other, their exposures; then what the targets match."""
        unanswered, options = 0, self.options
        for targets in self._targets(run, request):
            asked_at = datetime.now(UTC)
            question = Question(ORIGIN, options.question, targets, asked_at, self.endpoint)
            with count_requests(question.attempt.granule, run.log) as asking:
                try:
                    if unanswered >= self.limits.give_up_after:
                        raise ArchiveError(
                            f"not asked: {counted(self.limits.give_up_after, 'question')} before had no answer",
                            archive=NAME,
                            endpoint=self.endpoint,
                            hint="see why, and pull again",
                        )
                    found = self._asked(
                        run, partial(find.near, targets, run.settings, radius_arcsec=options.radius_arcsec)
                    )
                    listed = self._listed(run, found)
                    unanswered = 0
                except (ArchiveError, GranuleRejected) as error:
                    unanswered += 1
                    run.log.error("MAST could not be asked: %s", error)
                    yield Stage(finish=partial(_give_up, run.lake, question, error), what="targets")
                    continue
            finish = partial(_answer, run.lake, question, listed, options, asking.facts())
            yield self._stage(run, request, planned, listed.pieces, finish)

    def _targets(self, run: Context, request: Request) -> Iterator[pa.Table]:
        """Yield the targets to look up: the one that is named, or all without an answer."""
        if self.options.target is not None:
            yield run.here(target_of, run.lake, self.options.target, NAME)
            return
        yield from pending(
            run.lake.catalog,
            NAME,
            ORIGIN.release,
            canonical(self.options.question),
            request.samples,
            # An exposure that was rejected may be near any target.
            select="pending" if request.select == "pending" else "all",
            batch_size=TARGETS,
        )

    def _asked(self, run: Context, ask: Callable[[], find.Found]) -> find.Found:
        with run.slots(SERVICE):
            return with_retries(ask, run.settings)

    def _listed(self, run: Context, found: find.Found) -> Listed:
        """Return the files of exposures that were found."""
        with run.slots(SERVICE):
            products = with_retries(lambda: find.products(found.exposures, run.settings), run.settings)
        remarks = (*found.remarks, *products.remarks)
        for remark in remarks:
            run.log.info("%s", remark)
        return Listed(found.matches, products.exposures, pieces_of(products.files, products.exposures), remarks)

    def _name(self, run: Context) -> None:
        """Find the canonical names of new targets. Until a service answers, their own names count."""
        unnamed = groups.unnamed(run.lake)
        if unnamed.num_rows:
            try:
                with run.slots(SIMBAD):
                    aliases = run.lake.sql(f"SELECT name FROM aliases WHERE {names.OWN}")
                    rows = with_retries(lambda: names.resolve(unnamed, aliases, run.settings), run.settings)
            except (ArchiveError, GranuleRejected) as error:
                run.log.warning("%d names of targets stay as proposers gave them: %s", unnamed.num_rows, error)
            else:
                run.here(groups.commit_names, run.lake, rows)
        run.here(groups.settle, run.lake)

    def _composites(self, run: Context, request: Request, planned: list[str]) -> Stage:
        parameters = self.options.extraction
        jobs = {job.granule(parameters): job for job in groups.jobs(run.lake, parameters)}
        return self._of_jobs(run, request, planned, jobs, what="composites")

    @property
    def fetch(self) -> Callable[[Batch, bool], Staged]:
        """Return the function that stages a batch."""
        return work.fetch

    def mark_failed(self, batch: Batch, error: BaseException) -> Staged:
        """Stage granules as failed."""
        return work.mark_failed(batch, error)

    def commit(self, url: str, fetched: Sequence[Staged]) -> list[Receipts]:
        """Commit what is staged."""
        return [work.commit(url, one) for one in fetched]


SOURCE = Hst()


def _give_up(lake: Lake, question: Question, error: BaseException) -> Receipts:
    n = question.targets.num_rows
    return [(f"{n} target{'s' if n > 1 else ''}", observed.give_up(lake, question, error))]


def _answer(lake: Lake, question: Question, listed: Listed, options: HstOptions, spent: dict[str, Any]) -> Receipts:
    """Commit what targets match; the report counts their exposures alone."""
    pairs, granule_of = listed.pairs(lake, options.extraction)
    observed.answer(lake, question, pairs, granule_of, listed.remarks, spent)
    return []
