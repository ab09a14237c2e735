"""Extract VIRAC's tiles into the lake: plan, extract and commit each, report."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows.report import REASONS_TOLD, Watch
from flows.runners import task_runner
from lake.commit import Receipt
from lake.errors import ConfigurationError
from lake.ledger import write_plan
from lake.settings import load_settings
from tasks.pull import lake_at, register_archive
from tasks.surveys.virac import MIN_KS, NAME, Cut
from tasks.surveys.virac_pull import PATTERN, Piece, extract_tiles, find_pieces, lose, standing
from tasks.surveys.virac_tile import BANDS

# What one task carries: some ten seconds of work, so that Prefect's own 0.2 s do not count.
_BATCH_BYTES, _BATCH_TILES = 1 << 30, 16


@dataclass(frozen=True)
class TileReport:
    """What a run did with the tiles that it found."""

    tiles: int
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

    def plus(self, asked: int, receipts: Sequence[tuple[str, Receipt]]) -> TileReport:
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
            told.append(f"{self.rejected} tiles REJECTED and {self.failed} FAILED: {reasons}{others}")
        if self.done:
            told.append(f"{self.done} tiles done, {self.sources} sources, {self.rows} rows")
        if self.elsewhere:
            told.append(f"{self.elsewhere} tiles were taken by other processes")
        if not told:
            told.append("nothing to do")
        told.append(f"{self.done_before + self.done} of {self.tiles} tiles are in the lake")
        if self.rejected_before:
            told.append(f"{self.rejected_before} were rejected before: --retry-failed tries them again")
        return f"{NAME}: {'. '.join(told)}"


def run_name() -> str:
    """Return the name of a run, for the UI."""
    given = flow_run.parameters
    return f"virac {given.get('tiles')}{' (failed ones)' if given.get('retry_failed') else ''}"


@flow(name="virac", flow_run_name=run_name, task_runner=task_runner(), validate_parameters=True)
def extract_virac(
    tiles: Annotated[
        str,
        Field(
            description="Folder of the tiles, or s3://BUCKET/PREFIX; or eso:n1024_9000000,... for the public release"
        ),
    ],
    lake: Annotated[str | None, Field(description="The lake; empty: LIGHTLAKE_URL")] = None,
    pattern: Annotated[str, Field(description="Names of the tiles' files")] = PATTERN,
    min_ks: Annotated[int, Field(ge=0, description="Keep sources with more Ks detections than this")] = MIN_KS,
    bands: Annotated[
        list[Literal["H", "J", "Ks", "Y", "Z"]] | None, Field(description="Bands whose rows are kept; empty: all")
    ] = None,
    retry_failed: Annotated[bool, Field(description="Exactly those that were rejected or failed before")] = False,
    shard: Annotated[
        str | None, Field(pattern=r"^\d+/\d+$", description="One of several jobs, such as 0/96; empty: all tiles")
    ] = None,
    runner: Annotated[
        Literal["threads", "processes", "dask"] | None,
        Field(description="What runs the tasks; empty: LIGHTLAKE_RUNNER"),
    ] = None,
) -> State[TileReport]:
    """Extract every tile of a folder that is not in the lake yet, and commit each by itself.

    The run ends Failed if a tile was rejected or failed; its message says which and why. All the rest is in the lake
    all the same. A run that was killed has lost nothing but the tiles in hand, and the next one goes on.
    """
    log = get_run_logger()
    started = time.monotonic()
    settings = load_settings(runner=runner)
    url = str(lake or settings.url)
    cut = Cut(min_ks, tuple(sorted(bands or BANDS)))
    opened = lake_at(url)
    found = find_pieces(tiles, pattern)
    register_archive(opened, found[0].origin)
    write_plan(opened.storage, NAME, len(found))
    now = standing(opened, found, cut, retry_failed=retry_failed)
    waiting = _of_shard(now.waiting, found, shard)
    report = TileReport(len(found), now.done, 0 if retry_failed else now.rejected)
    log.info("%d tiles, %d done before, %d to do", len(found), now.done, len(waiting))
    window: deque[tuple[list[Piece], PrefectFuture[Any]]] = deque()
    with Watch(NAME, len(waiting), what="tiles") as watch, task_runner(settings) as runs:

        def settle() -> None:
            nonlocal report
            batch, future = window.popleft()
            future.wait()
            if future.state.is_completed():
                receipts = future.result()
            else:
                error = future.state.result(raise_on_failure=False)
                if not isinstance(error, BaseException):
                    error = RuntimeError(future.state.message or future.state.name)
                log.error("a worker was lost: %s", error)
                receipts = lose(opened, batch, cut, error)
            report = report.plus(len(batch), receipts)
            watch.advance(len(batch))

        for batch in _batches(waiting):
            parameters = {"url": url, "tiles": batch, "cut": cut, "again": retry_failed}
            window.append((batch, runs.submit(extract_tiles, parameters)))
            while len(window) >= 2 * settings.workers:
                settle()
        while window:
            settle()
    report = replace(report, seconds=time.monotonic() - started)
    row = {**asdict(report), "reasons": "; ".join(report.reasons[:REASONS_TOLD])}
    create_table_artifact([row], key="virac", description=report.message)
    if report.rejected or report.failed:
        log.error(report.message)
        return Failed(message=report.message, data=report)
    log.info(report.message)
    return Completed(message=report.message, data=report)


def _of_shard(waiting: list[Piece], found: Sequence[Piece], shard: str | None) -> list[Piece]:
    """Return what a shard is to do: every n-th of all tiles, whatever is done of them."""
    if shard is None:
        return waiting
    number, count = map(int, shard.split("/"))
    if not number < count:
        raise ConfigurationError(f"there is no shard {shard}", hint=f"count from 0/{count} to {count - 1}/{count}")
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
