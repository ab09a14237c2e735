"""Match two catalogues of the whole sky: `lake.science.sky.match`, astropy, DuckDB, and LSDB where it is installed.

The second catalogue is the first in another order, each position moved by some 0.3 arcsec; all pairs within 1 arcsec
are wanted. Every side gets the same arrays, or files with the same columns, and runs in a fresh process on one core.
LSDB reads two HATS catalogues, which are made first and not timed; it cannot return all pairs, so that it returns the
nearest of each position. LSDB needs an environment of its own: give its Python with --lsdb.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import fresh, print_result, print_table, use_cores

RADIUS_ARCSEC, MOVED_ARCSEC = 1.0, 0.3
SEED = 20210126
SIZES = (10_000, 1_000_000, 10_000_000)

_LSDB = """
import json, resource, sys, time
import lsdb, pyarrow.parquet as pq
from dask.distributed import Client
if __name__ == "__main__":
    folder, radius = sys.argv[1], float(sys.argv[2])
    with Client(n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        sides = [
            lsdb.from_dataframe(
                pq.read_table(f"{folder}/{name}.parquet").to_pandas(), ra_column="ra", dec_column="dec",
                catalog_name=name, partition_rows=500_000, margin_threshold=10.0,
            )
            for name in ("first", "second")
        ]
        for side in sides:
            side.write_catalog(f"{folder}/{side.name}-hats", overwrite=True)
        first, second = (lsdb.open_catalog(f"{folder}/{side.name}-hats") for side in sides)
        started = time.perf_counter()
        found = first.crossmatch(second, radius_arcsec=radius, n_neighbors=1, suffixes=("_1", "_2")).compute()
        print(json.dumps({"seconds": time.perf_counter() - started, "pairs": len(found)}))
"""


def write_catalogues(folder: str, n: int) -> None:
    """Write the two catalogues as Parquet: row, ra, dec."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(SEED)
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    order = rng.permutation(n)
    step = MOVED_ARCSEC / 3600
    moved = (
        (ra + rng.normal(0, step, n) / np.cos(np.radians(dec))) % 360,
        np.clip(dec + rng.normal(0, step, n), -90, 90),
    )
    for name, one in (("first", (ra, dec)), ("second", (moved[0][order], moved[1][order]))):
        columns = {"row": np.arange(n), "ra": one[0], "dec": one[1]}
        pq.write_table(pa.table(columns), f"{folder}/{name}.parquet")


def _read(folder: str) -> list[Any]:
    import pyarrow.parquet as pq

    tables = [pq.read_table(f"{folder}/{name}.parquet") for name in ("first", "second")]
    return [table[name].to_numpy() for table in tables for name in ("ra", "dec")]


def lake(folder: str) -> dict[str, float]:
    """Match by Lightlake."""
    from lake.science.sky import match

    ra1, dec1, ra2, dec2 = _read(folder)
    match([0.0], [0.0], [0.0], [0.0], RADIUS_ARCSEC)  # imports
    return _timed(lambda: len(match(ra1, dec1, ra2, dec2, RADIUS_ARCSEC)[0]))


def astropy(folder: str) -> dict[str, float]:
    """Match by astropy."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord, search_around_sky

    def work(*places: Any) -> int:
        sides = SkyCoord(*places[:2], unit="deg"), SkyCoord(*places[2:], unit="deg")
        return len(search_around_sky(*sides, RADIUS_ARCSEC * u.arcsec)[0])

    work(*([0.0],) * 4)  # imports
    places = _read(folder)
    return _timed(lambda: work(*places))


def pairs_by_zones(first: str, second: str, radius_arcsec: float) -> str:
    """Return SQL for all pairs, with zones of declination (J. Gray et al. 2007, "The Zones Algorithm"), as SQL is best.

    Parameters
    ----------
    first, second
        SQL of the catalogues, with columns row, ra and dec.
    radius_arcsec
        Radius, less than a degree.
    """
    import math

    radius = radius_arcsec / 3600
    # A cell of right ascension is wider than the radius up to this declination. Nearer to a pole, zones are enough.
    polar = 85.9
    cells = int(0.99 * 360 * math.cos(math.radians(polar)) / radius)
    near = f"""2 * degrees(asin(sqrt(pow(sin(radians(there.dec - here.dec) / 2), 2) + cos(radians(here.dec))
        * cos(radians(there.dec)) * pow(sin(radians(there.ra - here.ra) / 2), 2)))) <= {radius}"""
    return f"""
        WITH zoned AS (
            SELECT row, ra, dec, unnest([floor(dec / {radius})::BIGINT + d for d in [-1, 0, 1]]) AS zone FROM {first}
        ), here AS (
            SELECT *, unnest([(floor(ra / 360 * {cells})::BIGINT + d) % {cells} for d in [{cells - 1}, 0, 1]]) AS cell
            FROM zoned WHERE abs(dec) <= {polar}
        ), there AS (
            SELECT row, ra, dec, floor(dec / {radius})::BIGINT AS zone,
                floor(ra / 360 * {cells})::BIGINT % {cells} AS cell
            FROM {second}
        )
        SELECT here.row AS first, there.row AS second FROM here JOIN there USING (zone, cell) WHERE {near}
        UNION ALL
        SELECT here.row, there.row FROM (FROM zoned WHERE abs(dec) > {polar}) AS here JOIN there USING (zone)
        WHERE {near}"""


def duckdb(folder: str) -> dict[str, float]:
    """Match by DuckDB."""
    import duckdb as engine

    connection = engine.connect()
    connection.execute("SET threads = 1")
    for name in ("first", "second"):
        connection.execute(f"CREATE TABLE {name} AS FROM '{folder}/{name}.parquet'")
    query = f"SELECT count(*) FROM ({pairs_by_zones('first', 'second', RADIUS_ARCSEC)})"
    return _timed(lambda: int(connection.execute(query).fetchall()[0][0]))


def _timed(work: Callable[[], int]) -> dict[str, float]:
    started = time.perf_counter()
    pairs = work()
    return {"seconds": time.perf_counter() - started, "pairs": pairs}


def lsdb(python: str, folder: str) -> dict[str, float]:
    """Match by LSDB, in its own environment."""
    script = Path(folder) / "by_lsdb.py"
    script.write_text(_LSDB)
    done = subprocess.run([python, script, folder, str(RADIUS_ARCSEC)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"LSDB failed:\n{done.stderr}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to a million positions")
    parser.add_argument("--lsdb", metavar="PYTHON", help="a Python that has lsdb")
    given = parser.parse_args()
    use_cores(1)
    rows, ours = [], {}
    for n in SIZES[:2] if given.quick else SIZES:
        with tempfile.TemporaryDirectory() as folder:
            fresh(write_catalogues, folder, n)
            runs = {side.__name__: fresh(side, folder, processes=3) for side in (lake, astropy, duckdb)}
            found: dict[str, tuple[Any, ...]] = {
                name: (run.value["seconds"], run.value["pairs"], run.peak_rss_mb) for name, run in runs.items()
            }
            if given.lsdb:
                answer = lsdb(given.lsdb, folder)
                found["lsdb"] = (answer["seconds"], answer["pairs"], None)
        pairs = found["lake"][1]
        if any(found[name][1] != pairs for name in ("astropy", "duckdb")):
            raise RuntimeError(f"the sides disagree about {n} positions: {found}")
        ours[n] = found
        for name, (seconds, number, peak) in found.items():
            rows.append((f"{n:,}", name, seconds, number, n / seconds, seconds / found["lake"][0], peak))
    print_table(
        f"all pairs within {RADIUS_ARCSEC:g} arcsec of two catalogues of n positions, one core",
        ("n", "side", "s", "pairs", "rows/s", "times the lake", "peak MB"),
        rows,
    )
    largest = max(ours)
    last = ours[largest]
    print_result(
        {
            "rows": largest,
            # Rows of one catalogue; both have as many.
            "rows_per_s_core": largest / last["lake"][0],
            "vs_astropy": last["astropy"][0] / last["lake"][0],
            "vs_duckdb": last["duckdb"][0] / last["lake"][0],
            "vs_lsdb": last["lsdb"][0] / last["lake"][0] if "lsdb" in last else None,
            "peak_rss_mb": last["lake"][2],
        }
    )


if __name__ == "__main__":
    main()
