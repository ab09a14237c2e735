"""The real files of ZTF and unWISE by the whole path: planned, fetched, committed, verified, and asked for in SQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_wise import dataset, untimely
from test_ztf import collection

from lake.commit.targets import add_targets
from lake.query import Lake
from lake.upkeep.compaction import compact
from lake.upkeep.maintenance import verify
from tasks.pull import commit_batch, fetch_batch, lake_at, plan_batches
from tasks.register import register_archive
from tasks.sources.registry import find

pytestmark = pytest.mark.oracle

__all__ = ["untimely"]

PLACE = (26.978383, 23.661691)


@pytest.fixture
def pulled(
    data_dir: Path, untimely: pa.Table, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lake]:
    """A lake with what the files have at their own objects, and at a place that none of them covers."""
    bulk = pq.read_table(data_dir / "ztf" / "ztf_000250_zg_c01_q1_dr5.parquet")
    collection(tmp_path / "ztf", bulk, max_rows=5000, row_group=600)
    dataset(tmp_path / "wise", untimely)
    ra, dec = (
        np.append(bulk["objra"].to_numpy(), [PLACE[0], 200.0]),
        np.append(bulk["objdec"].to_numpy(), [PLACE[1], 60.0]),
    )
    add_targets(lake.catalog, pa.table({"ra": ra.astype(float), "dec": dec.astype(float)}), "real", radius_arcsec=0.0)
    for name in ("ztf", "wise"):
        monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{name.upper()}", str(tmp_path / name))
        archive = find(name)
        register_archive(lake, archive)
        for batch in plan_batches(lake, archive, archive.with_defaults({}), None, lake.storage.staging / name):
            commit_batch(str(lake.storage.root), fetch_batch(batch))
    yield lake
    lake_at.cache_clear()


def test_the_real_files_are_in_the_lake_whole(pulled: Lake, data_dir: Path, untimely: pa.Table) -> None:
    bulk = pq.read_table(data_dir / "ztf" / "ztf_000250_zg_c01_q1_dr5.parquet").to_pylist()
    found = pulled.sql(
        "SELECT source_id, list(mag ORDER BY mjd, mag) AS mag FROM lightcurves WHERE archive = 'ztf' GROUP BY 1"
    )
    assert {row["source_id"]: row["mag"] for row in found.to_pylist()} == {
        str(row["objectid"]): [mag for _, mag in sorted(zip(row["hmjd"], row["mag"], strict=True))] for row in bulk
    }
    flagged = pulled.sql("SELECT count(*) AS n FROM lightcurves WHERE archive = 'ztf' AND NOT good")["n"][0].as_py()
    assert flagged == sum(flag >= 32768 for row in bulk for flag in row["catflags"]) > 0
    assert pulled.sql("SELECT DISTINCT reason FROM ledger WHERE archive = 'ztf' AND status = 'done'")[
        "reason"
    ].to_pylist() == ["hmjd is kept as float32 there: times are good to 3 min (0.002 d)"]
    wise = pulled.sql(
        "SELECT band, count(*) AS n, max(abs(mag - 22.5)) AS off FROM lightcurves WHERE archive = 'wise' GROUP BY 1"
    )
    assert {row["band"] for row in wise.to_pylist()} == {"W1", "W2"}
    vega = "flux / CASE band WHEN 'W1' THEN 3.022734e-4 ELSE 1.676486e-4 END"
    rows = pulled.sql(f"SELECT mjd, band, {vega} AS flux FROM lightcurves WHERE archive = 'wise'").to_pylist()
    real: dict[tuple[float, str], list[float]] = {}
    for row in untimely.to_pylist():
        real.setdefault((row["MJDMEAN"], f"W{row['band']}"), []).append(row["flux"])
    assert len(rows) > 25
    assert all(np.isclose(row["flux"], real[row["mjd"], row["band"]], rtol=1e-6).any() for row in rows)

    covered = pulled.sql("SELECT archive, status, count(*) AS n FROM coverage GROUP BY ALL ORDER BY ALL").to_pylist()
    n = len(bulk)
    assert {row["archive"]: row["n"] for row in covered if row["status"] == "found"} == {"ztf": n, "wise": 1}
    assert sum(row["n"] for row in covered) == 2 * (n + 2)
    before = pulled.sql("FROM fornax ORDER BY ALL")
    compact(pulled.catalog)
    assert pulled.sql("FROM fornax ORDER BY ALL").equals(before)
    assert [finding.message for finding in verify(pulled.catalog) if finding.is_error] == []
