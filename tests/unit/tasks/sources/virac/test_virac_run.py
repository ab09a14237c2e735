"""A run over tiles by the engine, without Prefect: what is tried again, what is not, and what is told of both."""

from __future__ import annotations

import errno
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pytest

from deployments.sandbox import virac as sandbox_virac
from deployments.sandbox import virac_tap as eso
from deployments.sandbox.server import Sandbox
from lake.cli import main
from lake.errors import LightlakeError
from lake.query import Lake
from lake.settings import Settings
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.pull.driver import Run
from tasks.pull.report import PullReport
from tasks.pull.run import pull
from tasks.pull.runners import LocalRunner
from tasks.sources.protocol import Request
from tasks.sources.virac import pieces as virac_pull
from tasks.sources.virac import source as virac_run
from tasks.sources.virac.options import ViracOptions
from tasks.sources.virac.pieces import TileFile
from tasks.worker import OutOfTime, lake_at, logger, untimed

TILES = 6
SMALL = {"n_sources": 8, "n_pawprints": 60, "epochs": (25, 50)}

Pulled = Callable[..., PullReport]


class Watch:
    """Counts."""

    def __init__(self) -> None:
        self.total, self.done = 0, 0

    def begin(self, source: str, total: int, what: str = "targets") -> None:
        self.total += total

    def advance(self, source: str, done: int) -> None:
        self.done += done


@pytest.fixture
def pulled(catalog: Catalog, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pulled]:
    """A run by threads, or processes, of this process."""
    if settings.catalog:
        monkeypatch.setenv("LIGHTLAKE_CATALOG", settings.catalog)
    lake = lake_at(settings.url)

    def run(where: object, retry_failed: bool = False, **more: Any) -> PullReport:
        changed = {"retries": 2, "retry_delay_s": 0.01, "workers": 2, "runner": "threads", **more}
        chosen, watch = settings.model_copy(update=changed), Watch()
        with LocalRunner(chosen, chosen.workers) as runner:
            this = Run(lake, runner, logger, "a-run", "the test", watch, chosen)
            options = ViracOptions.of(tiles=str(where), retry_failed=retry_failed)
            request = Request("virac", options, select=options.select)
            origin, report = this.alone(lambda: pull(this, virac_run.SOURCE, request))
        assert origin.name == "virac"
        assert watch.done == watch.total, "the bar gets to its end"
        return report

    yield run
    lake_at.cache_clear()


@pytest.fixture
def tiles(tmp_path: Path) -> list[str]:
    """Three tiles in a folder, which are one batch."""
    return sorted(sandbox_virac.write_tiles(tmp_path / "tiles", 3, seed=3, **SMALL))


def failing(monkeypatch: pytest.MonkeyPatch, errors: dict[str, list[BaseException]]) -> Counter[str]:
    """Let tiles end with these errors, one after the other, before they are read; count how often each is taken."""
    taken: Counter[str] = Counter()
    staged = TileFile.stage

    def stage(self: TileFile, *arguments: Any) -> Any:
        taken[self.name] += 1
        if errors.get(self.name):
            raise errors[self.name].pop(0)
        return staged(self, *arguments)

    monkeypatch.setattr(TileFile, "stage", stage)
    return taken


def ledger(lake: Lake) -> dict[str, tuple[str, int]]:
    """Status and tries beyond the first of the last attempt at each tile, by its name."""
    rows = lake.sql(
        "SELECT regexp_extract(endpoint, '[^/]+$') AS name, arg_max(status, attempt) AS status, "
        "arg_max(retries, attempt) AS retries FROM ledger GROUP BY name"
    ).to_pylist()
    return {row["name"]: (row["status"], row["retries"]) for row in rows}


