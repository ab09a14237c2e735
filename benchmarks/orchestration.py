"""Measure what Prefect costs: seconds per granule for 10 to 10,000 granules, on threads, processes and Dask.

Granules without work go through the engine and its runner of Prefect tasks: one per task, and as many per task as in
the flows. A Prefect server runs meanwhile, as in a service. Then archives are pulled, and VIRAC tiles and RXTE
observations extracted, by plain function calls in one process. The work of a task is compared with what a task costs
its worker. Finally the flow and plain calls do the same work, each in a fresh process with one worker.

On processes and Dask a task takes some 0.1 s, so sizes of too many tasks are left out there unless `--unbatched` is
given, which takes half an hour more. The start of a runner is listed separately: a run pays it once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import fresh, print_result, print_table
from benchmarks.prefect_server import prefect_server
from benchmarks.served import IN_BUCKETS, new_lake, positions, pull, service_of, serving

RUNNERS = ("threads", "processes", "dask")
SIZES, QUICK_SIZES = (10, 100, 1_000, 10_000), (10, 100)
WORKERS, TASKS_OF_ONE_WORKER, GOAL_PERCENT = 2, 20, 5.0

# Granules per task: one, and as many as VIRAC's tiles, RXTE's observations, and granules of a pull.
BATCHINGS = ("one", "tiles", "observations", "pull")
# Most tasks of a size, unless --unbatched is given.
MOST_TASKS = {"threads": 10_000, "processes": 1_000, "dask": 1_000}

# Targets of the archives, those of buckets in one field: one or two tasks of full granules.
TARGETS = {
    "gaia": 8_000,
    "icecube": 20_000,
    "fermigtrig": 40_000,
    "ztf": 1_000,
    "wise": 8_000,
    "panstarrs": 4_000,
    "hcv": 400,
    "tess_kepler": 80,
}
QUICK_TARGETS = {"gaia": 2_000}
TILES, QUICK_TILES, OBSERVATIONS, QUICK_OBSERVATIONS = (8, 8_000), (2, 2_000), 2_000, 500


@dataclass(frozen=True)
class Work:
    """Time of granules without Prefect, one after the other in one process, and the tasks that they would need."""

    granules: int
    tasks: int
    seconds: float

    def percent(self, task_s: float) -> float:
        """Return the cost of their tasks in percent of the work."""
        return 100.0 * task_s * self.tasks / self.seconds


def batched(n: int, batching: str) -> list[int]:
    """Return the number of granules in each task for n granules, as in the flows."""
    size = 1
    if batching == "tiles":
        from tasks.sources.virac.pieces import TileFile
        from tasks.sources.virac.source import batched as batched_tiles

        return [len(batch) for batch in batched_tiles([TileFile("", str(number), 1, "") for number in range(n)])]
    if batching == "observations":
        from tasks.sources.rxte.observations import TOGETHER

        size = TOGETHER["products"]
    elif batching == "pull":
        from tasks.sources.base import Limits

        size = Limits().granules
    return [min(size, n - first) for first in range(0, n, size)]


@dataclass(frozen=True)
class Number:
    """A batch without work."""

    number: int
    size: int = 0

    @property
    def title(self) -> str:
        """Return its number."""
        return str(self.number)


@dataclass
class EmptySource:
    """A source without content: batches are numbers; the workers commit those of tiles."""

    commits: bool
    name: str = "nothing"
    what: str = "granules"
    endpoint: str = ""

    @property
    def limits(self) -> Any:
        """Return the usual limits."""
        from tasks.sources.base import Limits

        return Limits()

    @property
    def fetch(self) -> Callable[[Number, bool], Any]:
        """Return a function that does nothing."""
        return _staged if self.commits else _done

    def mark_failed(self, batch: Number, error: BaseException) -> Any:
        """Raise the error."""
        raise error

    def commit(self, url: str, fetched: Sequence[Any]) -> list[Any]:
        """Commit nothing."""
        return [[] for _ in fetched]


def _staged(batch: Number, last_try: bool) -> list[Any]:
    return []


def _done(batch: Number, last_try: bool) -> Any:
    from tasks.sources.protocol import Done

    return Done([])


def overhead(runner: str, workers: int, batching: str, sizes: Sequence[int], folder: str) -> dict[str, Any]:
    """Run granules without work; return seconds until the first tasks have run, then for each size."""
    import flows  # noqa: F401  # its settings come before Prefect is imported

    os.environ["LIGHTLAKE_URL"] = url = f"{folder}/nothing"
    from prefect import flow, get_run_logger

    from flows.report import Watch
    from flows.runners import PrefectRunner
    from lake.settings import load_settings
    from tasks.pull import lake_at
    from tasks.pull.driver import Driver, Run
    from tasks.pull.report import PullReport

    settings = load_settings(runner=runner, workers=workers)

    @flow(name="nothing")
    def measured() -> dict[str, Any]:
        begun = time.perf_counter()
        with Watch(get_run_logger()) as watch, PrefectRunner(settings, workers) as runs:
            run = Run(lake_at(url), runs, get_run_logger(), "nothing", "the benchmark", watch, settings)
            watch.begin("nothing", 1)

            def through(n_tasks: int) -> float:
                started = time.perf_counter()
                source: Any = EmptySource(batching in ("pull", "observations"))
                driver = Driver(run, source, PullReport("nothing", "", "granules"))
                run.alone(lambda: driver.work_off(map(Number, range(n_tasks)), workers))
                return time.perf_counter() - started

            through(2 * workers)
            times: dict[str, Any] = {"start_s": time.perf_counter() - begun}
            for size in sizes:
                tasks = len(batched(size, batching))
                times[str(size)] = {"tasks": tasks, "seconds": through(tasks)}
        return times

    return measured()


def virac(url: str, tiles: str, runner: Any) -> dict[str, Any]:
    """Extract tiles, by plain calls or with a runner of one worker."""
    from lake.settings import load_settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage

    os.environ |= {"LIGHTLAKE_URL": url, "LIGHTLAKE_WORKERS": "1"}
    Catalog(Storage.from_url(url), load_settings(url=url)).create()
    from flows.virac import extract_virac
    from tasks.pull import lake_at
    from tasks.register import register_archive
    from tasks.sources.virac.pieces import find_tiles
    from tasks.sources.virac.source import Batch, batched, bring
    from tasks.sources.virac.tiles import ORIGIN, Selection

    found = find_tiles(tiles).found
    batches = [Batch(url, tuple(some), Selection()) for some in batched(found)]
    begun = time.perf_counter()
    if runner != "plain":
        extract_virac(tiles, url, runner=runner, retry_failed=True)  # there is none
    started = time.perf_counter()
    if runner == "plain":
        register_archive(lake_at(url), ORIGIN)
        done = [bring(batch, True) for batch in batches]
        failed: list[Any] = [one for some in done for one in some.receipts if one[1].status != "done" or some.rest]
    else:
        state = extract_virac(tiles, url, runner=runner, return_state=True)
        failed = [] if state.is_completed() else [state.message]
    seconds = time.perf_counter() - started
    if failed:
        raise RuntimeError(f"tiles failed: {failed}")
    return {"granules": len(found), "batches": len(batches), "work_s": seconds, "run_s": started - begun}


def rxte(url: str, mirror: str) -> dict[str, Any]:
    """Extract observations by plain calls."""
    import pyarrow as pa

    from deployments.sandbox.rxte import TARGETS as RXTE_TARGETS
    from lake.commit.targets import add_targets
    from lake.settings import load_settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from tasks.pull import lake_at
    from tasks.sources.rxte import observations as rxte_pull
    from tasks.sources.rxte.find import read_csv, select

    os.environ["LIGHTLAKE_ENDPOINTS__RXTE"] = f"{mirror}/mirror"
    catalog = Catalog(Storage.from_url(url), load_settings(url=url))
    catalog.create()
    names, ra, dec = zip(*RXTE_TARGETS, strict=True)
    add_targets(catalog, pa.table({"name": names, "ra": ra, "dec": dec}), "benchmark")
    catalog.close()
    opened, extraction = lake_at(url), rxte_pull.extraction_of("products")
    rxte_pull.register(opened, extraction)
    found = select(opened.sql("FROM targets"), read_csv(f"{mirror}/xtemaster.csv")).each()
    started = time.perf_counter()
    parts = list(rxte_pull.Part.each(url, opened.storage.staging / "benchmark", found, extraction, 1))
    for part in parts:
        rxte_pull.commit(url, rxte_pull.fetch(part, True))
    return {"granules": len(found), "batches": len(parts), "work_s": time.perf_counter() - started}


def by_flow(url: str, archive: str, n: int, spread: str) -> dict[str, Any]:
    """Pull an archive by its flow on one thread."""
    os.environ |= {"LIGHTLAKE_URL": url, "LIGHTLAKE_WORKERS": "1", "LIGHTLAKE_RUNNER": "threads"}
    from flows.pull import pull_archive
    from lake.settings import load_settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage

    empty = f"{url}-empty"
    Catalog(Storage.from_url(empty), load_settings(url=empty)).create()
    new_lake(url, archive, n, spread)
    begun = time.perf_counter()
    pull_archive(archive, lake=empty)
    started = time.perf_counter()
    state = pull_archive(archive, return_state=True)
    if not state.is_completed():
        raise RuntimeError(state.message)
    return {"work_s": time.perf_counter() - started, "run_s": started - begun}


def works(folder: Path, quick: bool) -> tuple[dict[str, Work], dict[str, tuple[float, float, float]]]:
    """Do the work of every archive and survey; return it, and for flows: an empty run, plain calls, the run."""
    done: dict[str, Work] = {}
    flows: dict[str, tuple[float, float, float]] = {}

    def noted(name: str, value: Mapping[str, Any]) -> Work:
        done[name] = Work(value["granules"], value["batches"], value["work_s"])
        return done[name]

    for name, n in (QUICK_TARGETS if quick else TARGETS).items():
        spread = "field" if name in IN_BUCKETS else "sky"
        with serving(folder / name, [service_of(name)], positions(n, spread)):
            plain = noted(name, fresh(pull, f"{folder}/lake-{name}", name, n, spread).value)
            if name == "gaia":
                run = fresh(by_flow, f"{folder}/flow-{name}", name, n, spread)
                flows["gaia, threads"] = (run.value["run_s"], plain.seconds, run.value["work_s"])
    tiles = str(_tiles(folder, *(QUICK_TILES if quick else TILES)))
    plain = noted("virac", fresh(virac, f"{folder}/lake-virac", tiles, "plain").value)
    for runner in RUNNERS[:1] if quick else RUNNERS[:2]:
        run = fresh(virac, f"{folder}/lake-virac-{runner}", tiles, runner)
        flows[f"virac, {runner}"] = (run.value["run_s"], plain.seconds, run.value["work_s"])
    with _mirror(folder / "rxte", QUICK_OBSERVATIONS if quick else OBSERVATIONS) as mirror:
        noted("rxte_pca", fresh(rxte, f"{folder}/lake-rxte", mirror).value)
    return done, flows


def _tiles(folder: Path, n: int, n_sources: int) -> Path:
    from deployments.sandbox.virac import RANGES, tile_name, write_tile

    where = folder / "tiles"
    where.mkdir()
    for number in range(n):
        pixel = RANGES[1024][0] + number
        write_tile(where / tile_name(1024, pixel), nside=1024, pixel=pixel, n_sources=n_sources, seed=number)
    return where


@contextmanager
def _mirror(folder: Path, n: int) -> Any:
    import pyarrow.csv as csv

    from deployments.sandbox.rxte import write_mirror, xtemaster

    rows = write_mirror(folder / "mirror", n_obsids=n, seed=1)
    csv.write_csv(xtemaster(rows).drop(["__row"]), folder / "xtemaster.csv")
    yield str(folder)


def empties(
    folder: Path, sizes: Sequence[int], runners: Sequence[str], batchings: Sequence[str], unbatched: bool
) -> dict[str, float]:
    """Print the cost of granules without work; return for each runner the cost of a task of tiles, and of a pull."""
    rows: list[tuple[object, ...]] = []
    tasks: dict[str, float] = {}
    for runner in runners:
        for batching in batchings:
            counts = {size: len(batched(size, batching)) for size in sizes}
            ours = [size for size in sizes if unbatched or counts[size] <= MOST_TASKS[runner]]
            times = fresh(overhead, runner, WORKERS, batching, ours, str(folder)).value
            each = [times[str(size)]["seconds"] / size if size in ours else None for size in sizes]
            last = times[str(ours[-1])]
            rows.append((runner, batching, times["start_s"], *each, last["seconds"] / last["tasks"]))
        for batching in ("one", "pull"):
            n = TASKS_OF_ONE_WORKER * batched(1_000, batching)[0]
            times = fresh(overhead, runner, 1, batching, [n], str(folder)).value
            tasks[f"{runner}, {'pull' if batching == 'pull' else 'tiles'}"] = (
                times[str(n)]["seconds"] / TASKS_OF_ONE_WORKER
            )
    columns = ("runner", "batches", "start (s)", *(f"n = {size:,}" for size in sizes), "s/task")
    print_table(f"Granules without work, {WORKERS} workers: seconds a granule", columns, rows)
    print_table("A task without work, one worker", ("runner", "seconds"), list(tasks.items()))
    return tasks


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="10 and 100 granules, little work, without Dask")
    parser.add_argument("--unbatched", action="store_true", help="all sizes on all runners, however many tasks")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends, too
    started, load = time.perf_counter(), os.getloadavg()[0]
    sizes, runners = (QUICK_SIZES, RUNNERS[:2]) if given.quick else (SIZES, RUNNERS)
    batchings = ("one", "pull") if given.quick else BATCHINGS
    with tempfile.TemporaryDirectory(prefix="lightlake-benchmark-") as name:
        folder = Path(name)
        with prefect_server(folder / "prefect"):
            from lake.settings import load_settings
            from lake.store.catalog import Catalog
            from lake.store.storage import Storage

            Catalog(Storage.from_url(f"{folder}/nothing"), load_settings(url=f"{folder}/nothing")).create()
            tasks = empties(folder, sizes, runners, batchings, given.unbatched)
            told, flows = works(folder, given.quick)
    percents = {
        (name, runner): work.percent(tasks[f"{runner}, {'tiles' if name == 'virac' else 'pull'}"])
        for name, work in told.items()
        for runner in runners
    }
    print_table(
        f"What a task costs, in percent of the work that it carries (goal: under {GOAL_PERCENT:g})",
        ("archive", "granules", "tasks", "s/granule", "s/task", *runners),
        [
            (
                name,
                work.granules,
                work.tasks,
                work.seconds / work.granules,
                work.seconds / work.tasks,
                *(percents[name, runner] for runner in runners),
            )
            for name, work in told.items()
        ],
    )
    print_table(
        "The flow beside plain calls, one worker; and a run that has nothing to do, the first of its process",
        ("work", "nothing (s)", "plain (s)", "flow (s)", "ratio"),
        [(name, *seconds, seconds[2] / seconds[1]) for name, seconds in flows.items()],
    )
    over = {f"{name}, {runner}": round(value, 2) for (name, runner), value in percents.items() if value > GOAL_PERCENT}
    result = {
        **{f"task_s_{name.replace(', ', '_')}": value for name, value in tasks.items()},
        **{f"flow_ratio_{name.replace(', ', '_')}": flow / plain for name, (_, plain, flow) in flows.items()},
        "worst_percent": max(percents.values()),
        "over_goal": over,
        "quick": given.quick,
        "load_average": f"{load:.1f} to {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        "total_s": time.perf_counter() - started,
    }
    print_result(result)


if __name__ == "__main__":
    main()
