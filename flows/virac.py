"""Extract VIRAC's tiles into the lake: plan, extract and commit each, report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from pydantic import Field

from flows.forms import Shown
from flows.living import living
from flows.report import Watch, state_of
from flows.runners import task_runner, windowed
from lake.ledger import write_plan
from lake.redact import safe_line
from lake.settings import load_settings
from tasks.pull import lake_at
from tasks.pull.report import SurveyReport, told_of
from tasks.register import register_archive
from tasks.surveys.virac import MIN_KS, NAME, Cut
from tasks.surveys.virac_pull import PATTERN, Piece, extract_tiles, find_pieces, lose, parse_shard, standing
from tasks.surveys.virac_tile import BANDS

# What one task carries: some ten seconds of work, so that Prefect's own 0.2 s do not count.
_BATCH_BYTES, _BATCH_TILES = 1 << 30, 16


def run_name() -> str:
    """Return the name of a run, for the UI."""
    given = flow_run.parameters
    return safe_line(f"virac {given.get('tiles')}{' (failed ones)' if given.get('retry_failed') else ''}")


@flow(name="virac", flow_run_name=run_name, validate_parameters=True)
def extract_virac(
    tiles: Annotated[
        str,
        Shown("Folder of the tiles, or s3://BUCKET/PREFIX; or eso:n1024_9000000,... for the public release"),
    ],
    lake: Annotated[str | None, Shown("The lake: a folder or s3://BUCKET/PREFIX", empty="LIGHTLAKE_URL")] = None,
    pattern: Annotated[str, Shown("Names of the tiles' files")] = PATTERN,
    min_ks: Annotated[int, Field(ge=0), Shown("Keep sources with more Ks detections than this")] = MIN_KS,
    bands: Annotated[
        list[Literal["H", "J", "Ks", "Y", "Z"]] | None, Shown("Bands whose rows are kept", empty="all bands")
    ] = None,
    retry_failed: Annotated[bool, Shown("Exactly those that were rejected or failed before")] = False,
    shard: Annotated[
        str | None, Field(pattern=r"^\d+/\d+$"), Shown("One of several jobs, such as 0/96", empty="all tiles")
    ] = None,
    runner: Annotated[
        Literal["threads", "processes", "dask"] | None,
        Shown("What runs the tasks", empty="LIGHTLAKE_RUNNER"),
    ] = None,
) -> State[SurveyReport]:
    """Extract every tile of a folder that is not in the lake yet, and commit each by itself.

    The run ends Failed if a tile was rejected or failed, or if a folder could not be read; its message says which and
    why. All the rest is in the lake all the same. A run that was killed has lost nothing but the tiles in hand, and
    the next one goes on.
    """
    log = get_run_logger()
    started = time.monotonic()
    settings = load_settings(runner=runner)
    url = str(lake or settings.url)
    cut = Cut(min_ks, tuple(sorted(bands or BANDS)))
    opened = lake_at(url)
    pieces = find_pieces(tiles, pattern)
    found = pieces.found
    register_archive(opened, found[0].origin)
    write_plan(opened.storage, NAME, [piece.granule(cut) for piece in found])
    now = standing(opened, found, cut, retry_failed=retry_failed)
    waiting = _of_shard(now.waiting, found, shard)
    report = SurveyReport(
        NAME, "tiles", len(found), now.done, 0 if retry_failed else now.rejected, unreadable=pieces.unreadable
    )
    log.info("%d tiles, %d done before, %d to do", len(found), now.done, len(waiting))
    with living(opened), Watch() as watch, task_runner(settings) as runs:
        watch.begin(NAME, len(waiting), "tiles")
        work = ((batch, {"url": url, "tiles": batch, "cut": cut, "again": retry_failed}) for batch in _batches(waiting))
        for batch, outcome in windowed(runs, extract_tiles, work, 2 * settings.workers):
            if isinstance(outcome, BaseException):
                log.error("a worker was lost: %s", outcome)
                outcome = lose(opened, batch, cut, outcome)
            for name, receipt in outcome:
                told_of(log, receipt, name)
            report = report.plus(len(batch), outcome)
            watch.advance(NAME, len(batch))
    return state_of(replace(report, seconds=time.monotonic() - started), log, opened, found[0].origin)


def _of_shard(waiting: list[Piece], found: Sequence[Piece], shard: str | None) -> list[Piece]:
    """Return what a shard is to do: every n-th of all tiles, whatever is done of them."""
    if shard is None:
        return waiting
    number, count = parse_shard(shard)
    mine = {tile.name for tile in found[number::count]}
    return [tile for tile in waiting if tile.name in mine]


def _batches(tiles: Sequence[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    for tile in tiles:
        if batch and (len(batch) == _BATCH_TILES or sum(one.bytes for one in batch) + tile.bytes > _BATCH_BYTES):
            yield batch
            batch = []
        batch.append(tile)
    if batch:
        yield batch