def test_every_tile_once_and_what_is_broken_is_not_tried_again(lake: Lake, tmp_path: Path, pulled: Pulled) -> None:
    kinds = sandbox_virac.write_tiles(tmp_path / "tiles", TILES, seed=3, broken=0.5, **SMALL)
    bad = sum(map(bool, kinds.values()))
    report = pulled(tmp_path / "tiles", runner="processes")
    assert (report.known, report.done, report.rejected, report.failed) == (TILES, TILES - bad, bad, 0)
    assert (report.retries, report.requests, report.elsewhere) == (0, 0, 0)
    assert report.lost
    assert {name: status for name, (status, _) in ledger(lake).items()} == {
        name: "rejected" if kind else "done" for name, kind in kinds.items()
    }
    again = pulled(tmp_path / "tiles")
    assert (again.done, again.rejected, again.done_before, again.rejected_before) == (0, 0, TILES - bad, bad)
    assert not again.lost
    retried = pulled(tmp_path / "tiles", retry_failed=True)
    assert (retried.done, retried.rejected) == (0, bad)
    assert [finding.message for finding in verify(lake.catalog) if finding.is_error] == []


def test_what_passes_is_tried_again_and_nothing_that_has_passed(
    lake: Lake, tmp_path: Path, tiles: list[str], pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale, reset = OSError(errno.ESTALE, "stale"), ConnectionResetError("by peer")
    taken = failing(monkeypatch, {tiles[0]: [stale], tiles[1]: [stale, reset]})
    report = pulled(tmp_path / "tiles")
    assert (report.done, report.failed, report.elsewhere, report.retries) == (3, 0, 0, 3)
    assert taken == {tiles[0]: 2, tiles[1]: 3, tiles[2]: 1}
    assert ledger(lake) == {tiles[0]: ("done", 1), tiles[1]: ("done", 2), tiles[2]: ("done", 0)}
    assert lake.sql("SELECT max(attempt) AS n FROM ledger")["n"].to_pylist() == [1]


def test_what_does_not_pass_is_lost_alone(
    lake: Lake, tmp_path: Path, tiles: list[str], pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = failing(monkeypatch, {tiles[0]: [OSError(errno.EIO, "dead disk")] * 9, tiles[1]: [PermissionError("no")]})
    report = pulled(tmp_path / "tiles")
    assert (report.done, report.failed, report.elsewhere) == (1, 2, 0)
    assert taken == {tiles[0]: 3, tiles[1]: 1, tiles[2]: 1}
    assert ledger(lake) == {tiles[0]: ("failed", 2), tiles[1]: ("failed", 0), tiles[2]: ("done", 0)}
    assert [(loss.name, loss.status) for loss in report.losses] == [(tiles[1], "failed"), (tiles[0], "failed")]
    monkeypatch.undo()
    assert pulled(tmp_path / "tiles").done == 2


def test_an_error_of_no_tile_ends_its_batch_and_what_is_done_is_told(
    lake: Lake, tmp_path: Path, tiles: list[str], pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = failing(monkeypatch, {tiles[1]: [MemoryError("too large")] * 9})
    report = pulled(tmp_path / "tiles")
    assert (report.done, report.failed, report.elsewhere) == (1, 2, 0)
    assert taken == {tiles[0]: 1, tiles[1]: 1}
    assert {name: status for name, (status, _) in ledger(lake).items()} == {
        tiles[0]: "done",
        tiles[1]: "failed",
        tiles[2]: "failed",
    }
    assert all("too large" in reason for reason in report.reasons)


def test_a_tile_that_takes_too_long_does_not_keep_the_others(
    lake: Lake, tmp_path: Path, tiles: list[str], pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = failing(monkeypatch, {tiles[0]: [OutOfTime("longer than a task may take")] * 9})
    report = pulled(tmp_path / "tiles")
    assert (report.done, report.failed) == (2, 1)
    assert taken == {tiles[0]: 3, tiles[1]: 1, tiles[2]: 1}
    assert ledger(lake)[tiles[0]] == ("failed", 2)


def test_staged_files_that_are_gone_are_made_again(
    lake: Lake, tmp_path: Path, tiles: list[str], pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = failing(monkeypatch, {})
    commit, lost = virac_pull.commit, []

    def swept(catalog: Catalog, manifest: Any) -> Any:
        if not lost:
            lost.extend(Path(manifest.folder).glob("*.parquet"))
            lost[0].unlink()
        return commit(catalog, manifest)

    monkeypatch.setattr(virac_pull, "commit", swept)
    report = pulled(tmp_path / "tiles")
    assert (report.done, report.failed) == (3, 0)
    assert sorted(taken.values()) == [1, 1, 2]


def test_after_many_lost_batches_the_rest_is_not_tried(
    lake: Lake, tmp_path: Path, pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted(sandbox_virac.write_tiles(tmp_path / "tiles", 12, seed=3, **SMALL))
    monkeypatch.setattr(virac_run, "LIMITS", replace(virac_run.LIMITS, granules=1, give_up_after=3))
    taken = failing(monkeypatch, {name: [OSError(errno.EIO, "dead disk")] * 9 for name in names})
    report = pulled(tmp_path / "tiles", retries=0)
    assert report.failed == 12
    assert 3 <= taken.total() < 12
    assert sum("not asked: 3 batches" in reason for reason in report.reasons) == 12 - taken.total()


def test_eso_is_asked_again_and_by_so_many_at_a_time(
    lake: Lake, settings: Settings, tmp_path: Path, pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    tile = tmp_path / "n512_2500000.hdf5"
    sandbox_virac.write_tile(tile, nside=512, pixel=2_500_000, seed=4, **SMALL)
    folder = settings.cache_dir / "places"
    folder.mkdir(parents=True)
    with Sandbox() as box:
        service = eso.serve(box, [tile])
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__VIRAC", box.endpoints["virac"])
        with filelock.FileLock(folder / "eso-0.lock"), pytest.raises(LightlakeError, match="slot at eso"):
            pulled("eso:n512_2500000", archive_concurrency=1, turn_timeout_s=0.1)
        assert not service.queries
        box.fault(service.path, "status:503")
        report = pulled("eso:n512_2500000")
    assert (report.done, report.failed, report.retries) == (report.known, 0, 1)
    assert (report.requests or 0) > 2
    sandbox_virac.write_tiles(tmp_path / "tiles", 1, seed=5, **SMALL)
    with filelock.FileLock(folder / "eso-0.lock"):
        assert pulled(tmp_path / "tiles", archive_concurrency=1).done == 1, "files are nobody's service"


def test_the_command_needs_no_prefect(
    settings: Settings, tmp_path: Path, pulled: Pulled, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox_virac.write_tiles(tmp_path / "tiles", 2, seed=3, **SMALL)
    command = ["virac", str(tmp_path / "tiles"), "--lake", settings.url, "--local"]
    codes = []
    for content in (None, b"no tile"):
        if content:
            (tmp_path / "tiles" / "n1024_1.hdf5").write_bytes(content)
        with pytest.raises(SystemExit) as ended:
            main(command)
        codes.append(ended.value.code)
    assert codes == [0, 1]
    first, second = [line for line in capsys.readouterr().out.splitlines() if line.startswith("virac: ")]
    assert first.startswith("virac: 2 tiles done")
    assert second.startswith("virac: 1 of 1 tile REJECTED in 1 of 1 granule: n1024_1.hdf5: ")
    for wrong, what in (("--shard=2/2", "no shard 2/2"), ("--runner=dask", "needs Prefect")):
        with pytest.raises(SystemExit) as ended:
            main([*command, wrong])
        assert ended.value.code == 2
        assert what in capsys.readouterr().err


def test_a_commit_is_not_broken_off_by_the_clock() -> None:
    late: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: late.append(number))
    kept = signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with untimed():
            time.sleep(0.2)
            assert not late
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0, "it goes on from where it stood"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *kept)
