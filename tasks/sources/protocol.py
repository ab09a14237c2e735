"""What a source is to the engine: archives and surveys plan, fetch and commit through this one protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from lake.commit.ledger import Select
from lake.model.declared import Declaration
from lake.query import Lake
from lake.settings import Settings
from tasks.services.request_counters import Log
from tasks.sources.base import Limits, Origin

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What a run asks of a source.

    Parameters
    ----------
    source
        Its name.
    options
        Parameters of an archive that differ from its defaults, or a survey's own model of options.
    sample
        Only targets of this sample, or of any of several; None: all.
    select
        pending: what was never answered, what failed, and answers that are too old. failed: only what failed or was
        rejected. all: everything again.
    release
        A data release, or newest; None: the release that the lake shows.
    back_off
        Skip what failed recently.
    since
        With pending: answers of an archive from before are too old.
    """

    source: str
    options: Any = None
    sample: str | tuple[str, ...] | None = None
    select: Select = "pending"
    release: str | None = None
    back_off: bool = False
    since: datetime | None = None

    @property
    def samples(self) -> list[str] | None:
        """Return the samples whose targets are requested; None for all."""
        if self.sample is None:
            return None
        return [self.sample] if isinstance(self.sample, str) else list(self.sample)


# Each granule's own name, if it has one beside its id, with the receipt of its commit.
Receipts = list[tuple[str | None, Any]]


class Batch(Protocol):
    """Granules that one task carries; it travels to workers, so it is small."""

    @property
    def title(self) -> str:
        """Return its granules in a few words."""

    @property
    def size(self) -> int:
        """Return how many targets, tiles or observations it has."""


@dataclass(frozen=True)
class Done:
    """Result of a worker that commits its granules itself.

    Parameters
    ----------
    receipts
        Of the granules that are committed.
    rest, why
        A batch of those to be retried, if any, and the error that they had.
    """

    receipts: Receipts
    rest: Any = None
    why: BaseException | None = None


@dataclass(frozen=True)
class Stage:
    """One part of a plan; the next is made when this one is committed.

    Parameters
    ----------
    batches, total
        The work, and how many targets, tiles or observations it has.
    counts
        Fields of the run's report: numbers to be added, tuples to be appended.
    granules
        Ids of everything that the run has planned so far, finished granules among them, for those who watch it.
    finish
        Commits what follows from the batches when they are done, and returns the receipts to be reported.
    what
        What the batches have, if it is something else than the source's own word says.
    """

    batches: Iterable[Any] = ()
    total: int = 0
    counts: Mapping[str, Any] = field(default_factory=dict)
    granules: Sequence[str] = ()
    finish: Callable[[], Receipts] | None = None
    what: str | None = None


class Context(Protocol):
    """What a plan may use of the run that it is made for."""

    lake: Lake
    settings: Settings
    log: Log
    id: str

    @property
    def url(self) -> str:
        """Return the lake's URL."""

    def here(self, work: Callable[..., T], *args: Any) -> T:
        """Run something in the thread that began the run, where commits belong."""

    def slots(self, service: str, share: int = 1) -> AbstractContextManager[int]:
        """Hold connection slots of a service: as many as are free of this run's share."""


class Source(Protocol):
    """A source as `tasks.pull.run.pull` takes it: an archive, or a survey of the registry."""

    name: str
    what: str

    @property
    def origin(self) -> Origin:
        """Return where its rows are from."""

    @property
    def limits(self) -> Limits:
        """Return its limits."""

    @property
    def endpoint(self) -> str:
        """Return the address that errors name."""

    def prepared(self, lake: Lake, request: Request, settings: Settings) -> Source:
        """Return it with the release and the options of a request; the run holds the pull lock by then."""

    def register(self, lake: Lake) -> bool:
        """Bring the lake's description of it up to date; say whether the lake shows this release."""

    def plan(self, run: Context, request: Request) -> Iterator[Stage]:
        """Yield what is to be done, stage by stage."""

    @property
    def fetch(self) -> Callable[[Any, bool], Any]:
        """Return a function of a module that fetches a batch in any process.

        It takes the batch and whether this is the last try. It raises an error that may pass, and returns what
        `commit` takes, or `Done` if it has committed by itself.
        """

    def mark_failed(self, batch: Any, error: BaseException) -> Any:
        """Return what `commit` takes to mark a batch as failed."""

    def commit(self, url: str, fetched: Sequence[Any]) -> list[Receipts]:
        """Commit the results of one batch or more to the lake at a URL; return the receipts of each, in order.

        There are no more than the limits say. After an error each is given again, alone: what is committed by then
        must not be committed twice.
        """


class Survey(Source, Protocol):
    """A source whose files are extracted: it has a flow and a command of its own."""

    @property
    def declarations(self) -> Sequence[Declaration]:
        """Return what it brings into a lake, under each of its names."""
