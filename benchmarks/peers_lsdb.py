"""LSDB's side of `benchmarks.peers`. The Python that has LSDB runs this module, which imports nothing of Lightlake.

A collection is opened with the columns that a question needs, and computed on Dask's threads, two at a time. Dask's
cluster of worker processes takes seconds to start, and answers later at these sizes.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.measure import ask_each

CATALOGUES = ("first", "second")
# LSDB needs a largest number of neighbours: more than any position of these catalogues has.
NEIGHBOURS = 5
# What `lsdb.from_dataframe` puts into a partition of positions, at most.
PARTITION_ROWS = 500_000


def ask(kind: str, folder: str, questions: list[Any], to: str) -> dict[str, float]:
    """Open a collection in this folder, ask it questions of a kind, write the last answer as Parquet, return times."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # LSDB prints every id that it looks for.
    with contextlib.redirect_stdout(None):
        found, times = ask_each(lambda: OPEN[kind](folder), questions)
    pq.write_table(pa.Table.from_pandas(found, preserve_index=False), to)
    return times


def lsdb_version() -> str:
    """Return the version of LSDB."""
    from importlib.metadata import version

    return version("lsdb")


def write_catalogues(folder: str, margin_arcsec: float) -> None:
    """Write the two catalogues of positions as HATS catalogues with margins."""
    import pandas as pd

    lsdb = importlib.import_module("lsdb")
    for name in CATALOGUES:
        made = lsdb.from_dataframe(
            pd.read_parquet(f"{folder}/{name}.parquet"),
            ra_column="ra",
            dec_column="dec",
            catalog_name=name,
            partition_rows=PARTITION_ROWS,
            margin_threshold=margin_arcsec,
        )
        made.write_catalog(f"{folder}/{name}-hats", progress_bar=False)


def _opened(folder: str, *columns: str) -> Any:
    return importlib.import_module("lsdb").open_catalog(f"{folder}/collection", columns=list(columns))


def _flat(frame: Any) -> Any:
    """Return the light curves of a nested frame, one row a measurement."""
    return frame["lc"].nest.to_flat()


def _by_id(folder: str) -> Callable[[Any], Any]:
    curves = ("source_id", "band", "mjd", "flux", "flux_err")
    catalogue = _opened(folder, "target_id", *(f"lc.{name}" for name in curves))

    def answer(question: Any) -> Any:
        found = catalogue.id_search(values={"target_id": question["target_id"]})
        return _flat(found.compute(progress_bar=False))

    return answer


def _per_night(folder: str) -> Callable[[Any], Any]:
    catalogue = _opened(folder, "lc.band", "lc.mjd", "lc.flux")

    def answer(_: Any) -> Any:
        sums = catalogue.map_partitions(_sums_per_night).compute(progress_bar=False)
        found = sums.groupby(["night", "band"], as_index=False).sum()
        return found.assign(flux=found["total"] / found["n"])

    return answer


def _sums_per_night(frame: Any) -> Any:
    rows = _flat(frame)
    rows = rows.assign(night=(rows["mjd"] // 1).astype("int64"), flux=rows["flux"].astype("float64"))
    return rows.groupby(["night", "band"], as_index=False).agg(n=("flux", "size"), total=("flux", "sum"))


def _brightened(folder: str) -> Callable[[Any], Any]:
    catalogue = _opened(folder, "lc.source_id", "lc.band", "lc.mjd", "lc.flux", "lc.good")

    def answer(question: Any) -> Any:
        found = catalogue.map_partitions(_brighter, since=question["since"], factor=question["factor"])
        return found.compute(progress_bar=False)

    return answer


def _brighter(frame: Any, since: float, factor: float) -> Any:
    rows = _flat(frame)
    rows = rows[rows["good"]]
    rows = rows.assign(flux=rows["flux"].astype("float64"), new=rows["mjd"] >= since)
    keys = ["source_id", "band"]
    earlier = rows[~rows["new"]].groupby(keys)["flux"].mean().rename("earlier")
    newest = rows[rows["new"]].groupby(keys)["flux"].mean().rename("newest")
    both = earlier.to_frame().join(newest, how="inner").reset_index()
    return both[both["newest"] > both["earlier"] * factor]


def _crossmatch(folder: str) -> Callable[[Any], Any]:
    lsdb = importlib.import_module("lsdb")
    first, second = (lsdb.open_catalog(f"{folder}/{name}-hats") for name in CATALOGUES)

    def answer(question: Any) -> Any:
        pairs = first.crossmatch(
            second,
            radius_arcsec=question["radius_arcsec"],
            n_neighbors=NEIGHBOURS,
            require_right_margin=True,
            suffixes=("_1", "_2"),
            suffix_method="all_columns",
        )
        found = pairs.compute(progress_bar=False)
        return found[["row_1", "row_2"]].rename(columns={"row_1": "first", "row_2": "second"})

    return answer


OPEN: dict[str, Callable[[str], Callable[[Any], Any]]] = {
    "by_id": _by_id,
    "crossmatch": _crossmatch,
    "per_night": _per_night,
    "brightened": _brightened,
}
