"""Tiles extracted by two processes at once that are killed at random, again and again: nothing lost, nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers.processes import child_environment

from deployments.sandbox import virac as sandbox_virac
from lake.settings import Settings
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.sources.virac.pieces import find_tiles
from tasks.sources.virac.tile import open_tile
from tasks.sources.virac.tiles import Selection

pytestmark = pytest.mark.crash

FULL = bool(os.environ.get("LIGHTLAKE_TEST_FULL"))
TILES, KILLS = (500, 10) if FULL else (24, 2)

WORKER = """
import sys
from tasks.pull import lake_at
from tasks.register import register_archive
from tasks.sources.virac.tiles import ORIGIN, Selection
from tasks.sources.virac.pieces import find_tiles, granule_status
from tasks.sources.virac.source import Batch, bring
url, tiles = sys.argv[1:]
lake = lake_at(url)
register_archive(lake, ORIGIN)
while waiting := granule_status(lake, find_tiles(tiles).found, Selection()).waiting:
    for tile in waiting:
        bring(Batch(url, (tile,), Selection()), True)
"""


def worker(settings: Settings, tiles: Path, log: Path) -> subprocess.Popen[bytes]:
    more = {"LIGHTLAKE_LOCK_TIMEOUT_S": "120"} | ({"LIGHTLAKE_CATALOG": settings.catalog} if settings.catalog else {})
    command = [sys.executable, "-c", WORKER, settings.url, str(tiles)]
    with log.open("wb") as told:
        return subprocess.Popen(command, env=child_environment(**more), stderr=told)


@pytest.mark.timeout(1200)
def test_two_processes_killed_at_random_lose_nothing(
    anywhere_catalog: Catalog, anywhere: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "tiles"
    made = sandbox_virac.write_tiles(
        folder, TILES, seed=8, broken=0.05 if FULL else 0.2, n_sources=12, n_pawprints=60, epochs=(22, 50)
    )
    bad = {name: kind for name, kind in made.items() if kind}
    chance = random.Random(8)
    logs = [tmp_path / "one.log", tmp_path / "other.log"]
    running = [worker(anywhere, folder, log) for log in logs]
    kills = 0
    try:
        while kills < KILLS:
            time.sleep(chance.uniform(3, 12 if FULL else 5))  # to start takes them two or three
            victim = chance.randrange(2)
            if running[victim].poll() is not None:
                break  # all is done
            running[victim].send_signal(signal.SIGKILL)
            running[victim].wait()
            kills += 1
            running[victim] = worker(anywhere, folder, logs[victim])
        for one, log in zip(running, logs, strict=True):
            assert one.wait(timeout=900) == 0, log.read_text()[-3000:]
    finally:
        for one in running:
            one.kill()
            one.wait()
    assert kills, "they were through before anything could be killed"

    cursor = anywhere_catalog.cursor()
    ledger = cursor.execute("SELECT regexp_extract(endpoint, '[^/]+$'), status, reason FROM ledger").fetchall()
    assert Counter(name for name, _, _ in ledger) == Counter(made.keys()), "each tile has one entry"
    assert {name for name, status, _ in ledger if status == "rejected"} == set(bad)
    assert {status for _, status, _ in ledger} == {"done", "rejected"}
    assert all(reason for _, status, reason in ledger if status == "rejected")
    expected: Counter[str] = Counter()
    for tile in find_tiles(str(folder)).found:
        if tile.name in bad:
            continue
        with open_tile(Path(tile.url)) as opened:
            covered = opened.ragged("catindexidcovered", slice(None))
            detected = opened.ragged("catindexid", slice(None))
            is_ks = opened.pawprints.band == 2
            for source, ids, seen in zip(opened.sources["sourceid"], detected, covered, strict=True):
                if is_ks[opened.pawprints.places(ids)].sum() > Selection().min_ks:
                    expected[str(source)] = len(seen)
    rows = cursor.execute(
        "SELECT source_id, count(*), count(DISTINCT exposure_id) FROM lightcurves GROUP BY 1"
    ).fetchall()
    assert {source: n for source, n, _ in rows} == dict(expected)
    assert all(n == distinct for _, n, distinct in rows), "no row twice"
    assert [finding.message for finding in verify(anywhere_catalog) if finding.is_error] == []
    # One that is killed between its commit and the end of its claim leaves an empty file, which bars nobody.
    claims = Path(anywhere_catalog.location.target).parent / "claims"
    assert len(list(claims.glob("*.lock"))) <= kills
