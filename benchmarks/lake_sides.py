"""The queries that `benchmarks.lake` compares: through the lake, on globs of its files, with pandas.

Each side is a function that opens a lake and returns a function of a target. All answers are compared with the rows as
they were generated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.lake_rows import BANDS, EPOCHS, SEED, SOURCES, granule, sky, source_ids, target_name
from benchmarks.measure import interleaved

RADIUS_ARCSEC = 10.0
COLUMNS = ("source_id", "band", "mjd", "flux", "flux_err")  # what a notebook needs to plot

# Name, ra, dec, source id.
Target = tuple[str, float, float, str]
# Rows, and exact sums of mjd and flux, which do not depend on the rows' order.
Answer = tuple[int, float, float]


def _lake(url: str) -> Any:
    from lake.query import Lake

    return Lake(url)


def open_lake(url: str) -> None:
    """Open a lake, with all imports; runs in a fresh process."""
    _lake(url).close()


def glob(url: str, table: str) -> str:
    """Return the SQL that reads all files of a table of a lake."""
    return f"read_parquet('{tree(url, table)}/archive=*/*.parquet', hive_partitioning=true)"


def tree(url: str, table: str) -> str:
    """Return the folder of a table's files."""
    return f"{url}/data/main/{table}"


def lake_point(url: str) -> Callable[[Target], Any]:
    opened = _lake(url)
    return lambda target: opened.light_curve(target[0])


def lake_point_id(url: str) -> Callable[[Target], Any]:
    """Query by target_id, which is the target's HEALPix index, so that no name is looked up."""
    from lake.science.sky import hpx29

    opened = _lake(url)
    return lambda target: opened.light_curve(int(hpx29(target[1], target[2])))


def lake_cone(url: str) -> Callable[[Target], Any]:
    opened = _lake(url)
    return lambda target: opened.cone(target[1], target[2], RADIUS_ARCSEC)


def _duckdb(cached: bool = False) -> Any:
    import duckdb

    connection = duckdb.connect()
    if cached:
        connection.execute("SET parquet_metadata_cache = true")
    return connection


def glob_point(url: str, cached: bool = False) -> Callable[[Target], Any]:
    connection = _duckdb(cached)
    rows = glob(url, "lightcurves")
    return lambda target: connection.execute(f"SELECT * FROM {rows} WHERE source_id = '{target[3]}'").to_arrow_table()


def glob_point_hpx29(url: str) -> Callable[[Target], Any]:
    """Query as a user who knows the lake's sort order and the source's position."""
    from lake.science.sky import cone_ranges

    connection = _duckdb()
    rows = glob(url, "lightcurves")

    def ask(target: Target) -> Any:
        ranges = cone_ranges(target[1], target[2], 1.0, max_ranges=1)
        return connection.execute(
            f"SELECT * FROM {rows} WHERE hpx29 BETWEEN {ranges[0][0]} AND {ranges[0][1]} AND source_id = '{target[3]}'"
        ).to_arrow_table()

    return ask


def glob_cone(url: str, hpx29: bool = False) -> Callable[[Target], Any]:
    """Select sources by a box, then by the haversine formula, and join their light curves."""
    import math

    connection = _duckdb()
    keys = "archive, release, hpx29, source_id" if hpx29 else "archive, source_id"

    def ask(target: Target) -> Any:
        _, ra, dec, _ = target
        radius = RADIUS_ARCSEC / 3600
        width = radius / math.cos(math.radians(abs(dec) + radius))
        return connection.execute(
            f"""
            SELECT curves.*, found.ra, found.dec
            FROM (
                SELECT * FROM {glob(url, "sources")}
                WHERE dec BETWEEN {dec - radius} AND {dec + radius} AND ra BETWEEN {ra - width} AND {ra + width}
                    AND 2 * degrees(asin(sqrt(pow(sin(radians(dec - {dec}) / 2), 2)
                        + cos(radians(dec)) * cos(radians({dec})) * pow(sin(radians(ra - {ra}) / 2), 2))))
                        <= {radius}
            ) AS found
            JOIN {glob(url, "lightcurves")} AS curves USING ({keys})
            """
        ).to_arrow_table()

    return ask


