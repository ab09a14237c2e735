"""RXTE as a source of the engine: observations of targets, found in xtemaster, staged and committed, then matched."""

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
from tasks.services.request_counters import count_requests
from tasks.services.retry import with_retries
from tasks.sources.base import Limits, Origin
from tasks.sources.granule_status import GranuleStatus, last_status
from tasks.sources.heasarc import SERVICE
from tasks.sources.observed import target_of
from tasks.sources.protocol import Context, Receipts, Request, Stage
from tasks.sources.rxte import cut as rxte_cut
from tasks.sources.rxte import observations as rxte_pull
from tasks.sources.rxte import targets as rxte_targets
from tasks.sources.rxte.files import Mirror
from tasks.sources.rxte.find import Found, find, read_csv, select
from tasks.sources.rxte.mission import NAME, ORIGIN
from tasks.sources.rxte.observations import Extraction, Part
from tasks.sources.rxte.options import RxteOptions

# xtemaster is asked for so many targets at once.
TARGETS = 2_000


@dataclass(frozen=True)
class Rxte:
    """RXTE's observations, with the options of a request.

    Parameters
    ----------
    extraction
        What is taken of each observation, with the bands that the lake has of them already.
    endpoint
        Address of the mirror.
    is_far
        The mirror is not a folder here: reading it takes connection slots.
    is_first
        The lake has no attempt at any observation, so it need not be asked for them.
    """

    options: RxteOptions = field(default_factory=RxteOptions)
    extraction: Extraction = field(default_factory=Extraction)
    endpoint: str = ORIGIN.endpoint
    is_far: bool = False
    is_first: bool = False

    name, what = NAME, "observations"

    @property
    def declarations(self) -> Sequence[Declaration]:
        """Return what it brings: the bands of chosen channels follow from the choice, so only the lake has them."""
        return [ORIGIN.declaration, Declaration(archive=rxte_cut.NAME, command="lightlake rxte")]

    @property
    def origin(self) -> Origin:
        """Return whether the rows are of standard products or of chosen channels."""
        return self.extraction.origin

    @property
    def limits(self) -> Limits:
        """Return its limits; a mirror in a folder has no service."""
        return Limits(service=SERVICE if self.is_far else None, granules=self.extraction.together)

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters that coverage has of a target."""
        return {**self.extraction.parameters, **self.options.question}

    def prepared(self, lake: Lake, request: Request, settings: Settings) -> Rxte:
        """Return it with the options of a request.

        Raises
        ------
        ArchiveError
            If nothing is at the archive's address.
        """
        options: RxteOptions = request.options
        with Mirror(settings) as mirror:
            extraction, is_first = rxte_pull.as_pulled_before(lake, options.extraction)
            return Rxte(options, extraction, mirror.url, not mirror.is_local, is_first)

    def register(self, lake: Lake) -> bool:
        """Bring the lake's description of it up to date; say whether the lake shows this release."""
        return rxte_pull.register(lake, self.extraction)

    def plan(self, run: Context, request: Request) -> Iterator[Stage]:
        """Yield, for one chunk of targets after the other, their observations; then what the targets match."""
        lake, extraction = run.lake, self.extraction
        folder = lake.storage.staging / run.id / NAME
        seen, planned, unanswered = set[str](), list[str](), 0
        names_skipped = self.options.target is None and request.select == "pending"
        if names_skipped and (skipped := self._rejected(lake)):
            # Targets whose observations were rejected are skipped, and their observations with them.
            yield Stage(counts={"rejected_before": skipped})
        for targets in self._targets(run, request):
            asked_at = datetime.now(UTC)
            with count_requests("xtemaster", run.log) as asking:
                try:
                    if unanswered >= self.limits.give_up_after:
                        raise ArchiveError(
                            f"not asked: {counted(self.limits.give_up_after, 'question')} before had no answer",
                            archive=NAME,
                            endpoint=SERVICE,
                            hint="see why, and pull again",
                        )
                    found, endpoint = self._found(run, targets)
                    unanswered = 0
                except (ArchiveError, GranuleRejected) as error:
                    unanswered += 1
                    run.log.error("xtemaster could not be asked: %s", error)
                    yield self._failed(run, targets, error)
                    continue
            observations = [one for one in found.each() if one.obsid not in seen]
            seen.update(one.obsid for one in observations)
            now = (
                GranuleStatus(observations, 0, 0, 0)
                if self.is_first and request.select != "failed"
                else rxte_pull.waiting(lake, observations, extraction, select=request.select)
            )
            run.log.info(
                "%d observations of %d targets, %d to do", len(observations), targets.num_rows, len(now.waiting)
            )
            planned += [extraction.granule(one.obsid) for one in observations]
            skipped = 0 if names_skipped else now.skipped

            answer = (targets, found, extraction, self.parameters, asked_at, endpoint, asking.facts())
            yield Stage(
                Part.each(run.url, folder, now.waiting, extraction, run.settings.workers),
                len(now.waiting),
                {"known": len(observations), "done_before": now.done, "rejected_before": skipped},
                tuple(planned),
                partial(_answer, run.url, *answer),
            )

    def _failed(self, run: Context, targets: pa.Table, error: BaseException) -> Stage:
        """Return the stage that marks targets as failed which could not be looked up."""

        def give_up() -> Receipts:
            receipt = rxte_targets.give_up(run.url, targets, self.extraction, self.parameters, error)
            return [(f"{counted(targets.num_rows, 'target')}", receipt)]

        return Stage(finish=give_up)

    def _rejected(self, lake: Lake) -> int:
        """Count the observations in the ledger that were rejected with these parameters."""
        if self.is_first:
            return 0
        origin, parameters = self.origin, canonical(self.extraction.parameters)
        status = last_status(lake, origin.name, [origin.release], parameters=parameters)
        return list(status.values()).count("rejected")

    def _targets(self, run: Context, request: Request) -> Iterator[pa.Table]:
        """Yield the targets to look up: the one that is named, or all without an answer."""
        if self.options.target is not None:
            yield run.here(target_of, run.lake, self.options.target, NAME)
            return
        yield from pending(
            run.lake.catalog,
            self.origin.name,
            self.origin.release,
            canonical(self.parameters),
            request.samples,
            # An observation that was rejected may be near any target; before a first run, no target has an answer.
            select="pending" if request.select == "pending" and not self.is_first else "all",
            batch_size=TARGETS,
        )

    def _found(self, run: Context, targets: pa.Table) -> tuple[Found, str]:
        """Return what xtemaster has near targets, and the address that answered."""
        options, settings = self.options, run.settings
        if options.xtemaster is not None:
            found, endpoint = (
                select(targets, read_csv(options.xtemaster), radius_deg=options.radius_deg),
                options.xtemaster,
            )
        else:
            endpoint = settings.endpoints.get(SERVICE, "xtemaster at HEASARC")
            with run.slots(SERVICE, settings.archive_concurrency):
                found = with_retries(lambda: find(targets, settings, radius_deg=options.radius_deg), settings)
        return (found if options.slews else found.without_slews()).limited(options.limit), endpoint

    @property
    def fetch(self) -> Callable[[Part, bool], rxte_pull.Staged]:
        """Return the function that stages a part."""
        return rxte_pull.fetch

    def mark_failed(self, batch: Part, error: BaseException) -> rxte_pull.Staged:
        """Stage observations as failed."""
        return rxte_pull.mark_failed(batch, error)

    def commit(self, url: str, fetched: Sequence[rxte_pull.Staged]) -> list[Receipts]:
        """Commit what is staged."""
        return [rxte_pull.commit(url, one) for one in fetched]


SOURCE = Rxte()


def _answer(*answer: Any) -> Receipts:
    """Commit what targets match; the report counts their observations alone."""
    rxte_targets.answer(*answer)
    return []
