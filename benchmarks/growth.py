"""Measure what a pull costs as the sample grows, and extrapolate to 500,000 targets.

Each size is pulled from simulated archives in a fresh process. Measured are processor time, requests and bytes at the
archive, rows, bytes of Parquet, memory, granules and time of commits. Archives in buckets are read over S3, with
targets all over the sky and as many in one field, because their cost depends on the partitions that the targets touch.
The HCV's cost depends on how close together targets are: they lie as densely as the quasars of the SDSS. Lines through
the smaller sizes predict the largest one, and the error is printed. Times of real services are assumptions, named in
`PUBLISHED` and `sites`. `--markdown` prints the table of docs/how-to/cluster.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks import served
from benchmarks.measure import fresh, print_result, print_table

TARGETS = 500_000
QUANTITIES = ("cpu_s", "commit_s", "requests", "bytes", "granules", "n_rows", "parquet_bytes")
# Whole granules, where granules have a size: a part of one costs as much.
SIZES: Mapping[str, tuple[int, ...]] = {
    "icecube": (5_000, 10_000, 40_000),
    "gaia": (2_000, 6_000, 16_000),
    "fermigtrig": (10_000, 20_000, 40_000),
    "ztf": (125, 500, 2_000),
    "wise": (125, 500, 2_000),
    "panstarrs": (125, 500, 2_000),
    "hcv": (100, 400, 1_600),
    "tess_kepler": (400, 600, 800),
}
SPREADS: Mapping[str, tuple[str, ...]] = {**dict.fromkeys(served.IN_BUCKETS, ("sky", "field")), "hcv": ("survey",)}
QUICK_SIZES: Mapping[str, tuple[int, ...]] = {"gaia": (250, 500, 1_000), "wise": (20, 40, 80)}


@dataclass(frozen=True)
class Sample:
    """One measured pull.

    Parameters
    ----------
    n, partitions
        Targets, and opened partitions of the archive's catalogue.
    costs
        Costs by the names of QUANTITIES.
    wall_s, peak_mb
        Time, and peak of the process's memory.
    kinds
        Requests by the part of a service that answered them.
    """

    n: int
    partitions: int
    costs: Mapping[str, float]
    wall_s: float
    peak_mb: float
    kinds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """A cost as it grows: fixed, and for each target and partition."""

    fixed: float
    per_target: float
    per_partition: float

    def at(self, n: float, partitions: float) -> float:
        """Return the cost of n targets in so many partitions."""
        return self.fixed + self.per_target * n + self.per_partition * partitions


@dataclass(frozen=True)
class Published:
    """What is known of a real archive, in addition to the simulation.

    Parameters
    ----------
    partitions
        All partitions, or 0. Those that a sample touches are read once.
    share
        Share of the partitions that a sample of 500,000 touches.
    partition_mb
        Bytes read of a partition.
    partition_s, target_s, found_s, request_s
        Time of the archive for a partition, for a target, in addition for one that has data, and for a request, without
        other users.
    at_once
        Requests that a task has under way at the same time.
    source
        Where the values are from.
    """

    source: str
    partitions: int = 0
    share: float = 1.0
    partition_mb: float = 0.0
    partition_s: float = 0.0
    target_s: float = 0.0
    found_s: float = 0.0
    request_s: float = 0.0
    at_once: int = 1


@dataclass(frozen=True)
class Site:
    """A place where Lightlake runs. Every number except the settings is an assumption.

    Parameters
    ----------
    cores
        Cores that fetch.
    services, buckets
        Tasks at the same time at a service (LIGHTLAKE_ARCHIVE_CONCURRENCY), and at a public bucket.
    latency_s, mb_per_s
        Latency of a request, and bandwidth of one connection.
    granule_s
        Extra time of a granule's commit, compared with a local disk.
    """

    name: str
    cores: int
    services: int
    buckets: int
    latency_s: float
    mb_per_s: float
    granule_s: float = 0.0


@dataclass(frozen=True)
class Load:
    """The work of a pull, independent of the site."""

    cpu_s: float
    requests: float
    mb: float
    service_s: float
    commit_s: float
    granules: float
    in_bucket: bool
    at_once: int = 1
    request_s: float = 0.0


_COLLECTOR = "the published collector's run of 498,877 targets, one request after the other"
_LIKE_WISE = "not published; assumed as for wise"
PUBLISHED: Mapping[str, Published] = {
    "icecube": Published("one file of 35 MB, read once"),
    "gaia": Published(f"{_COLLECTOR}: 30 min 38 s", target_s=1838 / 498_877),
    "fermigtrig": Published(f"{_COLLECTOR}: 354.9 s", target_s=354.9 / 498_877),
    "wise": Published(
        f"{_COLLECTOR}: 3,813 of 12,288 partitions, 2.29 s each",
        partitions=12_288,
        share=3_813 / 12_288,
        partition_mb=10,
        partition_s=2.29,
    ),
    "ztf": Published(_LIKE_WISE, partitions=12_288, share=3_813 / 12_288, partition_mb=10, partition_s=2.29),
    "panstarrs": Published(
        f"83,000 tasks of the published collector for all partitions of both catalogues; the rest {_LIKE_WISE}",
        partitions=83_000,
        share=3_813 / 12_288,
        partition_mb=10,
        partition_s=2.29,
    ),
    "hcv": Published("not published; assumed 0.2 s a request, three at a time", request_s=0.2, at_once=3),
    "tess_kepler": Published(
        "MAST's TAP took 9 s for a query of 50 stars with all of their rows, and 1.6 s for one star (Fabmat1/ASTRA, "
        "MastArchiveClient.cpp), so 1.45 s a query and 0.15 s a star; a task downloads four files at a time",
        target_s=(1.6 - 7.4 / 49) / 50,
        found_s=7.4 / 49,
        at_once=4,
    ),
}


def sites(jobs: int) -> tuple[Site, ...]:
    """Return a machine with the default settings, a cluster of n jobs, and n jobs in the buckets' region."""
    return (
        Site("1 machine", cores=4, services=4, buckets=4, latency_s=0.15, mb_per_s=3.0),
        Site("1 cluster", cores=jobs, services=4, buckets=jobs, latency_s=0.15, mb_per_s=10.0),
        Site("1 cloud account", cores=jobs, services=4, buckets=jobs, latency_s=0.03, mb_per_s=50.0, granule_s=0.3),
    )


