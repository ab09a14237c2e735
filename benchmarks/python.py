"""Measure how long the light curves of 1,000 targets take by one call, and by as many calls as there are targets.

``python -m benchmarks.python`` makes a lake of 2 million rows of a ZTF-like archive, compacts it, and asks for 1,000 of
its targets by name: at once, and one after the other. Both answers have the same rows. Also measured: 1,000 cones, and
what forms cost. ``--quick`` takes a tenth of the targets and rows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.lake_rows import ROWS, SOURCES, commit_all, register, run_compact, stage_some
from benchmarks.measure import fresh, print_result, print_table

TARGETS, GRANULES, REPEATS = 1000, 200, 3
RADIUS_ARCSEC = 1.0


def asked(url: str, n: int, repeats: int) -> dict[str, Any]:
    """Ask for n targets in both ways, and return the seconds of each."""
    import pyarrow as pa

    from lake.query import Lake

    with Lake(url) as lake:
        rows = lake.sql("SELECT target_id, ra, dec FROM targets ORDER BY hash(target_id) LIMIT ?", [n]).to_pylist()
        ids = [row["target_id"] for row in rows]
        places = [(row["ra"], row["dec"]) for row in rows]
        lake.light_curve(ids[:2]), lake.light_curve(ids[0]), lake.cone(places[:2], radius_arcsec=RADIUS_ARCSEC)
        seconds: dict[str, list[float]] = {}

        def timed(name: str, ask: Any) -> Any:
            started = time.perf_counter()
            found = ask()
            seconds.setdefault(name, []).append(time.perf_counter() - started)
            return found

        for _ in range(repeats):
            together = timed("targets", lambda: lake.light_curve(ids))
            timed("positions", lambda: lake.light_curve(places))
            cones = timed("cones", lambda: lake.cone(places, radius_arcsec=RADIUS_ARCSEC))
            timed("astropy", lambda: lake.light_curve(ids, form="astropy"))
            timed("polars", lambda: lake.light_curve(ids, form="polars"))
        loop = timed("loop", lambda: [lake.light_curve(one) for one in ids])
        loop_cones = timed("loop of cones", lambda: [lake.cone(*one, RADIUS_ARCSEC) for one in places])
        if not together.drop_columns(["target_id", "name"]).equals(pa.concat_tables(loop)):
            raise AssertionError("the rows of one call are not those of the loop")
        if not cones.drop_columns(["centre"]).equals(pa.concat_tables(loop_cones)):
            raise AssertionError("the cones of one call are not those of the loop")
        return {"rows": together.num_rows, **{name: median(times) for name, times in seconds.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the targets and rows")
    quick = parser.parse_args().quick
    n, granules = (TARGETS // 10, GRANULES // 10) if quick else (TARGETS, GRANULES)
    with tempfile.TemporaryDirectory(prefix="lightlake-benchmark-") as folder:
        url = str(Path(folder) / "lake")
        fresh(register, url, granules)
        fresh(stage_some, url, granules, 0, 1)
        fresh(commit_all, url, granules)
        fresh(run_compact, url)
        measured = fresh(asked, url, n, 1 if quick else REPEATS).value
    rows = measured.pop("rows")
    print_table(
        f"light curves of {n:,} of {granules * SOURCES:,} targets, {rows:,} of {granules * ROWS:,} rows",
        ("what", "s"),
        measured.items(),
    )
    print_result(
        {
            "targets": n,
            "rows": rows,
            "targets_1000_s": measured["targets"] * TARGETS / n,
            "vs_loop": measured["loop"] / measured["targets"],
            "positions_1000_s": measured["positions"] * TARGETS / n,
            "cones_1000_s": measured["cones"] * TARGETS / n,
            "cones_vs_loop": measured["loop of cones"] / measured["cones"],
            "astropy_1000_s": measured["astropy"] * TARGETS / n,
            "polars_1000_s": measured["polars"] * TARGETS / n,
        }
    )


if __name__ == "__main__":
    main()
