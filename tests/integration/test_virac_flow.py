"""The flow over VIRAC's tiles: all of them once, broken ones told, several processes at once, killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import Run, child_environment
from helpers.servers import artifacts
from prefect.settings import PREFECT_API_URL
from prefect.states import State

from deployments.sandbox import virac as sandbox_virac
from deployments.sandbox import virac_tap as eso
from deployments.sandbox.server import Sandbox
from flows.virac import extract_virac
from lake.cli import main
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.sources.virac import source as virac_run

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
    assert f"{len(bad)} of 20 tiles REJECTED" in first.message
    ledger = rows("SELECT status, regexp_extract(endpoint, '[^/]+$') AS name, reason FROM ledger")
    assert {row["name"] for row in ledger if row["status"] == "rejected"} == bad
    assert all(row["reason"] for row in ledger if row["status"] == "rejected")
    assert Counter(row["status"] for row in ledger) == {"done": 20 - len(bad), "rejected": len(bad)}
    assert rows("SELECT DISTINCT retries, requests FROM ledger") == [{"retries": 0, "requests": 0}]
    left = artifacts(first)
    assert set(left) == {"missing-virac", "plot-virac", "progress-virac", "virac"}
    assert f"0 of 20 tiles failed, {len(bad)} were rejected," in left["missing-virac"].data
    assert all(f"| {name} (`virac-" in left["missing-virac"].data for name in bad)
    assert "](data:image/png;base64,iVBORw0KGgo" in left["plot-virac"].data
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


def test_shards_are_disjoint_and_together_all(catalog: Catalog, rows: Rows, tmp_path: Path) -> None:
    sandbox_virac.write_tiles(tmp_path / "tiles", 7, seed=5, **SMALL)
    for n, done in ((0, 3), (1, 2)):
        message = run(tmp_path / "tiles", shard=f"{n}/3").message
        assert message.startswith(f"virac: {done} tiles done")
    assert "nothing to do. 5 of 7 tiles are in the lake" in run(tmp_path / "tiles", shard="1/3").message
    assert run(tmp_path / "tiles").message.startswith("virac: 2 tiles done")
    assert rows("SELECT count(*) AS n FROM ledger WHERE status = 'done'") == [{"n": 7}]
    assert "no shard 3/3" in str(run(tmp_path / "tiles", shard="3/3").message)


def test_what_a_dead_worker_had_is_told_and_done_by_the_next_run(
    catalog: Catalog, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_virac.write_tiles(tmp_path / "tiles", 3, seed=6, **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(virac_run, "extract", lambda *_, **__: (_ for _ in ()).throw(MemoryError("killed")))
        lost = run(tmp_path / "tiles")
    assert lost.is_failed()
    assert "3 of 3 tiles FAILED" in lost.message
    assert "MemoryError: killed" in lost.message
    assert rows("SELECT DISTINCT status FROM ledger") == [{"status": "failed"}]
    mended = run(tmp_path / "tiles")
    assert mended.is_completed()
    assert "before" not in mended.message
    assert rows("SELECT status, attempt FROM ledger WHERE status = 'done'") == [{"status": "done", "attempt": 2}] * 3


def test_a_file_that_changed_is_extracted_anew(catalog: Catalog, rows: Rows, tmp_path: Path) -> None:
    tile = tmp_path / "tiles" / "n1024_9000000.hdf5"
    place: dict[str, Any] = {"nside": 1024, "pixel": 9_000_000, **SMALL}
    tile.parent.mkdir()
    sandbox_virac.write_tile(tile, **place, seed=1)
    assert run(tile.parent).is_completed()
    (old,) = rows("SELECT count(*) AS n, sum(mag) AS total FROM lightcurves")
    tile.write_bytes(tile.read_bytes()[:1000])
    assert run(tile.parent).is_failed()
    assert rows("SELECT count(*) AS n, sum(mag) AS total FROM lightcurves") == [old]
    sandbox_virac.write_tile(tile, **place, seed=2)
    assert run(tile.parent).is_completed()
    assert rows("SELECT sum(mag) AS total FROM lightcurves") != [{"total": old["total"]}]
    assert rows("SELECT count(*) - count(DISTINCT source_id || exposure_id) AS twice FROM lightcurves") == [
        {"twice": 0}
    ]
    assert errors(catalog) == []


def test_other_parameters_are_another_question(catalog: Catalog, rows: Rows, tmp_path: Path) -> None:
    sandbox_virac.write_tiles(tmp_path / "tiles", 2, seed=9, **SMALL)
    assert run(tmp_path / "tiles", min_ks=30).is_completed()
    few = rows("SELECT count(DISTINCT source_id) AS n FROM lightcurves")[0]["n"]
    left = rows("SELECT count(*) AS n FROM sources WHERE left_out IS NOT NULL")[0]["n"]
    assert few + left == 24
    assert run(tmp_path / "tiles", min_ks=0, bands=["Ks"]).is_completed()
    assert rows("SELECT DISTINCT band FROM lightcurves") == [{"band": "Ks"}]
    assert rows("SELECT count(DISTINCT source_id) AS n FROM lightcurves")[0]["n"] > few
    assert rows("SELECT DISTINCT parameters FROM ledger ORDER BY ALL") == [
        {"parameters": '{"bands":["H","J","Ks","Y","Z"],"min_ks":30}'},
        {"parameters": '{"bands":["Ks"],"min_ks":0}'},
    ]


# More than are done before a signal arrives.
TILES = 45


@pytest.mark.parametrize("by", ["--prefect", "--local"])
def test_the_command_is_watched_ended_by_sigterm_and_goes_on(
    catalog: Catalog, rows: Rows, run: Run, tmp_path: Path, pull_settings: dict[str, str], by: str
) -> None:
    sandbox_virac.write_tiles(tmp_path / "tiles", TILES, seed=7, **SMALL)
    command = ["virac", str(tmp_path / "tiles"), by]
    arguments = [sys.executable, "-c", "from lake.cli import main; main()", *command, "--runner", "processes"]
    here = {**pull_settings, "LIGHTLAKE_WORKERS": "2", "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    process = subprocess.Popen(
        arguments,
        env=child_environment(**here),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not rows("SELECT 1 FROM ledger LIMIT 1") and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) in (143, -signal.SIGTERM)
    patience = time.monotonic() + 60
    while _alive(process.pid) and time.monotonic() < patience:
        time.sleep(0.2)
    assert not _alive(process.pid), "its workers go with it"
    done = rows("SELECT count(*) AS n FROM ledger")[0]["n"]
    assert 0 < done < TILES
    assert f"{done} granules ended of {TILES}" in run("status", "virac").out
    finished = run(*command)
    assert finished.code == 0, finished.err
    assert f"{TILES} of {TILES} tiles are in the lake" in finished.out
    assert rows("SELECT status, count(*) AS n FROM ledger GROUP BY ALL") == [{"status": "done", "n": TILES}]
    assert f"{TILES} done, 0 empty, 0 rejected, 0 failed" in run("status", "virac", "--watch").out


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_public_release_of_a_tile_lies_beside_the_tile(
    catalog: Catalog, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tile = tmp_path / "tiles" / "n512_2500000.hdf5"
    tile.parent.mkdir()
    sandbox_virac.write_tile(tile, nside=512, pixel=2_500_000, seed=4, **SMALL)
    assert run(tile.parent).is_completed()
    with Sandbox() as box:
        eso.serve(box, [tile])
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__VIRAC", box.endpoints["virac"])
        public = extract_virac("eso:n512_2500000", return_state=True)
        assert public.is_completed(), public.message
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__VIRAC", box.url("/nothing"))
        assert extract_virac("eso:n512_2500000", return_state=True).message.startswith("virac: nothing to do")
        lost = extract_virac("eso:n512_2500001", return_state=True)
        assert lost.is_failed()
        assert " FAILED" in lost.message
    found = rows(
        "SELECT release, count(*) AS n, sum(mag) AS total FROM lightcurves WHERE detected GROUP BY ALL ORDER BY 1"
    )
    assert [row["release"] for row in found] == ["VIRAC2", "ts_tables"]
    assert (found[0]["n"], found[0]["total"]) == (found[1]["n"], pytest.approx(found[1]["total"]))
    assert errors(catalog) == []


def test_what_a_flow_breaks_off_with_is_told_once(
    catalog: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["virac", str(tmp_path), "--lake", str(catalog.storage.root)])
    assert exit_.value.code == 2
    told = capsys.readouterr().err
    assert (told.startswith("lightlake: no file of "), told.count("\n")) == (True, 1), told


def test_nothing_of_a_folder_is_passed_over(catalog: Catalog, rows: Rows, tmp_path: Path) -> None:
    """Links are followed, what cannot be looked at is named, and names that are no text are as good as others."""
    sandbox_virac.write_tiles(tmp_path / "tiles", 1, seed=5, **SMALL)
    sandbox_virac.write_tiles(tmp_path / "disk", 2, seed=5, **SMALL)
    (tmp_path / "tiles" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "tiles" / "unmounted").symlink_to(tmp_path / "nowhere")
    latin = Path(os.fsdecode(bytes(tmp_path / "tiles") + b"/donn\xe9es"))
    sandbox_virac.write_tiles(latin, 3, seed=5, **SMALL)
    tile = sorted(latin.iterdir())[-1]
    tile.with_name(os.fsdecode(b"n1024_\xe9.hdf5")).write_bytes(tile.read_bytes())
    first = run(tmp_path / "tiles")
    assert first.is_failed()
    report = first.result(raise_on_failure=False)
    assert (report.known, report.done, report.rejected, report.failed) == (7, 6, 1, 0), first.message
    assert f"1 NOT READ: {tmp_path}/tiles/unmounted: No such file or directory. 1 of 7 tiles REJECTED" in first.message
    assert r"donn\xe9es/n1024_\xe9.hdf5" in first.message
    told = rows("SELECT endpoint FROM ledger WHERE status = 'rejected'")
    assert told == [{"endpoint": str(tmp_path / "tiles") + r"/donn\xe9es/n1024_\xe9.hdf5"}]
    assert "unmounted" in artifacts(first)["missing-virac"].data
    again = run(tmp_path / "tiles")
    assert again.is_failed()
    assert "6 of 7 tiles are in the lake" in again.message
    assert rows("SELECT count(*) AS n FROM ledger") == [{"n": 7}]
    assert errors(catalog) == []