def fit(samples: Sequence[Sample], quantity: str) -> Line:
    """Fit a line to the measurements by relative errors, without negative costs."""
    partitioned = any(sample.partitions for sample in samples)
    sides = np.array([[1.0, one.n, one.partitions if partitioned else 0.0] for one in samples])
    values = np.array([float(one.costs[quantity]) for one in samples])
    weights = 1 / np.maximum(values, 1e-9 + values.max(initial=0.0) * 1e-6)
    scale = np.maximum(np.abs(sides).max(axis=0), 1.0)
    found, _ = nnls(sides * weights[:, None] / scale, values * weights)
    return Line(*(found / scale).tolist())


def touched(n: int, partitions: int) -> float:
    """Return the expected number of partitions that n random targets touch; it saturates."""
    return partitions * -np.expm1(n * np.log1p(-1 / partitions)) if partitions > 1 else float(partitions and n > 0)


def load_of(lines: Mapping[str, Line], published: Published, n: int, share: float = 1.0) -> Load:
    """Extrapolate the work of a pull of n targets, of which a share has data, from a real archive."""
    parts = touched(n, round(published.partitions * published.share))
    cost = {name: line.at(n, parts) for name, line in lines.items()}
    return Load(
        cpu_s=cost["cpu_s"],
        requests=cost["requests"],
        mb=parts * published.partition_mb if published.partitions else cost["bytes"] / 1e6,
        service_s=n * (published.target_s + share * published.found_s) + parts * published.partition_s,
        commit_s=cost["commit_s"],
        granules=cost["granules"],
        in_bucket=published.partitions > 0,
        at_once=published.at_once,
        request_s=published.request_s,
    )


