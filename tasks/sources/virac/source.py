"""VIRAC as a source of the engine: tiles of a folder, or ranges of its public release.

Workers commit the tiles that they extract, each under its claim, so that several runs may share a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from lake.model.declared import Declaration
from lake.query import Lake
from lake.settings import Settings
from tasks.register import register_archive
from tasks.services.request_counters import summarise
from tasks.sources.base import Limits, Origin
from tasks.sources.protocol import Context, Done, Receipts, Request, Stage
from tasks.sources.virac.options import ViracOptions
from tasks.sources.virac.pieces import (
    Piece,
    Pieces,
    PublicRange,
    extract,
    find_pieces,
    granule_status,
    mark_failed,
    parse_shard,
)
from tasks.sources.virac.tiles import NAME, ORIGIN, Selection
from tasks.worker import OutOfTime, current_log, is_passing, lake_at

# A task carries some ten seconds of work, so that Prefect's own 0.2 s do not count.
LIMITS = Limits(exclusive=False, granules=16, bytes=1 << 30)

# The service of the public release.
_SERVICE = "eso"


@dataclass(frozen=True)
class Batch:
    """Tiles that one task carries, for the lake at a URL; `again`: even those that were rejected before."""

    url: str
    tiles: tuple[Piece, ...]
    cut: Selection
    again: bool = False

    @property
    def title(self) -> str:
        """Return its tiles in a few words."""
        return summarise([tile.name for tile in self.tiles])

    @property
    def size(self) -> int:
        """Return how many tiles it has."""
        return len(self.tiles)


def bring(batch: Batch, last_try: bool) -> Done:
    """Bring tiles into the lake one after the other: the work of a task."""
    lake, log = lake_at(batch.url), current_log()
    receipts: Receipts = []
    left: list[Piece] = []
    why: BaseException | None = None
    for number, tile in enumerate(batch.tiles):
        try:
            receipt = extract(lake, tile, batch.cut, again=batch.again, last_try=last_try, log=log)
        except (Exception, OutOfTime) as error:  # noqa: BLE001 - the engine decides on a retry; receipts so far are kept
            why = error
            if is_passing(error) and not isinstance(error, OutOfTime):
                left.append(tile)
                continue
            # Any other error may meet the next tiles, too. A tile that took too long comes last in the next try.
            left += [*batch.tiles[number + 1 :], tile]
            break
        if receipt is not None:
            receipts.append((tile.name, receipt))
    return Done(receipts, replace(batch, tiles=tuple(left)) if left else None, why)


def batched(tiles: Sequence[Piece], limits: Limits | None = None) -> Iterator[list[Piece]]:
    """Yield tiles in the batches that tasks carry."""
    limits = limits or LIMITS
    batch: list[Piece] = []
    n_bytes = 0
    for tile in tiles:
        if batch and (len(batch) == limits.granules or n_bytes + tile.bytes > (limits.bytes or 0)):
            yield batch
            batch, n_bytes = [], 0
        batch.append(tile)
        n_bytes += tile.bytes
    if batch:
        yield batch


@dataclass(frozen=True)
class Virac:
    """VIRAC, with the options of a request and the pieces that they name."""

    options: ViracOptions | None = None
    pieces: Pieces = field(default_factory=lambda: Pieces([]))

    name, what = NAME, "tiles"

    @property
    def declarations(self) -> Sequence[Declaration]:
        """Return what it brings into a lake."""
        return [ORIGIN.declaration]

    @property
    def origin(self) -> Origin:
        """Return whether the rows are of tiles, or of the public release."""
        return self.pieces.found[0].origin if self.pieces.found else ORIGIN

    @property
    def limits(self) -> Limits:
        """Return its limits: the public release has a service, files have none."""
        is_public = any(isinstance(piece, PublicRange) for piece in self.pieces.found[:1])
        return replace(LIMITS, service=_SERVICE if is_public else None)

    @property
    def endpoint(self) -> str:
        """Return the folder of the tiles."""
        return self.options.tiles if self.options else ORIGIN.endpoint

    def prepared(self, lake: Lake, request: Request, settings: Settings) -> Virac:
        """Return it with the tiles that a request names.

        Raises
        ------
        ConfigurationError
            If there are no tiles.
        """
        options: ViracOptions = request.options
        return Virac(options, find_pieces(options.tiles, options.pattern))

    def register(self, lake: Lake) -> bool:
        """Bring the lake's description of it up to date; say whether the lake shows this release."""
        return register_archive(lake, self.origin)

    def plan(self, run: Context, request: Request) -> Iterator[Stage]:
        """Yield every tile that is not in the lake yet, as one stage."""
        options: ViracOptions = request.options
        found, cut, again = self.pieces.found, options.cut, request.select != "pending"
        now = granule_status(run.lake, found, cut, select=request.select)
        waiting = _of_shard(now.waiting, found, options.shard)
        run.log.info("%d tiles, %d done before, %d to do", len(found), now.done, len(waiting))
        batches = (Batch(run.url, tuple(some), cut, again) for some in batched(waiting, self.limits))
        counts = {"known": len(found), "done_before": now.done, "rejected_before": now.skipped}
        granules = [piece.granule(cut) for piece in found]
        yield Stage(batches, len(waiting), {**counts, "unreadable": self.pieces.unreadable}, granules)

    @property
    def fetch(self) -> Callable[[Batch, bool], Done]:
        """Return the function that brings a batch into the lake."""
        return bring

    def mark_failed(self, batch: Batch, error: BaseException) -> tuple[Batch, BaseException]:
        """Return the batch and its error, which `commit` marks as failed."""
        return batch, error

    def commit(self, url: str, fetched: Sequence[tuple[Batch, BaseException]]) -> list[Receipts]:
        """Mark batches as failed: their workers have committed everything else."""
        lake = lake_at(url)
        return [mark_failed(lake, batch.tiles, batch.cut, error, again=batch.again) for batch, error in fetched]


SOURCE = Virac()


def _of_shard(waiting: list[Piece], found: Sequence[Piece], shard: str | None) -> list[Piece]:
    """Return the waiting tiles of a shard: every n-th of all tiles, done or not."""
    if shard is None:
        return waiting
    number, count = parse_shard(shard)
    mine = {tile.name for tile in found[number::count]}
    return [tile for tile in waiting if tile.name in mine]
