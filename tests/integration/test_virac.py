"""The flow over VIRAC's tiles: all of them once, broken ones told, several processes at once, killed and resumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.states import State

from deployments.sandbox import virac as sandbox_virac
from flows.virac import extract_virac
from lake.catalog import Catalog
from lake.maintenance import verify

Rows = Callable[..., list[dict[str, Any]]]

pytestmark = pytest.mark.usefixtures("prefect_server", "pull_settings")

SMALL = {"n_sources": 12, "n_pawprints": 60, "epochs": (25, 50)}


def run(tiles: Path, **more: Any) -> State[Any]:
    return extract_virac(str(tiles), **more, return_state=True)


def errors(catalog: Catalog) -> list[str]:
    return [finding.message for finding in verify(catalog) if finding.is_error]


def test_every_tile_once_and_broken_ones_told(catalog: Catalog, rows: Rows, tmp_path: Path) -> None:
    kinds = sandbox_virac.write_tiles(tmp_path / "tiles", 20, seed=3, broken=0.5, **SMALL)
    bad = {name for name, kind in kinds.items() if kind}
    first = run(tmp_path / "tiles")
    assert first.is_failed()
    report = first.result(raise_on_failure=False)
    assert (report.done, report.rejected, report.failed) == (20 - len(bad), len(bad), 0), first.message
    assert f"{len(bad)} tiles REJECTED" in first.message
    ledger = rows("SELECT status, regexp_extract(endpoint, '[^/]+$') AS name, reason FROM ledger")
    assert {row["name"] for row in ledger if row["status"] == "rejected"} == bad
    assert all(row["reason"] for row in ledger if row["status"] == "rejected")
    assert Counter(row["status"] for row in ledger) == {"done": 20 - len(bad), "rejected": len(bad)}
    assert errors(catalog) == []

    again = run(tmp_path / "tiles")
    assert again.is_completed()
    assert again.message.startswith("virac: nothing to do")
    assert "--retry-failed" in again.message
    assert rows("SELECT count(*) AS n FROM ledger") == [{"n": 20}]
    before = rows("FROM lightcurves ORDER BY ALL")

    retried = run(tmp_path / "tiles", retry_failed=True)
    assert retried.is_failed()
    assert rows("SELECT count(*) AS n FROM ledger WHERE attempt = 2 AND status = 'rejected'") == [{"n": len(bad)}]
    assert rows("FROM lightcurves ORDER BY ALL") == before