def hours(load: Load, site: Site) -> float:
    """Return the duration in hours: the longer of computing and waiting, plus the commits, one at a time.

    Several tasks use an archive at the same time; work that waits for the network gains nothing from more cores.
    """
    at_once = site.buckets if load.in_bucket else site.services
    a_request = site.latency_s + load.request_s
    waiting = (load.requests * a_request + load.mb / site.mb_per_s) / load.at_once + load.service_s
    commits = load.commit_s + load.granules * site.granule_s
    return (max(load.cpu_s / site.cores, waiting / at_once) + commits) / 3600


def memory_gb(base_mb: float, peak_mb: float, at_once: int) -> float:
    """Return the memory of a process that fetches several granules at once: an idle one, plus each granule's share."""
    return (base_mb + at_once * max(peak_mb - base_mb, 0.0)) / 1e3


def idle(url: str) -> int:
    """Open a lake and do nothing else."""
    return len(served.new_lake(url, "icecube", 10, "sky")[0].sql("FROM targets"))


def measured(archive: str, sizes: Sequence[int], spread: str, folder: Path, share: float = 1.0) -> list[Sample]:
    """Pull an archive at each size, with data at a share of the targets."""
    samples = []
    targets = served.positions(max(sizes), spread)[:: round(1 / share)]
    with served.serving(folder / f"{archive}-{spread}", [served.service_of(archive)], targets) as box:
        for n in sizes:
            box.counts()
            # A first pull has nothing in its cache.
            os.environ["LIGHTLAKE_CACHE_DIR"] = f"{folder}/cache-{archive}-{spread}-{n}"
            run = fresh(served.pull, f"{folder}/lake-{archive}-{spread}-{n}", archive, n, spread)
            seen, value = box.counts(), run.value
            # A commit is processor work, too, but it is not shared between workers.
            costs = {
                **{name: float(value[name]) for name in QUANTITIES if name in value},
                "cpu_s": max(value["cpu_s"] - value["commit_cpu_s"], 0.0),
                "requests": float(seen.requests),
                "bytes": float(seen.bytes),
            }
            samples.append(Sample(value["n"], seen.partitions, costs, value["wall_s"], run.peak_rss_mb, seen.kinds))
    return samples


