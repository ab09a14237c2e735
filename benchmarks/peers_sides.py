"""The questions of `benchmarks.peers` as the lake, DuckDB and pandas answer them; `peers_lsdb` has LSDB's answers.

A side is a function of the folder with all data, which opens what it needs and returns a function of a question.
DuckDB and pandas read the files of the compacted lake, which are sorted by position and have small row groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.lake_sides import COLUMNS, glob, tree
from benchmarks.match import pairs_by_zones
from benchmarks.measure import ask_each

# A longer list of ids is joined: DuckDB prunes row groups by a short one.
LONGEST_LIST = 1000
PER_NIGHT = "SELECT floor(mjd)::BIGINT AS night, band, count(*) AS n, avg(flux) AS flux FROM {rows} GROUP BY ALL"
BRIGHTENED = """
    SELECT source_id, band, avg(flux) FILTER (mjd < $since) AS earlier, avg(flux) FILTER (mjd >= $since) AS newest
    FROM {rows} WHERE good GROUP BY ALL HAVING newest > earlier * $factor"""

# Opens what a side needs, and returns the function that answers.
Side = Callable[[str], Callable[[Any], Any]]


def ask(side: str, kind: str, folder: str, questions: list[Any], to: str) -> dict[str, float]:
    """Open a side, ask it questions of a kind, write the last answer as Parquet, and return the times."""
    found, times = ask_each(lambda: SIDES[side][kind](folder), questions)

    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(found if isinstance(found, pa.Table) else pa.Table.from_pandas(found, preserve_index=False), to)
    return times


def lake_url(folder: str) -> str:
    """Return where the lake of a benchmark is."""
    return f"{folder}/lake"


def _lake(folder: str) -> Any:
    from lake.query import Lake

    return Lake(lake_url(folder))


def _is_any(n: int) -> str:
    listed = ", ".join("?" * n) if n <= LONGEST_LIST else "SELECT unnest(?)"
    return f"source_id IN ({listed})"


def _values(ids: list[str]) -> list[Any]:
    return ids if len(ids) <= LONGEST_LIST else [ids]


def lake_by_id(folder: str) -> Callable[[Any], Any]:
    """Ask for the same columns of targets, in order."""
    lake = _lake(folder)

    def answer(question: Any) -> Any:
        ids = question["target_id"]
        return lake.light_curve(ids if len(ids) > 1 else ids[0], columns=COLUMNS)

    return answer


def lake_sql_by_id(folder: str) -> Callable[[Any], Any]:
    """Ask by SQL for the same columns of the same sources as the other sides."""
    lake, columns = _lake(folder), ", ".join(COLUMNS)

    def answer(question: Any) -> Any:
        ids = question["source_id"]
        return lake.sql(f"SELECT {columns} FROM lightcurves WHERE {_is_any(len(ids))}", _values(ids))

    return answer


def lake_per_night(folder: str) -> Callable[[Any], Any]:
    lake = _lake(folder)
    return lambda _: lake.sql(PER_NIGHT.format(rows="lightcurves"))


def lake_brightened(folder: str) -> Callable[[Any], Any]:
    lake = _lake(folder)
    return lambda question: lake.sql(BRIGHTENED.format(rows="lightcurves"), question)


def lake_crossmatch(folder: str) -> Callable[[Any], Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lake.science.sky import match

    def answer(question: Any) -> Any:
        first, second = (pq.read_table(f"{folder}/{name}.parquet") for name in ("first", "second"))
        ra1, dec1, ra2, dec2 = (one[name].to_numpy() for one in (first, second) for name in ("ra", "dec"))
        i, j, _ = match(ra1, dec1, ra2, dec2, question["radius_arcsec"])
        return pa.table({"first": first["row"].to_numpy()[i], "second": second["row"].to_numpy()[j]})

    return answer


def _duckdb() -> Any:
    import duckdb

    return duckdb.connect()


def _rows(folder: str) -> str:
    return glob(lake_url(folder), "lightcurves")


def duckdb_by_id(folder: str) -> Callable[[Any], Any]:
    connection, columns, rows = _duckdb(), ", ".join(COLUMNS), _rows(folder)

    def answer(question: Any) -> Any:
        ids = question["source_id"]
        query = f"SELECT {columns} FROM {rows} WHERE {_is_any(len(ids))}"
        return connection.execute(query, _values(ids)).to_arrow_table()

    return answer


def duckdb_per_night(folder: str) -> Callable[[Any], Any]:
    connection, query = _duckdb(), PER_NIGHT.format(rows=_rows(folder))
    return lambda _: connection.execute(query).to_arrow_table()


def duckdb_brightened(folder: str) -> Callable[[Any], Any]:
    connection, query = _duckdb(), BRIGHTENED.format(rows=_rows(folder))
    return lambda question: connection.execute(query, question).to_arrow_table()


def duckdb_crossmatch(folder: str) -> Callable[[Any], Any]:
    connection = _duckdb()
    first, second = (f"read_parquet('{folder}/{name}.parquet')" for name in ("first", "second"))
    # Not execute(): DuckDB 1.5.5 does not come back from this query if its rows are streamed.
    return lambda question: connection.sql(pairs_by_zones(first, second, question["radius_arcsec"])).to_arrow_table()


def _frame(folder: str, *columns: str, filters: Any = None) -> Any:
    import pandas as pd

    files = tree(lake_url(folder), "lightcurves")
    return pd.read_parquet(files, columns=list(columns), filters=filters, partitioning=None)


def pandas_by_id(folder: str) -> Callable[[Any], Any]:
    import pandas  # noqa: F401

    return lambda question: _frame(folder, *COLUMNS, filters=[("source_id", "in", question["source_id"])])


def pandas_per_night(folder: str) -> Callable[[Any], Any]:
    import pandas  # noqa: F401

    def answer(_: Any) -> Any:
        rows = _frame(folder, "band", "mjd", "flux")
        rows = rows.assign(night=(rows["mjd"] // 1).astype("int64"), flux=rows["flux"].astype("float64"))
        return rows.groupby(["night", "band"], as_index=False).agg(n=("flux", "size"), flux=("flux", "mean"))

    return answer


def pandas_brightened(folder: str) -> Callable[[Any], Any]:
    import pandas  # noqa: F401

    def answer(question: Any) -> Any:
        rows = _frame(folder, "source_id", "band", "mjd", "flux", filters=[("good", "==", True)])
        rows = rows.assign(flux=rows["flux"].astype("float64"), new=rows["mjd"] >= question["since"])
        keys = ["source_id", "band"]
        earlier = rows[~rows["new"]].groupby(keys)["flux"].mean().rename("earlier")
        newest = rows[rows["new"]].groupby(keys)["flux"].mean().rename("newest")
        both = earlier.to_frame().join(newest, how="inner").reset_index()
        return both[both["newest"] > both["earlier"] * question["factor"]]

    return answer


def pandas_crossmatch(folder: str) -> Callable[[Any], Any]:
    """Match by astropy, as notebooks with pandas do."""
    import pandas as pd
    from astropy import units as u
    from astropy.coordinates import SkyCoord, search_around_sky

    def answer(question: Any) -> Any:
        frames = [pd.read_parquet(f"{folder}/{name}.parquet") for name in ("first", "second")]
        sky = [SkyCoord(one["ra"].to_numpy(), one["dec"].to_numpy(), unit="deg") for one in frames]
        i, j, _, _ = search_around_sky(*sky, question["radius_arcsec"] * u.arcsec)
        rows = [one["row"].to_numpy()[at] for one, at in zip(frames, (i, j), strict=True)]
        return pd.DataFrame({"first": rows[0], "second": rows[1]})

    return answer


SIDES: dict[str, dict[str, Side]] = {
    "lake": {
        "by_id": lake_by_id,
        "crossmatch": lake_crossmatch,
        "per_night": lake_per_night,
        "brightened": lake_brightened,
    },
    "lake_sql": {"by_id": lake_sql_by_id},
    "duckdb": {
        "by_id": duckdb_by_id,
        "crossmatch": duckdb_crossmatch,
        "per_night": duckdb_per_night,
        "brightened": duckdb_brightened,
    },
    "pandas": {
        "by_id": pandas_by_id,
        "crossmatch": pandas_crossmatch,
        "per_night": pandas_per_night,
        "brightened": pandas_brightened,
    },
}
