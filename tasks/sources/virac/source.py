"""A run over VIRAC's tiles, or over ranges of its public release, as work of the engine.

Tiles are committed by the workers that extract them, each under its claim, so that several runs may share a folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from lake.commit.ledger import write_plan
from tasks.pull import is_passing, lake_at
from tasks.pull.driver import Done, Driver, Run, Told
from tasks.pull.limits import connection_slots
from tasks.pull.report import SurveyReport
from tasks.pull.runners import OutOfTime, current_log
from tasks.register import register_archive
from tasks.services.request_counters import summarise
from tasks.sources.base import Origin
from tasks.sources.virac.pieces import (
    PATTERN,
    Piece,
    PublicRange,
    check_place,
    extract,
    find_pieces,
    granule_status,
    mark_failed,
    parse_shard,
)
from tasks.sources.virac.tiles import NAME, Selection

# What one task carries: some ten seconds of work, so that Prefect's own 0.2 s do not count.
BATCH_BYTES, BATCH_TILES = 1 << 30, 16

# After so many batches in a row of which nothing came, the rest is not tried: a disk that is gone.
GIVE_UP_AFTER = 8

# Who answers for the public release.
_SERVICE = "eso"


@dataclass(frozen=True)
class Asked:
    """What a run is asked for.

    Parameters
    ----------
    tiles, pattern
        As find_pieces takes them.
    cut
        What of a tile is kept.
    retry_failed
        Exactly those that were rejected or failed before.
    shard
        One of several jobs, such as 0/96; None: all tiles.
    """

    tiles: str
    pattern: str = PATTERN
    cut: Selection = field(default_factory=Selection)
    retry_failed: bool = False
    shard: str | None = None

    def check(self) -> None:
        """See that it makes sense, before anything is begun.

        Raises
        ------
        ConfigurationError
            If not.
        """
        check_place(self.tiles)
        if self.shard is not None:
            parse_shard(self.shard)


@dataclass(frozen=True)
class Batch:
    """Tiles that one task carries, for the lake at a URL; `again`: even those that were rejected before."""

    url: str
    tiles: tuple[Piece, ...]
    cut: Selection
    again: bool = False


def pull(run: Run, asked: Asked) -> tuple[Origin, SurveyReport]:
    """Extract every tile that is not in the lake yet, and commit each by itself; return whose they are, and a report.

    Raises
    ------
    ConfigurationError
        If there are no tiles, or no such shard.
    LightlakeError
        If other runs of this machine have all places at ESO for too long.
    """
    started = time.monotonic()
    lake, cut = run.lake, asked.cut
    pieces = find_pieces(asked.tiles, asked.pattern)
    found, origin = pieces.found, pieces.found[0].origin
    run.here(register_archive, lake, origin)
    write_plan(lake.storage, NAME, [piece.granule(cut) for piece in found])
    now = granule_status(lake, found, cut, retry_failed=asked.retry_failed)
    waiting = _of_shard(now.waiting, found, asked.shard)
    rejected = 0 if asked.retry_failed else now.rejected
    report = SurveyReport(NAME, "tiles", len(found), now.done, rejected, unreadable=pieces.unreadable)
    run.log.info("%d tiles, %d done before, %d to do", len(found), now.done, len(waiting))
    if waiting:
        run.here(run.watch.begin, NAME, len(waiting), "tiles")
        batches = (Batch(run.url, tuple(some), cut, asked.retry_failed) for some in batched(waiting))
        with _places(run, waiting[0]) as width:
            report = Driver(run, _Tiles(asked.tiles), report).work_off(batches, width)
    return origin, replace(report, seconds=time.monotonic() - started)


def bring(batch: Batch, last_try: bool) -> Done:
    """Bring tiles into the lake one after the other: what a runner is given to do."""
    lake, log = lake_at(batch.url), current_log()
    told: Told = []
    left: list[Piece] = []
    why: BaseException | None = None
    for number, tile in enumerate(batch.tiles):
        try:
            receipt = extract(lake, tile, batch.cut, again=batch.again, last_try=last_try, log=log)
        except (Exception, OutOfTime) as error:  # noqa: BLE001 - what becomes of it the engine decides; what is done stays told
            why = error
            if is_passing(error) and not isinstance(error, OutOfTime):
                left.append(tile)
                continue
            # Whatever it is may befall the others, too. One that takes too long comes last the next time.
            left += [*batch.tiles[number + 1 :], tile]
            break
        if receipt is not None:
            told.append((tile.name, receipt))
    return Done(told, replace(batch, tiles=tuple(left)) if left else None, why)


def batched(tiles: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Yield tiles in the batches that tasks carry."""
    batch: list[Piece] = []
    for tile in tiles:
        if batch and (len(batch) == BATCH_TILES or sum(one.bytes for one in batch) + tile.bytes > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(tile)
    if batch:
        yield batch


class _Tiles:
    """The work of tiles."""

    source, give_up_after = NAME, GIVE_UP_AFTER

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    @property
    def fetch(self) -> Callable[[Batch, bool], Done]:
        """Return what brings them into the lake."""
        return bring

    def name(self, batch: Batch) -> str:
        """Return its tiles in a few words."""
        return summarise([tile.name for tile in batch.tiles])

    def count(self, batch: Batch) -> int:
        """Return how many tiles it has."""
        return len(batch.tiles)

    def mark_failed(self, batch: Batch, error: BaseException) -> tuple[Batch, BaseException]:
        """Return what is noted by `commit`, which is told in order."""
        return batch, error

    def commit(self, url: str, fetched: tuple[Batch, BaseException]) -> Told:
        """Note that a batch was lost: all else has been committed by its worker."""
        batch, error = fetched
        return mark_failed(lake_at(url), batch.tiles, batch.cut, error, again=batch.again)


def _places(run: Run, piece: Piece) -> AbstractContextManager[int]:
    """Have places at ESO, if that is who is asked; files are read by all workers."""
    settings = run.settings
    if not isinstance(piece, PublicRange):
        return nullcontext(settings.workers)
    return connection_slots(settings, _SERVICE, min(settings.workers, settings.archive_concurrency), run.log, run.check)


def _of_shard(waiting: list[Piece], found: Sequence[Piece], shard: str | None) -> list[Piece]:
    """Return what a shard is to do: every n-th of all tiles, whatever is done of them."""
    if shard is None:
        return waiting
    number, count = parse_shard(shard)
    mine = {tile.name for tile in found[number::count]}
    return [tile for tile in waiting if tile.name in mine]