def pandas_point(url: str, columns: bool = False, filters: bool = False) -> Callable[[Target], Any]:
    """Read the archive into one DataFrame and select an id, as notebooks do."""
    import pandas as pd

    def ask(target: Target) -> Any:
        frame = pd.read_parquet(
            tree(url, "lightcurves"),
            columns=list(COLUMNS) if columns else None,
            filters=[("source_id", "==", target[3])] if filters else None,
            partitioning=None,  # compacted files hold the column archive, which pyarrow cannot merge with the folder's
        )
        return frame[frame["source_id"] == target[3]]

    return ask


def pandas_cone(url: str, columns: bool = False) -> Callable[[Target], Any]:
    import pandas as pd

    from lake.science.sky import separation_arcsec

    def ask(target: Target) -> Any:
        needed = ["source_id", "ra", "dec"]
        sources = pd.read_parquet(tree(url, "sources"), columns=needed, partitioning=None)
        near = separation_arcsec(target[1], target[2], sources["ra"], sources["dec"]) <= RADIUS_ARCSEC
        wanted = list(COLUMNS) if columns else None
        curves = pd.read_parquet(tree(url, "lightcurves"), columns=wanted, partitioning=None)
        return curves.merge(sources[near], on="source_id")

    return ask


def pandas_in_memory(url: str, targets: list[Target]) -> dict[str, float]:
    """Load everything once, then select; return the seconds of each part."""
    import pandas as pd

    started = time.perf_counter()
    frame = pd.read_parquet(tree(url, "lightcurves"), partitioning=None)
    loaded = time.perf_counter() - started
    seconds = []
    for target in targets:
        started = time.perf_counter()
        rows = frame[frame["source_id"] == target[3]]
        seconds.append(time.perf_counter() - started)
        assert len(rows) == len(BANDS) * EPOCHS
    return {"load_s": loaded, "select_s": median(seconds)}


# For each side: its function, one of the two lakes, and options. Rare sides take seconds a question.
Side = tuple[Callable[..., Callable[[Target], Any]], str, dict[str, bool]]
POINT: dict[str, Side] = {
    "lake": (lake_point_id, "compacted", {}),
    "lake, by name": (lake_point, "compacted", {}),
    "lake, as written": (lake_point_id, "written", {}),
    "glob by id, as written": (glob_point, "written", {}),
    "glob by id, as written, footers cached": (glob_point, "written", {"cached": True}),
    "glob by id + hpx29, as written": (glob_point_hpx29, "written", {}),
    "glob by id, compacted": (glob_point, "compacted", {}),
    "glob by id + hpx29, compacted": (glob_point_hpx29, "compacted", {}),
    "pandas, all columns, compacted": (pandas_point, "compacted", {}),
    "pandas, 5 columns, compacted": (pandas_point, "compacted", {"columns": True}),
    "pandas with filters=, compacted": (pandas_point, "compacted", {"filters": True}),
}
CONE: dict[str, Side] = {
    "lake": (lake_cone, "compacted", {}),
    "lake, as written": (lake_cone, "written", {}),
    "glob, as written": (glob_cone, "written", {}),
    "glob, join with hpx29, as written": (glob_cone, "written", {"hpx29": True}),
    "glob, compacted": (glob_cone, "compacted", {}),
    "glob, join with hpx29, compacted": (glob_cone, "compacted", {"hpx29": True}),
    "pandas, all columns, compacted": (pandas_cone, "compacted", {}),
    "pandas, 5 columns, compacted": (pandas_cone, "compacted", {"columns": True}),
}
# The headline ratios compare the compacted lake, a glob of the files as pulls wrote them (a folder of Parquet without a
# catalogue), and one DataFrame of everything.
HEADLINE = {
    "point": ("lake", "glob by id, as written", "pandas, all columns, compacted"),
    "cone": ("lake", "glob, as written", "pandas, all columns, compacted"),
}
RARE = {name for name in [*POINT, *CONE] if name.startswith("pandas")}
SIDES = {"point": POINT, "cone": CONE}
TITLES = {
    "point": "All measurements of one target: by target_id through the lake, by the archive's id on the other sides",
    "cone": f"All measurements within {RADIUS_ARCSEC:g} arcsec of a position",
}


