"""Compare the lake with LSDB, DuckDB and pandas, with the patterns of queries that LSDB's developers collect.

The patterns are those of https://github.com/astronomy-commons/lsdb/issues/1533: light curves of 1, 100 and 10,000
objects by id, a crossmatch of a million positions, fluxes per night and band, and what brightened by more than x.
``python -m benchmarks.peers`` makes 20 million rows of a ZTF-like archive as `benchmarks.lake` does, compacts them, and
exports them as a HATS collection. All sides answer from the same rows, on two cores:

- the lake: `light_curve` for five columns of targets, in order of the list, band and time; SQL; `lake.science.sky`;
  and lake_sql, SQL by the archive's ids for the same columns;
- duckdb: a glob of the lake's own compacted files; pairs on the sky by zones;
- pandas: the same files with columns= and filters=; pairs by astropy;
- lsdb, if --lsdb names a Python that has it: the collection that `lightlake export hats` writes, with its index by id;
  pairs of two catalogues that LSDB wrote.

Each side runs in a fresh process for each pattern, opens what it needs, and answers several questions; all files are in
the page cache. A question's time is the median after the first one. From scratch is a process that asks one question:
start of Python, imports, opening, the first answer. All answers must be the same. ``--quick`` takes fewer rows.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import match, peers_lsdb, peers_sides
from benchmarks.lake_rows import BANDS, EPOCHS, ROWS, SEED, SOURCES, commit_all, register, run_compact, stage_all
from benchmarks.lake_sides import warm
from benchmarks.measure import Run, fresh, print_result, print_table, use_cores

CORES = 2
RADIUS_ARCSEC = match.RADIUS_ARCSEC
MARGIN_ARCSEC = 10.0
# Measurements of the last 30 days of the survey are new, and brighter by more than 0.2 mag than the earlier mean.
SINCE_MJD, BRIGHTER_MAG = 60_870.0, 0.2
PEERS = ("lake_sql", "lsdb", "duckdb", "pandas")


@dataclass(frozen=True)
class Size:
    """The size of a run.

    Parameters
    ----------
    granules
        Granules of the lake, of `lake_rows.ROWS` rows.
    by_id
        For how many objects light curves are asked.
    positions
        Positions of each of the two catalogues.
    turns
        Questions after the first one.
    """

    granules: int
    by_id: tuple[int, ...]
    positions: int
    turns: int


FULL = Size(2000, (1, 100, 10_000), 1_000_000, 5)
QUICK = Size(105, (1, 100, 10_000), 100_000, 3)


@dataclass(frozen=True)
class Pattern:
    """A pattern of queries: its kind, what it is, and the questions."""

    kind: str
    title: str
    questions: list[dict[str, Any]]


@dataclass(frozen=True)
class Timed:
    """The cost of a side: seconds of a question, and of a process that asks one; the share of its answer in that."""

    question_s: float
    question_cpu_s: float
    scratch_s: float
    share: float
    peak_rss_mb: float


# The columns of the answers, and how many of them say which row it is.
ANSWERS: dict[str, tuple[pa.Schema, int]] = {
    "by_id": (
        pa.schema({"source_id": "string", "band": "string", "mjd": "double", "flux": "double", "flux_err": "double"}),
        3,
    ),
    "crossmatch": (pa.schema({"first": "int64", "second": "int64"}), 2),
    "per_night": (pa.schema({"night": "int64", "band": "string", "n": "int64", "flux": "double"}), 2),
    "brightened": (pa.schema({"source_id": "string", "band": "string", "earlier": "double", "newest": "double"}), 2),
}

# Runs a function of a module with arguments, as `fresh` does.
Call = Callable[..., Run]


def export(url: str, to: str) -> int:
    """Export a lake as a HATS collection; return the number of its partitions."""
    from lake.export.hats import export_collection
    from lake.query import Lake

    with Lake(url) as lake:
        return export_collection(lake, to, margin_arcsec=MARGIN_ARCSEC).partitions


def build(folder: str, size: Size, call: Call, lsdb: str | None) -> list[tuple[str, float, float | None, float | None]]:
    """Make all data in a folder; return name, seconds, peak memory and MB on disk of each stage."""
    url, granules = peers_sides.lake_url(folder), size.granules
    stages: list[tuple[str, Callable[..., Any], tuple[Any, ...], str | None]] = [
        ("register targets", register, (url, granules), None),
        ("generate and stage granules", stage_all, (url, granules), "lake/staging"),
        ("commit them", commit_all, (url, granules), "lake/data"),
        ("compact", run_compact, (url,), "lake/data"),
        ("two catalogues of positions", match.write_catalogues, (folder, size.positions), "*.parquet"),
    ]
    if lsdb:
        stages += [
            ("export as HATS", export, (url, f"{folder}/collection"), "collection"),
            ("positions as HATS, by lsdb", peers_lsdb.write_catalogues, (folder, MARGIN_ARCSEC), "*-hats"),
        ]
    done = []
    for name, function, arguments, made in stages:
        of_lsdb = {"python": lsdb} if function is peers_lsdb.write_catalogues else {}
        run = call(function, *arguments, **of_lsdb)
        # Granules are staged by processes of their own, whose memory is not seen.
        peak = None if function is stage_all else run.peak_rss_mb
        done.append((name, run.seconds, peak, _megabytes(folder, made) if made else None))
    return done


def _megabytes(folder: str, pattern: str) -> float:
    found = [path for one in Path(folder).glob(pattern) for path in (one, *one.rglob("*"))]
    return sum(path.stat().st_size for path in found if path.is_file()) / 1e6


def patterns(folder: str, size: Size) -> dict[str, Pattern]:
    """Return the questions of each pattern, by its name in the result."""
    from lake.query import Lake

    with Lake(peers_sides.lake_url(folder)) as lake:
        known = lake.sql("SELECT target_id, source_id FROM matches ORDER BY ALL")
    rng = np.random.default_rng(SEED + 3)
    asked = 1 + size.turns
    found = {
        f"by_id_{n}": Pattern(
            "by_id",
            f"light curves of {n:,} of {known.num_rows:,} objects by id",
            [known.take(rng.choice(known.num_rows, n, replace=False)).to_pydict() for _ in range(asked)],
        )
        for n in size.by_id
    }
    within = {"radius_arcsec": RADIUS_ARCSEC}
    newest = {"since": SINCE_MJD, "factor": 10 ** (0.4 * BRIGHTER_MAG)}
    return found | {
        "crossmatch": Pattern(
            "crossmatch",
            f"all pairs within {RADIUS_ARCSEC:g} arcsec of {size.positions:,} positions with as many, from files",
            [within] * asked,
        ),
        "per_night": Pattern("per_night", "mean flux and number of measurements by night and band", [{}] * asked),
        "brightened": Pattern(
            "brightened",
            f"objects and bands whose mean flux since MJD {SINCE_MJD:g} is more than {BRIGHTER_MAG:g} mag above the "
            "earlier mean, good measurements only",
            [newest] * asked,
        ),
    }


def ask_all(folder: str, name: str, pattern: Pattern, call: Call, lsdb: str | None) -> dict[str, Timed]:
    """Ask all sides the questions of a pattern, and compare the last answers with the lake's.

    Raises
    ------
    RuntimeError
        If a side's answer differs.
    """
    timed = {}
    expected = None
    for side in ("lake", *PEERS):
        to = f"{folder}/answer-{name}-{side}.parquet"
        given = (pattern.kind, folder, pattern.questions, to)
        if side == "lsdb":
            if not lsdb:
                continue
            run = call(peers_lsdb.ask, *given, python=lsdb)
        elif pattern.kind in peers_sides.SIDES[side]:
            run = call(peers_sides.ask, side, *given)
        else:
            continue
        answer = canonical(pattern.kind, pq.read_table(to))
        expected = expected or answer
        check_same(f"{name}, {side}", expected, answer, ANSWERS[pattern.kind][1])
        times = run.value
        scratch = run.wall_s - run.seconds + times["open_s"] + times["first_s"]
        timed[side] = Timed(
            times["question_s"], times["question_cpu_s"], scratch, times["first_s"] / scratch, run.peak_rss_mb
        )
    return timed


def canonical(kind: str, found: pa.Table) -> pa.Table:
    """Return an answer with its columns in order, of the same types on all sides, and its rows sorted."""
    schema, _ = ANSWERS[kind]
    table = pa.table([found[name].cast(schema.field(name).type) for name in schema.names], schema=schema)
    return table.sort_by([(name, "ascending") for name in schema.names]).combine_chunks()


def check_same(what: str, expected: pa.Table, found: pa.Table, keys: int) -> None:
    """Compare two answers: keys and counts must be equal, and means up to the order in which they are summed.

    Raises
    ------
    RuntimeError
        If they differ, or there is nothing to compare.
    """
    if not expected.num_rows or expected.num_rows != found.num_rows:
        raise RuntimeError(f"{what}: {found.num_rows} rows, not {expected.num_rows}")
    for number, name in enumerate(expected.column_names):
        one, other = expected[name], found[name]
        if number < keys or not pa.types.is_floating(one.type):
            same = one.equals(other)
        else:
            same = np.allclose(one.to_numpy(), other.to_numpy(), rtol=1e-9, atol=0, equal_nan=True)
        if not same:
            raise RuntimeError(f"{what}: column {name} is not the lake's")


def ratios(timed: Mapping[str, Mapping[str, Timed]]) -> dict[str, float | None]:
    """Return a peer's seconds over the lake's for each pattern: open, the same by processor time, and from scratch."""
    result: dict[str, float | None] = {}
    for name, sides in timed.items():
        lake = sides["lake"]
        result |= {f"{name}_s": lake.question_s, f"{name}_scratch_s": lake.scratch_s}
        for peer in PEERS:
            if peer == "lake_sql" and peer not in sides:
                continue
            side = sides.get(peer)
            result[f"{name}_vs_{peer}"] = side.question_s / lake.question_s if side else None
            result[f"{name}_cpu_vs_{peer}"] = side.question_cpu_s / lake.question_cpu_s if side else None
            result[f"{name}_scratch_vs_{peer}"] = side.scratch_s / lake.scratch_s if side else None
    return result


def _print_sides(pattern: Pattern, sides: Mapping[str, Timed]) -> None:
    lake = sides["lake"]
    print_table(
        f"{pattern.title}; median of {len(pattern.questions) - 1}",
        (
            "side",
            "s",
            "times the lake",
            "CPU s",
            "times the lake",
            "from scratch, s",
            "times the lake",
            "share of the answer",
            "peak RSS, MB",
        ),
        [
            (
                name,
                one.question_s,
                one.question_s / lake.question_s,
                one.question_cpu_s,
                one.question_cpu_s / lake.question_cpu_s,
                one.scratch_s,
                one.scratch_s / lake.scratch_s,
                f"{one.share:.0%}",
                one.peak_rss_mb,
            )
            for name, one in sides.items()
        ],
    )


def _print_stages(size: Size, stages: Sequence[tuple[str, float, float | None, float | None]]) -> None:
    total = sum(seconds for _, seconds, _, _ in stages)
    print_table(
        f"{size.granules * ROWS:,} rows of {size.granules * SOURCES:,} objects, {len(BANDS)} bands of {EPOCHS} epochs",
        ("stage", "s", "share", "peak RSS, MB", "MB on disk"),
        [(name, seconds, f"{seconds / total:.0%}", peak, disk) for name, seconds, peak, disk in stages],
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK.granules * ROWS:,} rows and {QUICK.positions:,} positions"
    )
    parser.add_argument("--lsdb", metavar="PYTHON", help="a Python that has lsdb")
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    use_cores(CORES)
    started = time.perf_counter()
    versions = {name: version(name) for name in ("duckdb", "pandas", "pyarrow", "numpy", "astropy")}
    with tempfile.TemporaryDirectory(prefix="lightlake-benchmark-") as folder:
        stages = build(folder, size, fresh, given.lsdb)
        if given.lsdb:
            versions["lsdb"] = fresh(peers_lsdb.lsdb_version, python=given.lsdb).value
        print(f"Python {platform.python_version()}, {', '.join(f'{name} {one}' for name, one in versions.items())}")
        print(f"{CORES} cores, load {os.getloadavg()[0]:.1f}")
        _print_stages(size, stages)
        asked = patterns(folder, size)
        warm({"all": folder})
        timed = {}
        for name, pattern in asked.items():
            timed[name] = ask_all(folder, name, pattern, fresh, given.lsdb)
            _print_sides(pattern, timed[name])
    print_result(
        {
            **ratios(timed),
            "rows": size.granules * ROWS,
            "objects": size.granules * SOURCES,
            "positions": size.positions,
            "versions": versions,
            "load": os.getloadavg()[0],
            "total_s": time.perf_counter() - started,
        }
    )


if __name__ == "__main__":
    main()
