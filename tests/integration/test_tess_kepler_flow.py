"""TESS, Kepler and K2 pulled by the flow: all targets answered, retried, and asked again for what is new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from helpers.archives import PLACES
from prefect.states import State

from deployments.sandbox.mast_stars import star
from deployments.sandbox.server import Sandbox
from deployments.sandbox.tess_kepler import DOWNLOAD, INVOKE, Service
from flows.pull import pull_archive
from lake.commit.targets import add_targets
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.sources.tess_kepler.mast_products import BAND_UNITS

Rows = Callable[..., list[dict[str, Any]]]

pytestmark = pytest.mark.usefixtures("prefect_server", "pull_settings")


def pull(**more: Any) -> State[Any]:
    return pull_archive("tess_kepler", **more, return_state=True)


def register(catalog: Catalog, service: Service) -> list[str]:
    """Register four places of the sandbox, the first by its TIC number and half a degree off, and one with nothing."""
    tic = next(one for one in service._stars.values() if one.mission == "TESS")
    places = [(tic.place[0], tic.place[1] + 0.5), *PLACES[4:16:4], (1.0, 1.0)]
    names = [f"TIC {tic.target}", "a", "b", "c", "nothing"]
    ra, dec = zip(*places, strict=True)
    add_targets(catalog, pa.table({"name": names, "ra": ra, "dec": dec}), "stars")
    return names


def test_a_pull_retries_and_a_new_sector_is_one_download(catalog: Catalog, rows: Rows, sandbox: Sandbox) -> None:
    service: Service = sandbox.services["tess_kepler"]
    names = register(catalog, service)
    sandbox.fault(INVOKE, "status:503")
    sandbox.fault(DOWNLOAD, "truncate")
    first = pull()
    assert first.is_completed(), first.message
    report = first.result()
    assert first.message == f"tess_kepler: 5 of 5 targets answered, {report.rows} rows"
    assert rows("SELECT name, status FROM coverage JOIN targets USING (target_id) ORDER BY name") == [
        {"name": name, "status": "empty" if name == "nothing" else "found"} for name in sorted(names)
    ]
    told = rows("SELECT DISTINCT band, unit, mjd - bmjd_tdb AS off FROM lightcurves")
    assert {row["off"] for row in told} == {0.0}
    assert {row["band"]: row["unit"] for row in told}.items() <= BAND_UNITS.items()
    before = rows("SELECT * EXCLUDE granule FROM lightcurves ORDER BY ALL")
    assert pull().message == "tess_kepler: nothing to do, every target has its answer"

    tic = next(one for one in service._stars.values() if one.mission == "TESS")
    service.add(star("spoc", tic.target, 60, tic.place, n=service.n))
    sandbox.requests.clear()
    second = pull(again=True)
    assert second.is_completed(), second.message
    assert [seen.path.count("s0060") for seen in sandbox.requests if seen.path.startswith(DOWNLOAD)] == [1]
    after = rows("SELECT * EXCLUDE granule FROM lightcurves WHERE exposure_id NOT LIKE 'tess-s0060%' ORDER BY ALL")
    assert after == before
    assert rows("SELECT count(*) AS n FROM lightcurves")[0]["n"] > len(before)
    assert not [finding for finding in verify(catalog) if finding.is_error]


def test_mast_is_away(catalog: Catalog, rows: Rows, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLAKE_RETRIES", "1")
    register(catalog, sandbox.services["tess_kepler"])
    sandbox.fault(INVOKE, "garbage", 9)
    state = pull()
    assert state.is_failed()
    assert "tess_kepler" in (state.message or "")
    (ledger,) = rows("SELECT status, error FROM ledger")
    assert ledger["status"] == "failed"
    assert "Scheduled maintenance" in ledger["error"]
    assert {row["status"] for row in rows("FROM coverage")} == {"failed"}