def one_side(kind: str, name: str, urls: dict[str, str], target: Target) -> Answer:
    """Ask one side one question; runs in a fresh process to measure memory and total time."""
    make, which, options = SIDES[kind][name]
    return answer(make(urls[which], **options)(target))


def ask_in_turn(kind: str, urls: dict[str, str], granules: int, count: int) -> dict[str, Any]:
    """Query all sides in turn, each with an open connection, and check every answer."""
    asked = questions(kind, granules, count)

    def check(question: tuple[Target, Answer], found: Any, side: str) -> None:
        if list(answer(found)) != list(question[1]):
            raise AssertionError(f"{kind}, {side}, {question[0]}: {answer(found)} is not {question[1]}")

    def asking(ask: Callable[[Target], Any]) -> Callable[[tuple[Target, Answer]], Any]:
        return lambda question: ask(question[0])

    sides = {name: asking(make(urls[which], **options)) for name, (make, which, options) in SIDES[kind].items()}
    return {"seconds": interleaved(sides, asked, check, RARE), "asked": asked}


def answer(found: Any) -> Answer:
    """Summarise an Arrow table or a DataFrame; sums are exact, so the order of rows does not matter."""
    import math

    mjd, flux = (found[name].to_numpy().tolist() for name in ("mjd", "flux"))
    return len(mjd), math.fsum(mjd), math.fsum(flux)


def warm(urls: dict[str, str]) -> None:
    """Read all files once, so that they are in the page cache."""
    for url in urls.values():
        for path in Path(url).rglob("*"):
            if path.is_file():
                path.read_bytes()


def questions(kind: str, granules: int, count: int) -> list[tuple[Target, Answer]]:
    """Pick targets away from RA 0 and the pole, where the glob's box works, with their generated rows."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from lake.model.schema import TABLES
    from lake.science.sky import SkyIndex

    positions = sky(granules)
    ra, dec = positions["ra"], positions["dec"]
    far = np.flatnonzero((ra > 1) & (ra < 359) & (dec < 80))
    index = SkyIndex(ra, dec)
    if kind == "cone":  # every second one has a companion
        row, other, _ = index.within(ra, dec, RADIUS_ARCSEC - 1)
        paired = np.intersect1d(row[row != other], far)
        rng = np.random.default_rng(SEED + 2)
        picked = np.concatenate([rng.choice(far, count - count // 2, False), rng.choice(paired, count // 2, False)])
        picked = rng.permutation(picked)
    else:
        picked = np.random.default_rng(SEED + 1).choice(far, count, replace=False)
    asked: list[tuple[Target, Answer]] = []
    for row in picked.tolist():
        wanted = [row]
        if kind == "cone":
            wanted = np.unique(index.within(ra[row], dec[row], RADIUS_ARCSEC - 1)[1]).tolist()
        curves = []
        for i in wanted:
            here = slice(i // SOURCES * SOURCES, (i // SOURCES + 1) * SOURCES)
            table = granule(i // SOURCES, ra[here], dec[here])["lightcurves"]
            source = source_ids(i // SOURCES, ra[here], dec[here])[i % SOURCES]
            curves.append(TABLES["lightcurves"].cast(table.filter(pc.equal(table["source_id"], source))))
            if i == row:
                name = source.as_py()
        target = (target_name(row), float(ra[row]), float(dec[row]), name)
        asked.append((target, answer(pa.concat_tables(curves))))
    return asked