def errors(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the error in percent of the prediction for the largest sizes, by quantity."""
    largest = max(sample.n for sample in samples)
    smaller = [sample for sample in samples if sample.n < largest]
    off = {}
    for name in QUANTITIES:
        line = fit(smaller, name)
        pairs = [(line.at(one.n, one.partitions), one.costs[name]) for one in samples if one.n == largest]
        off[name] = max((100 * abs(guess / real - 1) for guess, real in pairs if real), default=0.0)
    return off


def requests_by_kind(samples: Sequence[Sample], published: Published, n: int) -> dict[str, float]:
    """Extrapolate the requests of n targets, by the part of the service that answers them."""
    parts = touched(n, round(published.partitions * published.share))
    kinds = sorted({kind for one in samples for kind in one.kinds})
    counted = {
        kind: [replace(one, costs={"requests": float(one.kinds.get(kind, 0))}) for one in samples] for kind in kinds
    }
    return {kind: fit(of_kind, "requests").at(n, parts) for kind, of_kind in counted.items()}


def markdown(loads: Mapping[str, Load], gb: Mapping[str, tuple[float, float]], at: Sequence[Site], sizes: str) -> str:
    """Write the table of docs/how-to/cluster.md."""
    columns = ["archive", "requests", "GB read", *(f"hours, {one.name}" for one in at), "GB, 1 machine", "GB, a job"]
    lines = [
        f"Measured at n = {sizes}; extrapolated to {TARGETS:,} targets.",
        "",
        f"| {' | '.join(columns)} |",
        "|" + "---|" * len(columns),
    ]
    for name, load in loads.items():
        cells = [f"{load.requests:,.0f}", f"{load.mb / 1e3:,.1f}", *(f"{hours(load, one):,.1f}" for one in at)]
        lines.append(f"| {name} | {' | '.join([*cells, *(f'{one:.1f}' for one in gb[name])])} |")
    return "\n".join(lines)


def _row(name: str, spread: str, one: Sample) -> tuple[Any, ...]:
    costs = one.costs
    return (
        f"{name}, {spread}",
        one.n,
        one.partitions,
        int(costs["granules"]),
        one.wall_s,
        costs["cpu_s"],
        costs["commit_s"],
        int(costs["requests"]),
        costs["bytes"] / 1e6,
        int(costs["n_rows"]),
        costs["parquet_bytes"] / 1e6,
        one.peak_mb,
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="two archives, a thousand targets at most")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/how-to/cluster.md, too")
    parser.add_argument("--archives", nargs="+", choices=list(SIZES), help="only these; default: all")
    parser.add_argument("--share", type=float, default=1.0, help="of the targets, so many have data; default: all")
    parser.add_argument("--jobs", type=int, default=16, help="jobs of the cluster")
    given = parser.parse_args()
    started, load = time.perf_counter(), os.getloadavg()[0]
    rows, off, loads, memory, kinds = [], {}, {}, {}, []
    at = sites(given.jobs)
    chosen = QUICK_SIZES if given.quick else SIZES
    if given.archives:
        chosen = {name: sizes for name, sizes in chosen.items() if name in given.archives}
    with tempfile.TemporaryDirectory(prefix="lightlake-benchmark-") as name:
        folder = Path(name)
        base_mb = fresh(idle, f"{folder}/idle").peak_rss_mb
        for archive, sizes in chosen.items():
            samples = []
            for spread in SPREADS.get(archive, ("sky",)):
                part = measured(archive, sizes, spread, folder, given.share)
                rows += [_row(archive, spread, one) for one in part]
                samples += part
            off[archive] = errors(samples)
            lines = {one: fit(samples, one) for one in QUANTITIES}
            loads[archive] = load_of(lines, PUBLISHED[archive], TARGETS, given.share)
            by_kind = requests_by_kind(samples, PUBLISHED[archive], TARGETS)
            kinds += [(archive, kind, samples[-1].n, samples[-1].kinds.get(kind, 0), by_kind[kind]) for kind in by_kind]
            peak = max(sample.peak_mb for sample in samples)
            memory[archive] = (memory_gb(base_mb, peak, at[0].services), memory_gb(base_mb, peak, 1))
    print_table(
        "Pulls in fresh processes",
        (
            "archive",
            "n",
            "partitions",
            "granules",
            "wall s",
            "CPU s",
            "commit s",
            "requests",
            "MB",
            "rows",
            "Parquet MB",
            "peak RSS (MB)",
        ),
        rows,
    )
    print_table(
        "The largest size predicted from the smaller ones: error in percent",
        ("archive", *QUANTITIES),
        [(archive, *one.values()) for archive, one in off.items()],
    )
    print_table(
        f"Requests by what answers them, and extrapolated to {TARGETS:,} targets",
        ("archive", "part of the service", "n", "requests", f"of {TARGETS:,}"),
        [(*one, int(extrapolated)) for *one, extrapolated in kinds],
    )
    print_table(
        f"{TARGETS:,} targets, extrapolated",
        ("archive", "CPU h", "requests", "GB", "service h", "commit h", *(f"h, {site.name}" for site in at)),
        [
            (
                name,
                one.cpu_s / 3600,
                int(one.requests),
                one.mb / 1e3,
                one.service_s / 3600,
                one.commit_s / 3600,
                *(hours(one, site) for site in at),
            )
            for name, one in loads.items()
        ],
    )
    print("\nAssumptions, except for the measurements above:")
    for site in at:
        print(", ".join(f"{name} {value}" for name, value in vars(site).items()))
    for archive in loads:
        print(f"{archive}: {PUBLISHED[archive].source}")
    if given.markdown:
        largest = "; ".join(f"{name} {', '.join(f'{n:,}' for n in sizes)}" for name, sizes in chosen.items())
        print(f"\n{markdown(loads, memory, at, largest)}")
    print_result(
        {
            **{f"hours_{name}": hours(one, at[0]) for name, one in loads.items()},
            "worst_error_percent": {name: round(max(one.values()), 1) for name, one in off.items()},
            "jobs": given.jobs,
            "share": given.share,
            "quick": given.quick,
            "load_average": f"{load:.1f} to {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
            "total_s": time.perf_counter() - started,
        }
    )


if __name__ == "__main__":
    main()
