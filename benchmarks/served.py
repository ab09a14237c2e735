"""Serve simulated archives over HTTP and S3, and count requests and bytes.

Archives that are folders here are public buckets in reality, so they are served as a bucket: a pull then makes the
requests that it makes on S3.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

import numpy as np
import pyarrow as pa

from deployments.sandbox.server import Handler, Request, Response, Sandbox

BUCKET = "archives"
IN_BUCKETS = ("ztf", "wise", "panstarrs")
SEED, SCALE = 20210126, 0.1
FIELD, FIELD_DEG = (150.0, 2.2), 3.0
# 500,000 targets in 10,000 square degrees, as quasars of the SDSS.
SURVEY_PER_DEG2, SURVEY_DEG = 50, 4.0


@dataclass(frozen=True)
class Counts:
    """Traffic of the archives.

    Parameters
    ----------
    requests, bytes
        Requests, and bytes of the answers' bodies.
    partitions
        Opened files of a partitioned catalogue.
    kinds
        Requests by the part of a service that answered them.
    """

    requests: int
    bytes: int
    partitions: int
    kinds: Mapping[str, int]


@dataclass(frozen=True)
class Served:
    """Archives while they are served."""

    box: Sandbox

    def counts(self) -> Counts:
        """Return the traffic since the last call."""
        seen, sent = list(self.box.requests), self.box.sent
        self.box.requests.clear()
        self.box.sent = 0
        files = {one.path.split("?")[0] for one in seen if one.path.split("?")[0].endswith(".parquet")}
        kinds = Counter(self.box.prefix_of(unquote(one.path.split("?")[0])) or "nothing" for one in seen)
        return Counts(len(seen), sent, len({file for file in files if "Npix" in file or "healpix" in file}), kinds)


def positions(n: int, spread: str) -> list[tuple[float, float]]:
    """Generate positions of n targets: over the `sky` north of -30 deg, in one `field` of six degrees, or a `survey`.

    A smaller n returns the first positions of a larger one.
    """
    rng = np.random.default_rng(SEED)
    u, v = rng.uniform(size=(2, 100_000))[:, :n]
    if spread == "sky":
        return list(zip((360 * u).tolist(), np.degrees(np.arcsin(-0.5 + 1.5 * v)).tolist(), strict=True))
    if spread == "survey":
        east = (np.arange(u.size) + u) / (SURVEY_PER_DEG2 * SURVEY_DEG) / np.cos(np.radians(FIELD[1]))
        return list(zip((FIELD[0] + east).tolist(), (FIELD[1] + SURVEY_DEG * (v - 0.5)).tolist(), strict=True))
    radius, angle = FIELD_DEG * np.sqrt(u), 2 * np.pi * v
    dec = FIELD[1] + radius * np.sin(angle)
    return list(zip((FIELD[0] + radius * np.cos(angle) / np.cos(np.radians(dec))).tolist(), dec.tolist(), strict=True))


@contextmanager
def serving(root: Path, archives: list[str], targets: list[tuple[float, float]]) -> Iterator[Served]:
    """Serve archives with data at every target (IceCube: at some), and set this process's environment."""
    scale = SCALE
    if "icecube" in archives:  # one file is read whole, with events all over the sky
        scale, targets = 1.0, targets[:1_000]
    with Sandbox.start(root, archives=archives, seed=SEED, scale=scale, targets=targets) as box:
        box.mount(f"/{BUCKET}", bucket(root))
        endpoints = {
            name: f"s3://{BUCKET}/{Path(url).relative_to(root)}" if name in IN_BUCKETS else url
            for name, url in box.endpoints.items()
        }
        values = {f"LIGHTLAKE_ENDPOINTS__{name.upper()}": url for name, url in endpoints.items()}
        values |= {"AWS_ENDPOINT_URL": box.url().rstrip("/"), "LIGHTLAKE_CACHE_DIR": str(root / "cache")}
        before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)
        try:
            yield Served(box)
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


@contextmanager
def serving_elsewhere(module: str, root: Path, *arguments: str) -> Iterator[dict[str, str]]:
    """Serve archives in a process of its own, so that it slows nothing here; yield the environment that leads to them.

    Parameters
    ----------
    module
        A benchmark that serves if these arguments say so, and writes the environment to environment.json.
    root
        Folder of that file.
    """
    file = root / "environment.json"
    file.unlink(missing_ok=True)
    server = subprocess.Popen([sys.executable, "-m", module, *arguments])
    try:
        while not file.exists():
            if server.poll() is not None:
                raise RuntimeError("the simulated archives ended")
            time.sleep(0.2)
        environment: dict[str, str] = json.loads(file.read_text())
        yield environment
    finally:
        server.terminate()
        server.wait()


def bucket(folder: Path) -> Handler:
    """Return a handler that serves a folder as an S3 bucket: objects, ranges, and lists."""

    def answer(request: Request) -> Response:
        key = request.path.removeprefix(f"/{BUCKET}").strip("/")
        parameters = {name: values[0] for name, values in parse_qs(request.query, keep_blank_values=True).items()}
        if request.method == "GET" and "list-type" in parameters:
            return Response(
                _listed(folder, parameters.get("prefix", ""), parameters.get("delimiter", "")), 200, "text/xml"
            )
        file = folder / key
        if file.is_file():
            return Response(file)
        return Response(b"<Error><Code>NoSuchKey</Code></Error>", 404, "text/xml")

    return answer


def _listed(folder: Path, prefix: str, delimiter: str) -> bytes:
    top = folder / prefix.rpartition("/")[0]
    found = sorted(file for file in top.rglob("*") if file.is_file()) if top.is_dir() else []
    keys = {file.relative_to(folder).as_posix(): file.stat().st_size for file in found}
    keys = {key: size for key, size in keys.items() if key.startswith(prefix)}
    common: set[str] = set()
    if delimiter:
        cut = {key: key[len(prefix) :].partition(delimiter) for key in keys}
        common = {prefix + head + mark for head, mark, _ in cut.values() if mark}
        keys = {key: size for key, size in keys.items() if not cut[key][1]}
    inside = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        "</Contents>"
        for key, size in keys.items()
    ) + "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(common))
    head = '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    count = f"<KeyCount>{len(keys) + len(common)}</KeyCount><IsTruncated>false</IsTruncated>"
    return f"{head}<Name>{BUCKET}</Name>{count}{inside}</ListBucketResult>".encode()


def pull(url: str, archive_name: str, n: int, spread: str) -> dict[str, Any]:
    """Pull an archive for n targets into a new lake by plain function calls in this process, and time the parts."""
    from tasks.pull import commit_batch, fetch_batch, lake_at, plan_batches
    from tasks.register import register_archive

    opened, archive = new_lake(url, archive_name, n, spread)
    started, cpu = time.perf_counter(), time.process_time()
    opened = lake_at(url)
    register_archive(opened, archive)
    work_s = commit_s = commit_cpu_s = 0.0
    batches = 0
    for batch in plan_batches(opened, archive, archive.with_defaults(None), None, opened.storage.staging / "pull"):
        begun = time.perf_counter()
        manifests = fetch_batch(batch)
        fetched, fetched_cpu = time.perf_counter(), time.process_time()
        commit_batch(url, manifests)
        work_s += time.perf_counter() - begun
        commit_s += time.perf_counter() - fetched
        commit_cpu_s += time.process_time() - fetched_cpu
        batches += 1
    times = {
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu,
        "work_s": work_s,
        "commit_s": commit_s,
        "commit_cpu_s": commit_cpu_s,
        "batches": batches,
    }
    return {**times, **in_lake(opened, archive_name)}


def new_lake(url: str, archive_name: str, n: int, spread: str) -> Any:
    """Make a lake with n targets; return it and the archive."""
    from lake.commit.targets import add_targets
    from lake.settings import load_settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from tasks.pull import lake_at
    from tasks.sources.registry import find

    catalog = Catalog(Storage.from_url(url), load_settings(url=url))
    catalog.create()
    ra, dec = zip(*positions(n, spread), strict=True)
    add_targets(catalog, pa.table({"ra": ra, "dec": dec}), spread)
    catalog.close()
    return lake_at(url), find(archive_name)


def in_lake(opened: Any, archive_name: str) -> dict[str, Any]:
    """Count what a pull has added; RuntimeError if a target has no answer."""
    answered = opened.sql(
        "SELECT count(*) AS n FROM coverage WHERE archive = ? AND status <> 'failed'", [archive_name]
    )["n"][0].as_py()
    registered = opened.sql("SELECT count(*) AS n FROM targets")["n"][0].as_py()
    if answered != registered:
        why = opened.sql("SELECT any_value(reason) AS why FROM ledger WHERE status IN ('failed', 'rejected')")
        raise RuntimeError(f"{archive_name}: {answered} of {registered} targets answered: {why['why'][0]}")
    counts = opened.sql(
        "SELECT count(*) AS granules, sum(seconds) AS granule_s, sum(n_rows)::BIGINT AS n_rows, "
        "sum(bytes)::BIGINT AS parquet_bytes FROM ledger WHERE archive = ? AND status IN ('done', 'empty')",
        [archive_name],
    )
    return {"n": registered, **counts.to_pylist()[0]}


def service_of(archive_name: str) -> str:
    """Return the name of the simulated service of an archive."""
    from tasks.sources.registry import find

    return find(archive_name).service or archive_name
